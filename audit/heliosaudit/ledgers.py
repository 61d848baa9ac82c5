"""Events between their making and their place in the log (AUDIT.md, "States of a transaction", "When events are written")."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import apsw

from heliosaudit import captures, sessions
from heliosaudit.errors import AuditError, AuditWriteError
from heliosaudit.events import Event, event_of
from heliosaudit.gates import Gate
from heliosaudit.policies import Policy
from heliosaudit.statements import Verdict
from heliosaudit.transactions import SUMMARY, Summary, Transactions
from heliosaudit.writers import Writer

if TYPE_CHECKING:
    from heliosaudit.recorders import Recorder

__all__ = ["Ledger"]

_CHUNK = 250  # events of an open transaction that are written at once
_OVERDUE = 20  # buffers of facts after which they are written though a read transaction is open


class Ledger:
    """Keeps a connection's events until they can be written.

    Attributes:
        transactions: What becomes of them.
        has_landed: Whether the transaction that SQLite ended last was committed; set by hooks.
        is_spoiled: Whether an exception came while events were written in the open transaction, which can't be committed then.
        problem: Why the events that wait could not be written when that was last tried.
        is_within: Tells whether a statement that changes something is executing, which takes along what is written when it fails.
        was_idle: Whether the connection had no transaction open when its last statement ended, and none has begun since.
    """

    def __init__(self, policy: Policy, writer: Writer, gate: Gate, recorder: Recorder | None) -> None:
        self._policy = policy
        self._writer = writer
        self._gate = gate
        self._recorder = recorder
        self._lock = threading.Lock()  # of the facts, which the recorder's thread takes, too; no other is taken under it
        self.transactions = Transactions(policy.max_transaction_events)
        self.is_within: Callable[[], bool] = lambda: False
        self.was_idle = True
        self.has_landed = False
        self.is_spoiled = False
        self.problem = ""

    def look(self) -> None:
        """Note for the recorder's thread whether the connection has a transaction open, at the end of a statement."""
        self.was_idle = self._writer.is_idle

    # -- taking events in ----------------------------------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Keep a fact until it can be written; a repeated failure is counted."""
        facts = self.transactions.facts
        with self._lock:
            if facts and not event.fields[8]:
                last = facts[-1].fields
                if not last[8] and last[2:7] == event.fields[2:7] and last[9] == event.fields[9]:
                    details = last[21] or {"count": 1}
                    last[21] = {**details, "count": details["count"] + 1, "until": event.fields[1]}
                    return
            event.is_work = False
            facts.append(event)
        if self._recorder is not None:
            self._recorder.expect(self)
        if len(facts) >= self._policy.async_buffer_size:
            self.flush()

    def add_work(self, event: Event) -> None:
        """Keep the event of work in the open transaction."""
        if not self.transactions.frames:
            self.transactions.begin()
        if self.transactions.add_work(event) >= _CHUNK and self._writer.is_writing:
            self.flush_inside()

    def keeps(self, event: Event | None) -> bool:
        """Tell whether an event is kept here, to be written or until its transaction is decided."""
        transactions = self.transactions
        kept = [transactions.facts, *(frame.pending for frame in transactions.frames)]
        kept += [frame.undecided for frame in transactions.frames]
        return any(other is event for events in kept for other in events)

    def take_facts(self) -> list[Event]:
        """Return the facts that wait, to be written now."""
        facts = self.transactions.facts
        events: list[Event] = []
        try:
            with self._lock:
                events = [*facts]
                facts.clear()
        except BaseException:  # KeyboardInterrupt: nobody has them now
            if events and (not facts or facts[0] is not events[0]):
                facts.extendleft(reversed(events))
            raise
        return events

    def put_back(self, events: list[Event]) -> None:
        """Put facts back that could not be written."""
        with self._lock:
            self.transactions.facts.extendleft(reversed(events))

    # -- writing -------------------------------------------------------------------------------------------------------

    def flush_inside(self) -> None:
        """Write all events in the open transaction.

        Raises:
            AuditWriteError: That is not possible; nothing is lost, and the transaction can't be committed as it is.
        """
        transactions = self.transactions
        if not transactions.has_unwritten_work:
            return
        try:
            self._write_inside()
        except (apsw.Error, AuditError) as error:
            msg = f"the audit log can't be written, so the transaction can't be committed: {captures.said(error)}"
            raise AuditWriteError(msg) from error

    def _write_inside(self) -> None:
        """Write what waits in the open transaction; until it is known what is in the log, that can't be committed."""
        transactions, was_spoiled = self.transactions, self.is_spoiled
        self.is_spoiled = True
        events = transactions.take()
        try:
            self._writer.append(events)
        except BaseException as error:
            transactions.returned(events)
            if isinstance(error, (apsw.Error, AuditError)):
                self.is_spoiled = was_spoiled
            raise
        transactions.written(events)
        self.is_spoiled = was_spoiled

    def flush(self) -> bool:
        """Write the facts that wait, if the lock is free; returns whether none is left."""
        transactions, writer = self.transactions, self._writer
        if not transactions.facts:
            return True
        overdue = len(transactions.facts) > _OVERDUE * self._policy.async_buffer_size
        if self._recorder is not None and (overdue or writer.is_idle) and self._recorder.write(self):
            return True
        if writer.is_idle and not writer.connection.in_transaction and (self._recorder is None or writer.is_alone()):
            return self._flush_between()
        if transactions.frames and writer.is_writing and not self.is_within():
            try:
                self._write_inside()
            except (apsw.Error, AuditError):
                return False
            return True
        return False

    def write_now(self) -> bool:
        """Write the facts that wait, whatever this connection reads; returns whether they are on disk."""
        if self._recorder is not None and self._recorder.write(self):
            return True
        writer = self._writer
        return writer.is_idle and not writer.connection.in_transaction and self._flush_between()

    def step_aside(self) -> None:
        """Have the recorder give up its connection, so that this one can be alone with the database."""
        if self._recorder is not None:
            self._recorder.release()

    def forget(self, event: Event) -> None:
        """Take a fact back, whose statement was not run after all."""
        with self._lock, contextlib.suppress(ValueError):
            self.transactions.facts.remove(event)

    def flush_soon(self) -> None:
        """Write facts that matter now, if no transaction of this connection is open."""
        if not self._writer.connection.in_transaction:
            self.flush()

    def flush_while_idle(self) -> None:
        """Write facts from the recorder's thread, unless the connection does anything."""
        with self._gate.lock.closed() as is_unused:
            # not asked of the connection, which is not this thread's: APSW would refuse whoever comes second
            if is_unused and self.was_idle and self._recorder is not None:
                self._recorder.write(self)

    def _flush_between(self) -> bool:
        """Write facts in a transaction of their own on the application's connection."""
        events, writer = self.take_facts(), self._writer
        self.has_landed = False
        try:
            with writer.in_transaction():
                writer.append(events)
        except BaseException as error:
            if not self.has_landed:
                self.put_back(events)
            if not isinstance(error, (apsw.Error, AuditError)):
                raise
            self.problem = captures.said(error)
            return False
        return True

    # -- what moves transactions ---------------------------------------------------------------------------------------

    def moved(self, verdict: Verdict) -> int | None:
        """Follow a transaction statement that was executed; returns to which depth it rolled back, None if it did not."""
        transactions = self.transactions
        operation = verdict.operation
        if not self._writer.connection.in_transaction:
            if operation == "ROLLBACK":
                self.lost()
            else:
                transactions.committed()
        elif operation == "BEGIN":
            transactions.begin()
        elif operation == "SAVEPOINT":
            transactions.begin(verdict.savepoint)
        else:
            index = transactions.index_of(verdict.savepoint)
            if index is not None and operation == "RELEASE":
                transactions.release(index)
            elif index is not None and operation == "ROLLBACK TO":
                self._summarise(transactions.rolled_back_to(index))
                return index + 1
        return None

    def lost(self) -> None:
        """Turn the events of a transaction that was rolled back into facts."""
        self._summarise(self.transactions.rolled_back())
        self.flush_soon()

    def undone(self, index: int) -> None:
        """Turn the events of a frame into facts, whose work SQLite undid."""
        self._summarise(self.transactions.rolled_back(index))

    def check(self) -> None:
        """Notice a transaction that SQLite rolled back by itself: OR ROLLBACK, a full disk, an interrupt."""
        if self.transactions.frames and not self._writer.connection.in_transaction:
            if self.has_landed:  # an exception came just after a COMMIT
                self.transactions.committed()
            else:
                self.lost()

    def _summarise(self, summaries: list[Summary]) -> None:
        session = sessions.current()
        for summary in summaries:
            details = {
                "counts": [[*key, count] for key, count in sorted(summary.counts.items())],
                "sha256": summary.digest.hexdigest(),
            }
            self.note(
                event_of(
                    SUMMARY,
                    event_class="AUDIT",
                    user=session.user,
                    session_id=session.id,
                    rolled_back=True,
                    details=details,
                )
            )
