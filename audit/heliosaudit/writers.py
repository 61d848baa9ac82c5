"""The log's own statements on the application's connection, which are not to be noticed (AUDIT.md, "Transparency")."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import apsw

from heliosaudit.events import Event
from heliosaudit.gates import Gate
from heliosaudit.private import Scratch, allow, keep
from heliosaudit.schemas import LOG
from heliosaudit.stores import Store

if TYPE_CHECKING:
    from heliosaudit.connections import Audited

__all__ = ["Writer"]

_base = apsw.Connection


def _cursor(connection: apsw.Connection) -> apsw.Cursor:
    """Return a cursor for statements of the log; none is kept, for it would keep the connection from being collected."""
    cursor = apsw.Cursor(connection)
    cursor.exec_trace, cursor.row_trace = allow, keep
    return cursor


class Writer:
    """Runs the log's statements on a connection, and asks it about its transaction.

    Attributes:
        secret: A text that all of them hold.
        hiding: > 0 while the application's hooks are not to see what happens.
        offset: Rows that the log changed, which `total_changes()` does not count.
        has_appended: Whether events were written since the last commit.
    """

    def __init__(self, connection: Audited, gate: Gate) -> None:
        self._owner = weakref.ref(connection)
        self._gate = gate
        self._store = Store()
        self.secret = self._store.secret
        self._scratch = Scratch(self.secret)
        self.hiding = 0
        self.offset = 0
        self.has_appended = False
        with self.privately():
            self._scratch.make(_cursor(connection))

    @property
    def connection(self) -> Audited:
        """The connection."""
        connection = self._owner()
        assert connection is not None  # noqa: S101 - it calls us, so it is there
        return connection

    @contextmanager
    def privately(self, *, hides: bool = True) -> Iterator[None]:
        """Let this thread run statements of the log; ``hides`` them from the application's hooks."""
        gate = self._gate
        had_turn = gate.enter()
        was, gate.internal = gate.internal, threading.get_ident()
        self.hiding += hides
        try:
            yield
        finally:
            self.hiding -= hides
            gate.internal = was
            gate.leave(had_turn)

    def run(self, sql: str, bindings: tuple[Any, ...] = (), *, hides: bool = True) -> list[tuple[Any, ...]]:
        """Run a statement of the log, and return its rows."""
        with self.privately(hides=hides):
            return _cursor(self.connection).execute(f"{sql} -- {self.secret}", bindings).fetchall()

    @contextmanager
    def in_transaction(self) -> Iterator[None]:
        """Run the block, which runs and appends what it has, in a transaction of the log's own.

        Raises:
            apsw.BusyError: Another connection is writing, for longer than the busy timeout.
            apsw.Error: Something else; nothing was changed.
        """
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.run("ROLLBACK")
            raise

    def append(self, events: list[Event]) -> None:
        """Append events in the transaction that is open."""
        connection = self.connection
        with self.privately():
            changes, rowid, total = connection.changes(), _base.last_insert_rowid(connection), _base.total_changes(connection)
            cursor = _cursor(connection)
            written = None
            try:
                written = self._store.append(cursor, events)
            finally:
                # not all that was changed meanwhile: FTS5 writes what it had kept back when a statement begins, ours perhaps
                self.offset += _base.total_changes(connection) - total if written is None else written
                self.offset += self._scratch.restore(connection, cursor, changes, rowid)
        self.has_appended = True

    @property
    def last_id(self) -> int:
        """The id of the event that was appended last."""
        return self._store.last_id

    def holds(self, event_id: int) -> bool:
        """Tell whether an event is in the log, as the open transaction sees it."""
        return bool(self.run(f"SELECT 1 FROM main.{LOG} WHERE id = ?", (event_id,)))  # noqa: S608 - a constant

    def restore(self, changes: int, rowid: int) -> None:
        """Make `changes()` and `last_insert_rowid()` say what they said."""
        connection = self.connection
        with self.privately():
            self.offset += self._scratch.restore(connection, _cursor(connection), changes, rowid)

    def make_scratch(self) -> None:
        """Make the temporary tables again: PRAGMA temp_store drops them."""
        connection = self.connection
        changes, rowid, total = connection.changes(), _base.last_insert_rowid(connection), _base.total_changes(connection)
        with self.privately():
            cursor = _cursor(connection)
            self._scratch.make(cursor)
            self._scratch.restore(connection, cursor, changes, rowid)
            self.offset += _base.total_changes(connection) - total

    def hold(self) -> apsw.Blob:
        """Open a write handle on a temporary row: SQLite commits no autocommit statement before it is closed."""
        return self._scratch.hold(self.connection)

    # -- what the connection's transaction has come to ------------------------------------------------------------------

    @property
    def is_writing(self) -> bool:
        """Whether the main database's write lock is held."""
        return self.connection.txn_state("main") == apsw.SQLITE_TXN_WRITE

    @property
    def is_idle(self) -> bool:
        """Whether no transaction is open that a commit of the recorder's would make unable to write (BUSY_SNAPSHOT)."""
        try:
            return self.connection.txn_state("main") == apsw.SQLITE_TXN_NONE
        except (apsw.Error, AssertionError):
            return False

    @property
    def has_written(self) -> bool:
        """Whether the open transaction has taken the write lock of any database but the temporary one."""
        connection = self.connection
        if connection.txn_state("main") == apsw.SQLITE_TXN_WRITE:
            return True
        return any(connection.txn_state(name) == apsw.SQLITE_TXN_WRITE for name in connection.db_names() if name != "temp")

    def is_alone(self) -> bool:
        """Tell whether this connection keeps all others out, the recorder's among them."""
        return self.run("PRAGMA main.locking_mode") == [("exclusive",)]

    def schema_version(self, database: str | None) -> Any:
        """Return the schema version of a database (SQLite file format, "Schema cookie")."""
        name = (database or "main").replace('"', '""')
        return self.run(f'PRAGMA "{name}".schema_version')[0][0]
