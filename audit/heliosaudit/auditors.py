"""One audited connection: from the start of a statement to the place of its event (AUDIT.md, "Mechanism")."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import apsw

from heliosaudit import beginnings, captures, failures, repeats, sessions
from heliosaudit.captures import Running
from heliosaudit.commits import Commits
from heliosaudit.cursors import Cursor, raise_instead
from heliosaudit.errors import AccessDeniedError
from heliosaudit.events import Event, event_of
from heliosaudit.gates import Gate
from heliosaudit.images import Images
from heliosaudit.ledgers import Ledger
from heliosaudit.nested import Nested
from heliosaudit.policies import Policy
from heliosaudit.recorders import Recorder
from heliosaudit.repeats import Repeat
from heliosaudit.rules import Refusal
from heliosaudit.schemas import PREFIX
from heliosaudit.statements import Verdict
from heliosaudit.unfinished import Unfinished
from heliosaudit.verdicts import Verdicts
from heliosaudit.writers import Writer

if TYPE_CHECKING:
    from heliosaudit.connections import Audited

__all__ = ["Auditor"]

_base = apsw.Connection


def _may_make_reserved_name(running: Running) -> bool:
    """Tell whether ALTER TABLE may give a table a name of the log's; to look is to read, which a program could notice."""
    return running.verdict.operation == "ALTER TABLE" and PREFIX in running.sql.lower()


class Auditor:
    """Records what happens on a connection.

    It lives as long as the connection; `heliosaudit.connections.Audited` calls it.

    Attributes:
        policy: What is recorded.
        gate: Answers the authorizer.
        writer: Runs the log's statements on the connection.
        ledger: Keeps events until they are written.
        commits: Keeps autocommit statements and their events together.
        images: Collects row images; None: the policy wants none.
        trace: The application's exec tracer.
        is_closed: Whether everything is done that has to be before the connection closes.
        has_ended: Whether everything is written, or can't be.
        enter: See `heliosaudit.turns.Turn.enter`.
        leave: See `heliosaudit.turns.Turn.leave`.
    """

    def __init__(self, connection: Audited, policy: Policy, recorder: Recorder | None) -> None:
        """Take over the hooks of ``connection``.

        Args:
            connection: The connection, whose log exists.
            policy: What is recorded.
            recorder: Writes what belongs to no transaction of the application's; None: the connection itself does, in between.
        """
        self.policy = policy
        self.gate = Gate()
        self.enter, self.leave = self.gate.enter, self.gate.leave  # asked several times a statement
        self.writer = Writer(connection, self.gate)
        self.ledger = Ledger(policy, self.writer, self.gate, recorder)
        self.commits = Commits(self.writer, self.ledger, self.gate)
        self.unfinished = Unfinished(self.commits)
        self.nested = Nested(self.writer, self.ledger)
        self.ledger.is_within = self.nested.is_open
        self.trace: Any = None
        self.is_closed = self.has_ended = False
        self._closing: Event | None = None
        self.images = Images(self.writer, policy) if policy.capture_rows != "none" else None
        self._recorder = recorder
        self._verdicts = Verdicts(self.writer, self.gate, policy)
        self._resetting: Cursor | None = None  # whose half-read statement is being ended
        self._reserved: set[str] = set()  # names of the log's before an ALTER TABLE

    @property
    def connection(self) -> Audited:
        """The connection."""
        return self.writer.connection

    def flush(self) -> bool:
        """Write the events that wait, if the lock is free; returns whether none is left."""
        return self.ledger.flush()

    def failed(self, cursor: Cursor, error: BaseException) -> BaseException:
        """Record a statement that failed; returns what is to be raised."""
        return failures.failed(self, cursor, error)

    # -- the start of a statement --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Set aside what was asked before a statement is prepared: of one around it, or one that is half-read."""
        self.commits.recorded = 0
        asked, outer = self.gate.take_actions(), self.nested.executing
        if asked and outer is not None and outer.running is not None:
            outer.running.asked = [*outer.running.asked, *asked]  # when it was prepared again
        failures.record_stray(self)

    def on_statement(self, cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        """See a statement before it runs: the exec tracer."""
        if cursor is self._resetting:
            return True
        if not isinstance(cursor, Cursor):
            raise failures.foreign_cursor(self, sql)
        self.ledger.was_idle = False
        if cursor.repeat is not None and repeats.begins(self, cursor, cursor.repeat, sql, bindings):
            return True
        verdict = self._verdicts.of(cursor, sql)
        if cursor.running is not None:
            self.finish(cursor.running)
        if self.gate.rules or self.writer.secret in sql:
            self._ask_rules(sql, bindings, verdict)
        connection = self.writer.connection
        trace = cursor.trace or self.trace
        if trace is not None and not trace(connection if cursor.is_control else cursor, sql, bindings):
            return False
        if verdict.event_class:
            self._begin(Running(cursor, verdict, sql, bindings, _base.total_changes(connection)), cursor)
        return True

    def _begin(self, running: Running, cursor: Cursor) -> None:
        cursor.running = running
        try:
            if self.images is not None:
                self.images.begin(running)
            if _may_make_reserved_name(running):
                self._reserved = self._verdicts.reserved_names()
            beginnings.before(self, running)
        except BaseException:
            running.is_prevented = True
            raise

    def _ask_rules(self, sql: str, bindings: Any, verdict: Verdict) -> None:
        of_log = Refusal("this SQL belongs to the audit log") if self.writer.secret in sql else None
        refusal = of_log or self.gate.refusal_of(sql, bindings, verdict)
        if refusal is not None:
            self.gate.deny(refusal)
            raise refusal.raised(sql)

    def forget(self) -> None:
        """Drop all verdicts, and have every statement prepared anew: whom it is for, or what may be, has changed."""
        self._verdicts.clear()
        _base.set_authorizer(self.connection, self.gate.authorize)

    def end_orphans(self) -> None:
        """End autocommit statements whose cursors are gone."""
        for orphan in self.commits.orphans():  # or SQLite would commit nothing any more
            self.finish(orphan)

    # -- the end of a statement ----------------------------------------------------------------------------------------

    def reset(self, cursor: Cursor) -> None:
        """End a statement that was left half-read, as executing another on its cursor does."""
        was = self.enter()
        self._resetting = cursor
        try:
            apsw.Cursor.execute(cursor, "")
        except BaseException as error:  # noqa: BLE001 - raised again
            self._resetting = None
            self.leave(was)
            instead = self.failed(cursor, error)
            try:
                if instead is error:
                    raise
                raise_instead(instead, error)
            finally:
                del instead  # or it is part of a cycle with this frame
        self._resetting = None
        self.leave(was)
        if cursor.running is not None:
            self.finish(cursor.running)

    def finish(self, running: Running) -> None:
        """Record a statement that has ended well, and let it commit."""
        if running.has_failed:  # it has not, and KeyboardInterrupt came before that was recorded
            running.followed = True
            self.abandon(running, KeyboardInterrupt())
            return
        try:
            cursor = running.cursor() if running.cursor is not None else None
            if cursor is not None:
                cursor.running = None
            running.closed = True
            if running.frame is not None:
                self.nested.end(running, failed=False)
            if running.holder is None and cursor is not None and self._add_to_transaction(running, cursor):
                return
            self._finish(running)
        except BaseException as error:
            self.abandon(running, error)
            raise
        running.settled = True
        if self.ledger.transactions.facts:
            self.ledger.look()

    def abandon(self, running: Running, error: BaseException) -> None:
        """Undo a statement whose event could not be made or kept, and record that."""
        failures.abandon(self, running, error)

    def adds(self, running: Running, cursor: Cursor) -> bool:
        """Tell whether a change belongs to a transaction that has written before, and nothing has come between."""
        frames, nested = self.ledger.transactions.frames, self.nested
        if not frames or not frames[-1].pending or self.gate.actions or running.undone:
            return False
        return (nested.executing is cursor and cursor.outer is None) or not nested.is_within(cursor)

    def _add_to_transaction(self, running: Running, cursor: Cursor) -> bool:
        """Record a further change in a transaction that has written before, which is what bulk work consists of."""
        verdict = running.verdict
        if verdict.event_class != "DML" or not verdict.is_work or running.began or running.may_commit or running.asked:
            return False
        if self.images is not None or not self.adds(running, cursor):
            return False
        event = captures.event_for(running, self.policy, affected=self.writer.connection.changes()) if verdict.is_logged else None
        running.event = event
        if event is not None:
            self.ledger.add_work(event)
        running.settled = True
        if cursor.is_repeating and verdict.never_returns_rows and Repeat.serves(event, self.policy):
            cursor.repeat = Repeat(running, event, self.policy)
        return True

    def on_rollback(self) -> None:
        """Note, as a rollback hook, that everything was undone."""
        self.unfinished.on_rollback()
        self._verdicts.rolled_back()

    def judge_again(self, running: Running) -> None:
        """Judge a statement anew that SQLite has prepared again."""
        self._verdicts.judge_again(running)

    def _finish(self, running: Running) -> None:
        self.let_commits_end(running)
        self.judge_again(running)
        verdict = running.verdict
        if verdict.event_class == "TRANSACTION":
            self.follow(running)
        elif verdict.event_class == "ADMIN":
            self._after_admin(verdict)
        elif verdict.event_class == "DDL":
            self._verdicts.schema_changed()
        if _may_make_reserved_name(running):
            self._refuse_reserved_names(running)
        event = None
        if verdict.is_logged and not running.recorded:
            affected = self._affected(running)
            if self.images is not None:
                self.images.show(running, affected)
            event = captures.event_for(running, self.policy, affected=affected)
            if event is not None and running.undone:
                event.mark_rolled_back()
            running.event = event
        if event is None:
            self.commits.let_go(running)
        else:
            self._settle(running, event)

    def follow(self, running: Running) -> None:
        """Follow a transaction statement that was executed, once."""
        if running.followed:
            return
        depth = self.ledger.moved(running.verdict)
        if depth is not None:
            self.unfinished.on_rollback_to(depth)
            self._verdicts.rolled_back()
        running.followed = True

    def let_commits_end(self, running: Running) -> None:
        """End what `_before` allowed."""
        if running.verdict.operation == "VACUUM":
            self.gate.end_vacuum()
        self.commits.end_allowance(running)

    def _affected(self, running: Running) -> int | None:
        kind = running.verdict.event_class
        if running.cursor is None:
            return running.rows
        if kind == "DML":
            return None if running.cursor() is None else self.connection.changes()  # what it changed is not known any more
        return running.rows if kind in ("SELECT", "AUDIT") else None

    def _settle(self, running: Running, event: Event) -> None:
        """Write an event, or keep it until it can be."""
        if running.began or running.holder is not None:
            if not event.is_work or self.commits.did_nothing(running):
                try:
                    self.commits.let_go(running)
                finally:
                    self.ledger.note(event)
            elif running.began:
                self.commits.release(running, event)
            elif self.connection.in_transaction:  # a BEGIN came while it was half-read: it belongs to that transaction
                self.commits.close(running)
                self.nested.add_work(running, event)
            else:
                self.commits.commit(running, event)
        elif event.is_work and self.connection.in_transaction and self.writer.has_written:
            self.nested.add_work(running, event)
        else:
            self.ledger.note(event)
            self.ledger.check()

    def _after_admin(self, verdict: Verdict) -> None:
        if verdict.pragma in ("temp_store", "temp_store_directory") and not self.connection.in_transaction:
            self.writer.make_scratch()
            self._verdicts.schema_changed()
        elif verdict.operation in ("ATTACH", "DETACH"):
            self._verdicts.schema_changed()
        if verdict.operation == "ATTACH":
            self.connection.refuse_own_file()

    def _refuse_reserved_names(self, running: Running) -> None:
        """Undo an ALTER TABLE that gave a table a name of the log's: the authorizer is not told the new name."""
        found = sorted(self._verdicts.reserved_names() - self._reserved)
        if not found:
            return
        error = AccessDeniedError(f"{found[0]} would be a name of the audit log's")
        failures.record_failure(self, running, error, Refusal(str(error)))
        self.commits.recorded = id(error)
        running.settled = False  # what it did is still to be undone
        try:
            raise error
        finally:
            del error  # or it is part of a cycle with this frame

    # -- its own life --------------------------------------------------------------------------------------------------

    def record(self, operation: str, *, event_class: str = "ADMIN", **fields: Any) -> None:
        """Record what no statement stands for: opening, closing, a backup, a change of policy."""
        if self.policy.logs(event_class) or not fields.get("success", True):
            self.ledger.note(self._event(operation, event_class, **fields))

    def _event(self, operation: str, event_class: str, **fields: Any) -> Event:
        session = sessions.current()
        return event_of(
            operation,
            event_class=event_class,
            user=session.user,
            session_id=session.id,
            client_ip=session.client_ip,
            application_name=session.application_name or self.policy.application_name,
            **fields,
        )

    def close(self) -> None:
        """End what is half-read, and write what waits, before the connection closes; where that was interrupted, once more."""
        if self.policy.logs("AUTH") and not self.ledger.keeps(self._closing):
            self._closing = self._event("CLOSE", "AUTH")
            self.ledger.note(self._closing)
        self.end_orphans()
        for cursor in (*self.commits.held_cursors(), *self.unfinished.cursors()):
            with contextlib.suppress(apsw.Error):  # which its event tells; closing goes on, as APSW's does
                cursor.close(True)  # noqa: FBT003 - APSW's signature
        if self._recorder is None and self.connection.in_transaction:
            self.writer.run("ROLLBACK", hides=False)  # as closing it does, and then its events can be written
        if self.ledger.transactions.frames:
            if self.connection.in_transaction:
                self.ledger.lost()
            else:
                self.ledger.check()
        self.is_closed = True
        if not self.connection.in_transaction:
            self.flush()

    def end(self) -> None:
        """Write what still waits, once the connection is closed and holds no lock any more."""
        if self._recorder is not None:
            self._recorder.end(self.ledger)
        self.has_ended = True

    def last_event(self) -> int | None:
        """Return the id of the last event on disk, from whichever thread; None: it can't be asked for now."""
        return None if self._recorder is None else self._recorder.last_event()

    def unwritten(self) -> int:
        """Return how many events could not be written."""
        return len(self.ledger.transactions.facts)
