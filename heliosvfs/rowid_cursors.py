"""Cursors that know ``lastrowid`` and ``rowcount``, as programs written for `sqlite3` ask them for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliosvfs.audited import AuditedConnection, GuardedAuditedCursor
from heliosvfs.torn import GuardedCursor

if TYPE_CHECKING:
    from heliosvfs.connection import Connection

__all__ = ["give_rowids"]


class _Rowids(GuardedCursor):
    """Mixin over `apsw.Cursor`."""

    @property
    def lastrowid(self) -> int:
        """Rowid of the last row that was inserted through the connection."""
        return self.connection.last_insert_rowid()

    @property
    def rowcount(self) -> int:
        """Rows that the last INSERT, UPDATE or DELETE of the connection changed."""
        return self.connection.changes()


class _AuditedRowids(GuardedAuditedCursor, _Rowids):
    """The same, audited."""


def give_rowids(connection: Connection) -> None:
    """Have a connection make such cursors."""
    is_audited = isinstance(connection, AuditedConnection) and connection.auditor is not None
    connection.cursor_factory = _AuditedRowids if is_audited else _Rowids
