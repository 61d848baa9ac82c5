"""Events on their way into the log: a record whose time of recording is still due, and what becomes of it on a rollback."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

from heliosaudit.records import FIELDS, Record

__all__ = ["Event", "event_of", "timestamp"]

_ROLLED_BACK = FIELDS.index("rolled_back")
_NANOSECONDS = 1_000_000_000
_second = (0, "")


def timestamp(nanoseconds: int) -> str:
    """Return a time since the epoch as the log writes it: UTC, ISO 8601, microseconds, Z."""
    global _second  # noqa: PLW0603 - most events of a burst are in the same second, and formatting it costs more than hashing
    start, text = _second
    rest = nanoseconds - start
    if not text or not 0 <= rest < _NANOSECONDS:
        seconds, rest = divmod(nanoseconds, _NANOSECONDS)
        text = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.")
        _second = (nanoseconds - rest, text)
    return f"{text}{str(rest // 1000).zfill(6)}Z"  # in half the time of :06d


class Event:
    """A record that waits to be written.

    Attributes:
        fields: The record's fields in order; the first, the time of recording, is filled in by the store.
        origin: Index of the savepoint whose work it is, while its transaction is open.
        is_work: Whether it tells of a change that a rollback undoes; other events are facts whatever becomes of the transaction.
        values: Salt and value of each bound value that the record only holds a commitment to.
    """

    origin = 0
    values: list[tuple[bytes, Any]] | None = None

    def __init__(self, fields: list[Any], *, is_work: bool = False) -> None:
        self.fields = fields
        self.is_work = is_work

    def mark_rolled_back(self) -> None:
        """Turn the event of work into the fact that it was undone."""
        if self.is_work:
            self.fields[_ROLLED_BACK] = True
            self.is_work = False


def event_of(operation: str, *, event_class: str, user: str, session_id: str = "", **fields: Any) -> Event:
    """Make an event by hand: of the log's own life, or of what no statement stands for.

    Args:
        operation: What was done.
        event_class: DDL, DML, SELECT, TRANSACTION, AUTH, ADMIN or AUDIT.
        user: Who did it.
        session_id: Of the session.
        **fields: Further fields of `Record`.
    """
    record = Record(
        timestamp="",
        occurred_at=timestamp(time.time_ns()),
        session_id=session_id,
        user=user,
        operation=operation,
        target=fields.pop("target", ""),
        query=fields.pop("query", ""),
        affected_rows=None,
        success=fields.pop("success", True),
        error=None,
        client_ip=None,
        application_name=None,
        database_name=None,
        execution_time_us=None,
        event_class=event_class,
        rolled_back=False,
        reads=[],
        writes=[],
        custom=None,
        rows=None,
        parameters=None,
        details=None,
    )
    return Event(list(record._replace(**fields)))
