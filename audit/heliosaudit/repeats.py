"""Rows of executemany after the first, within a transaction: the same statement, with other values (AUDIT.md, "Mechanism").

What the general path finds out for the first row holds for those that follow until something else comes between, and whatever
could come between is looked for again at each row.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import apsw

from heliosaudit import sessions
from heliosaudit.captures import Running, rendered
from heliosaudit.events import Event, timestamp
from heliosaudit.policies import Policy
from heliosaudit.records import FIELDS

if TYPE_CHECKING:
    from heliosaudit.auditors import Auditor
    from heliosaudit.cursors import Cursor

__all__ = ["Repeat", "begins", "finish"]

_base = apsw.Connection

_OCCURRED_AT, _QUERY = FIELDS.index("occurred_at"), FIELDS.index("query")
_AFFECTED_ROWS, _EXECUTION_TIME = FIELDS.index("affected_rows"), FIELDS.index("execution_time_us")


class Repeat:
    """A statement that was recorded for one row, and may be executed for another.

    Attributes:
        running: The statement; one object serves all rows, for each has ended before the next begins.
    """

    __slots__ = ("_blank", "_policy", "_session", "_shows_values", "_sql", "_times", "running")

    def __init__(self, running: Running, event: Event | None, policy: Policy) -> None:
        """Take a change that has ended well, and its event; None: the policy does not want it."""
        self.running = running
        self._sql = running.sql
        self._session = running.session
        self._policy = policy
        self._blank = None if event is None else event.fields.copy()
        self._times = policy.capture_execution_time
        template = running.verdict.template
        self._shows_values = template is not None and template.has_parameters and running.verdict.shows_values

    @staticmethod
    def serves(event: Event | None, policy: Policy) -> bool:
        """Tell whether the events of further rows differ from one in nothing but time, values and rows affected."""
        return event is None or (event.values is None and policy.capture_parameters in ("expanded", "none"))

    def begin(self, sql: str, bindings: Any, changes: int) -> Running | None:
        """Begin the statement for another row; None: it is another statement, or somebody else's."""
        session = sessions.current()
        if sql != self._sql or session is not self._session:
            return None
        running = self.running
        running.bindings, running.changes = bindings, changes
        running.closed = running.settled = False
        running.event = None
        running.occurred = time.time_ns()
        running.started = time.perf_counter_ns()
        return running

    def event(self, affected: int) -> Event | None:
        """Make the event of the row whose statement has just ended."""
        if self._blank is None:
            return None
        running, fields = self.running, self._blank.copy()
        fields[_OCCURRED_AT] = timestamp(running.occurred)
        fields[_AFFECTED_ROWS] = affected
        if self._times:
            fields[_EXECUTION_TIME] = (time.perf_counter_ns() - running.started) // 1000
        if self._shows_values:
            fields[_QUERY] = rendered(running.verdict, running.bindings, self._policy)
        return Event(fields, is_work=True)


def begins(auditor: Auditor, cursor: Cursor, repeat: Repeat, sql: str, bindings: Any) -> bool:
    """Begin a change that executemany has made for another row just before; returns whether it is that change again."""
    gate, connection = auditor.gate, cursor.connection
    if cursor.running is not None:  # the statement before it in the text
        return False
    if gate.actions or gate.rules or auditor.trace is not None or cursor.trace is not None or not connection.in_transaction:
        return False
    cursor.running = repeat.begin(sql, bindings, _base.total_changes(connection))
    return cursor.running is not None


def finish(auditor: Auditor, cursor: Cursor, repeat: Repeat) -> bool:
    """Record a change that executemany has made for a further row, as `Auditor.finish` does; returns whether it could."""
    running = repeat.running
    if cursor.running is not running or running.has_failed or running.frame is not None or not auditor.adds(running, cursor):
        return False
    try:
        cursor.running = None
        running.closed = True
        event = running.event = repeat.event(cursor.connection.changes())
        if event is not None:
            auditor.ledger.add_work(event)
    except BaseException as error:
        auditor.abandon(running, error)
        raise
    running.settled = True
    return True
