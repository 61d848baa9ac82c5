"""Appending to the log inside a transaction that somebody else begins and ends (AUDIT.md, "The chain").

The head of the chain is read only once the write lock is held, or two writers would append to the same head.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apsw

from heliosaudit import chains, schemas
from heliosaudit.errors import AuditError
from heliosaudit.events import Event, event_of, timestamp
from heliosaudit.records import encodable, encode
from heliosaudit.schemas import LOG, VALUES

__all__ = ["Store", "create", "has_log", "in_transaction", "transaction"]

_sha256 = hashlib.sha256


class Store:
    """Appends to the log of a connection's main database, through a cursor of its own.

    Its statements hold a secret, so that nobody else's SQL text is theirs: whoever ran the same text would be given the prepared
    statement, and with it the permission to write.

    Attributes:
        secret: A text that all of them hold.
        last_id: The id of the event that was appended last.
    """

    def __init__(self, secret: str | None = None) -> None:
        self.secret = secret or secrets.token_hex(16)
        self.last_id = 0
        mark = f" -- {self.secret}"
        self._head = f"SELECT id, checksum, timestamp FROM main.{LOG} ORDER BY id DESC LIMIT 1{mark}"
        self._insert = f"INSERT INTO main.{LOG}(id, record, checksum) VALUES(?, ?, ?){mark}"
        self._insert_value = f"INSERT INTO main.{VALUES}(event, position, salt, value) VALUES(?, ?, ?, ?){mark}"

    def head(self, cursor: apsw.Cursor) -> tuple[int, bytes, str]:
        """Return id, checksum and time of the last event.

        Raises:
            AuditError: There is no event at all, not even the genesis record.
        """
        found: list[Any] = cursor.execute(self._head).fetchall()  # to its end, or it would stay active
        if not found:
            msg = "the audit log is empty: its genesis record has been removed"
            raise AuditError(msg)
        head: tuple[int, bytes, str] = found[0]
        return head

    def append(self, cursor: apsw.Cursor, events: Sequence[Event], *, genesis: bool = False) -> int:
        """Append events to the chain through a cursor; the caller holds the write lock, or takes it with this.

        Returns:
            How many rows were written: events, one more than given where the clock had been set back, and values.

        Raises:
            AuditError: The log lost its genesis record.
            apsw.Error: The log can't be written.
        """
        number, previous, last = (0, chains.ROOT, "") if genesis else self.head(cursor)
        now = timestamp(time.time_ns())
        if now < last:
            events = [*events, self._clock_step(now, last)] if now[:19] < last[:19] else events
            now = last
        rows: list[tuple[int, str, bytes]] = []
        values: list[tuple[int, int, bytes, object]] = []
        for event in events:
            fields = event.fields
            fields[0] = now
            try:
                record = encode(fields)
            except (TypeError, ValueError, OverflowError, RecursionError):  # it may not keep the others out of the log
                fields[:] = encodable(fields, otherwise=_of_a_kind)
                record = encode(fields)
            number += 1
            previous = _sha256(previous + number.to_bytes(8, "big") + record).digest()
            rows.append((number, record.decode(), previous))
            if event.values:
                values += [(number, position, salt, value) for position, (salt, value) in enumerate(event.values)]
        if len(rows) == 1:
            cursor.execute(self._insert, rows[0])
        else:
            cursor.executemany(self._insert, rows)
        if values:
            cursor.executemany(self._insert_value, values)
        self.last_id = number
        return len(rows) + len(values)

    def _clock_step(self, now: str, last: str) -> Event:
        """Return the event that says that the clock went back: `timestamp` is held, so that it never steps back."""
        return event_of("CLOCK STEP", event_class="ADMIN", user="", details={"clock": now, "held_at": last})


def _of_a_kind(value: object) -> str:
    return f"/* {type(value).__name__} */"


def has_log(connection: apsw.Connection) -> bool:
    """Tell whether the main database has an audit log."""
    return connection.table_exists("main", LOG)


def create(connection: apsw.Connection, user: str, details: dict[str, str] | None = None) -> None:
    """Make the log's tables and its genesis record, in the transaction that is open.

    Args:
        connection: A connection that is not audited yet.
        user: Who turns auditing on.
        details: What else the genesis record says, such as the UUID of the file.
    """
    cursor = apsw.Cursor(connection)
    for statement in schemas.statements():
        cursor.execute(statement)
    genesis = event_of(
        "GENESIS",
        event_class="AUDIT",
        user=user,
        target=LOG,
        details={"uuid": str(uuid.uuid4()), "format": "heliosaudit 1", "sqlite": apsw.sqlite_lib_version(), **(details or {})},
    )
    Store().append(cursor, [genesis], genesis=True)


@contextmanager
def transaction(cursor: apsw.Cursor) -> Iterator[None]:
    """Commit what the block does, or leave nothing of it; what is raised is the block's own error.

    Raises:
        apsw.BusyError: Another connection is writing, for longer than the busy timeout.
    """
    cursor.execute("BEGIN IMMEDIATE")
    try:
        yield
        cursor.execute("COMMIT")
    except BaseException:
        if cursor.connection.in_transaction:  # an error of reading or writing has ended it
            cursor.execute("ROLLBACK")
        raise


def in_transaction(connection: apsw.Connection, events: Sequence[Event]) -> None:
    """Append events to the log of a connection that is not audited, in a transaction of their own.

    Raises:
        AuditError: The log lost its genesis record.
        apsw.BusyError: Another connection is writing, for longer than the busy timeout.
    """
    cursor = apsw.Cursor(connection)
    with transaction(cursor):
        Store().append(cursor, events)
