"""A database's audit log, as the commands open and read it; reading it is recorded there."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from heliosaudit import stores
from heliosaudit.errors import AuditError
from heliosaudit.events import event_of
from heliosaudit.queries import rows
from heliosaudit.schemas import LOG
from heliosaudit.sessions import current
from heliosvfs.connection import Connection
from heliosvfs.errors import UsageError
from heliosvfs.keyring import Key
from heliosvfs.opening import connect

__all__ = ["SHOWN", "open_log", "record", "say_unrecorded", "select", "try_to_record"]

SHOWN = ["id", "timestamp", "user", "class", "operation", "target", "affected_rows", "success", "rolled_back", "query"]
_FILTERS = {"user": '"user"', "operation": "operation", "target": "target", "session": "session_id", "class": "class"}


@contextlib.contextmanager
def open_log(file: Path, key: Key, busy_timeout: float = 5.0) -> Iterator[Connection]:
    """Open a database that has an audit log; it is not audited, so what is done with the log has to be recorded.

    Raises:
        UsageError: It has none, or can't be opened.
    """
    with contextlib.closing(connect(file, key=key, create=False, busy_timeout=busy_timeout)) as connection:
        if not stores.has_log(connection):
            msg = f"{file} has no audit log: heliosvfs.connect(..., audit=...) makes one"
            raise UsageError(msg)
        yield connection


def record(connection: apsw.Connection, operation: str, details: dict[str, Any], *, success: bool = True) -> None:
    """Record what was done with the log (PCI DSS 10.2.1.3: all access to audit logs), or say why that could not be done."""
    try:
        try_to_record(connection, operation, details, success=success)
    except (apsw.Error, AuditError) as error:
        say_unrecorded(error)


def say_unrecorded(error: Exception) -> None:
    """Say why what was done with the log is not in it."""
    sys.stderr.write(f"heliosvfs: this could not be recorded in the log: {error}\n")


def try_to_record(connection: apsw.Connection, operation: str, details: dict[str, Any], *, success: bool = True) -> None:
    """Record what was done with the log.

    Raises:
        AuditError: The log lost its genesis record.
        apsw.Error: It can't be written.
    """
    who = current()
    event = event_of(
        operation, event_class="AUDIT", user=who.user, session_id=who.id, target=LOG, details=details, success=success
    )
    stores.in_transaction(connection, [event])


def _pattern(connection: apsw.Connection, text: str) -> str:
    """Return the pattern of what holds a text, in which backslashes escape.

    Raises:
        UsageError: SQLite takes no such pattern.
    """
    pattern = "%" + re.sub(r"[%_\\]", r"\\\g<0>", text) + "%"
    most = connection.limit(apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH)
    if len(pattern.encode(errors="surrogateescape")) > most:
        msg = f"the text is too long to be searched for: SQLite takes {most} bytes, with a backslash before each %, _ and \\"
        raise UsageError(msg)
    if not text or "\0" in text:
        msg = "name a text to search for, without null characters"
        raise UsageError(msg)
    return pattern


def select(
    connection: apsw.Connection, filters: dict[str, Any], after: int, limit: int, *, newest: bool
) -> list[tuple[Any, ...]]:
    """Return the columns that are shown of the events that pass the filters, oldest first."""
    where = ["id > ?"]
    bindings: list[Any] = [after]
    for name, column in _FILTERS.items():
        if filters.get(name) is not None:
            where.append(f"{column} = ?")
            bindings.append(filters[name])
    for name, comparison in (("since", "timestamp >= ?"), ("until", "timestamp < ?"), ("text", "query LIKE ? ESCAPE '\\'")):
        if filters.get(name) is not None:
            where.append(comparison)
            bindings.append(_pattern(connection, filters[name]) if name == "text" else filters[name])
    if filters.get("failures"):
        where.append("success = 0")
    columns = ", ".join(f'"{name}"' for name in SHOWN)
    order = "DESC" if newest else "ASC"
    sql = f"SELECT {columns} FROM main.{LOG} WHERE {' AND '.join(where)} ORDER BY id {order} LIMIT {int(limit)}"
    found = rows(connection, sql, tuple(bindings))
    return found[::-1] if newest else found
