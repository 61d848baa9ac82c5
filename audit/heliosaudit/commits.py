"""Autocommit statements and their events, which SQLite commits together (AUDIT.md, "Atomicity").

A statement that changes rows runs under a holder: a write handle on a temporary row, before whose closing SQLite does not commit.
DDL, which a holder would lock out, runs within a savepoint of ours. A commit hook refuses every commit that neither of them, nor
the application's own COMMIT, has led to: what would get around the log is undone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw

from heliosaudit import captures
from heliosaudit.captures import Running
from heliosaudit.errors import AuditError, AuditWriteError
from heliosaudit.events import Event
from heliosaudit.gates import Gate
from heliosaudit.ledgers import Ledger
from heliosaudit.writers import Writer

__all__ = ["Commits"]

_base = apsw.Connection
_CONDITIONAL = re.compile(r"\bEXISTS\b", re.IGNORECASE)
_DDL = "__audit_ddl"


class Commits:
    """Keeps autocommit statements from being committed without their events.

    Attributes:
        refuses: Whether the commit hook refuses whatever comes.
        is_doomed: Whether it refuses until the transaction is rolled back: an event of it could not be written.
        refused: Whether it refused something that came without its event.
        rollbacks: How many rollbacks the application's hook is still told of; -1: all.
        recorded: `id` of an error whose event was made where it arose.
    """

    def __init__(self, writer: Writer, ledger: Ledger, gate: Gate) -> None:
        self._writer = writer
        self._ledger = ledger
        self._gate = gate
        self.refuses = False
        self.is_doomed = False
        self.refused = False
        self.rollbacks = -1
        self.recorded = 0
        self._expected = 0  # > 0 while something may commit that needs no event, or has it in the log
        self._held: list[Running] = []
        self._group: list[tuple[int, Event]] = []  # ids and events written under a holder while others were open: undecided

    def on_commit(self) -> bool:
        """Refuse, as a commit hook, what would be committed without its events."""
        if self.refuses or self.is_doomed or self._ledger.is_spoiled:
            return True
        if self._gate.internal == threading.get_ident():
            self._ledger.has_landed = True
            self._writer.has_appended = False  # or what comes next would pass for what has its event in the log
            return False
        is_known = self._expected or self._writer.has_appended or not self._writer.has_written
        if is_known and not self._ledger.transactions.has_unwritten_work:
            self._writer.has_appended = False
            self._ledger.has_landed = True
            return False
        self.refused = True
        return True

    # -- statements that need no event in their transaction ------------------------------------------------------------

    def allow(self, running: Running) -> None:
        """Let SQLite commit while a statement runs."""
        running.may_commit = True
        self._expected += 1

    def end_allowance(self, running: Running) -> None:
        """End what `allow` began."""
        if running.may_commit:
            running.may_commit = False
            self._expected -= 1

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let SQLite commit within the block."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1

    # -- holders -------------------------------------------------------------------------------------------------------

    def begin(self, running: Running) -> None:
        """Keep SQLite from committing an autocommit statement before its event is written."""
        is_ddl = running.verdict.event_class == "DDL"
        if is_ddl and _CONDITIONAL.search(running.sql):
            # before the savepoint: a transaction that has read can't write once another connection has (BUSY_SNAPSHOT)
            running.schema = self._writer.schema_version(running.verdict.database)
        if is_ddl and self._begin_savepoint():
            running.began = True
        else:
            self.hold(running, self._writer.hold())

    def begin_change(self, running: Running) -> None:
        """Open a savepoint around a change that opens savepoints itself.

        Raises:
            apsw.BusyError: Another statement that writes is half-read.
        """
        self._writer.run(f"SAVEPOINT {_DDL}")
        running.began = True

    def _begin_savepoint(self) -> bool:
        """Open a savepoint around DDL; returns whether that was possible.

        It is not while another statement that writes is half-read: but then SQLite does not commit before that one ends.
        """
        try:
            self._writer.run(f"SAVEPOINT {_DDL}")
        except apsw.BusyError:
            return False
        return True

    def hold(self, running: Running, holder: Any) -> None:
        """Note what holds a statement's transaction open; a blob handle of the application's does so itself."""
        running.holder = holder
        self._held.append(running)

    def orphans(self) -> list[Running]:
        """Return the statements under a holder whose cursor is gone: its `__del__` was interrupted."""
        return [running for running in self._held if running.cursor is not None and running.cursor() is None]

    def held_cursors(self) -> Iterator[Any]:
        """Yield the cursors of statements that are half-read under a holder."""
        for running in [*self._held]:
            cursor = running.cursor() if running.cursor is not None else None
            if cursor is not None and not cursor.is_executing:  # as it is where its statement calls a function that runs SQL
                yield cursor

    def add_to_group(self, event: Event) -> None:
        """Write an event in the transaction that a holder keeps open."""
        self._writer.append([event])
        self._group.append((self._writer.last_id, event))

    def did_nothing(self, running: Running) -> bool:
        """Tell whether a statement under a holder changed nothing, as IF NOT EXISTS may have it."""
        if not self._writer.has_written:
            return True
        return running.schema is not None and running.schema == self._writer.schema_version(running.verdict.database)

    def let_go(self, running: Running) -> None:
        """End a statement that turned out to need no event in its transaction."""
        with self.allowed():
            if running.began:
                running.began = False
                self._ledger.flush_inside()
                self._writer.run(f"RELEASE {_DDL}")
                self._ledger.transactions.committed()
            elif running.holder is not None:
                self._close_undone(running)
        self._forget_group()

    def _close_undone(self, running: Running) -> None:
        """Close the holder of a statement that needs no event; what others did under it may fail to be committed by that."""
        connection = self._writer.connection
        changes = connection.changes()
        try:
            self.close(running)
        except BaseException:
            self._put_back([])
            if running.cursor is not None and running.verdict.event_class == "DML":
                self._writer.offset += changes  # SQLite does not count what a commit that failed undid
                self._writer.restore(0, _base.last_insert_rowid(connection))
            raise

    def _put_back(self, facts: list[Event]) -> None:
        """Turn what was written in a transaction that was not committed into facts again."""
        events = [*(event for _, event in self._group), *facts]
        for lost in events:
            lost.mark_rolled_back()
        self._ledger.put_back(events)
        self._group.clear()

    def note_rollback(self) -> None:
        """Note, as a rollback hook, that everything was undone, also what was undecided while another was half-read."""
        self.is_doomed = False
        self._ledger.has_landed = self._ledger.is_spoiled = False
        if self._group:
            self._put_back([])

    def _check_group(self) -> None:
        """Find what SQLite undid together with a statement that failed within a transaction that goes on."""
        if self._group and not self._writer.holds(self._group[-1][0]):
            kept = [(number, event) for number, event in self._group if self._writer.holds(number)]
            del self._group[: len(kept)]
            self._put_back([])
            self._group = kept

    def close(self, running: Running) -> None:
        """Close a statement's holder, which commits if it is the last."""
        was = self._gate.enter()  # virtual tables write when they are asked to commit, as FTS5 does
        try:
            running.holder.close()
        finally:
            running.holder = None
            self._held.remove(running)
            self._gate.take_actions()  # what they asked meanwhile is of no statement to come
            self._gate.leave(was)

    def commit(self, running: Running, event: Event) -> None:
        """Write the event of an autocommit statement, then let SQLite commit both.

        Raises:
            AuditWriteError: The event can't be written; the statement was undone.
            apsw.Error: The commit failed.
        """
        connection = self._writer.connection
        facts = self._ledger.take_facts()
        events = [*facts, event]
        try:
            self._writer.append(events)
        except BaseException as error:
            self._ledger.put_back(facts)
            self._undo(running)
            if isinstance(error, (apsw.Error, AuditError)):
                raise self._not_written(event, error) from error
            raise
        changes, rowid = connection.changes(), _base.last_insert_rowid(connection)
        self._ledger.has_landed = False
        try:
            with self.allowed():
                self.close(running)
        except BaseException as error:
            if running.holder is not None:
                self._undo(running)
            elif self._ledger.has_landed or (self._held and not isinstance(error, apsw.Error)):
                running.settled = True  # the exception came later, as KeyboardInterrupt may
                self._group += [(self._writer.last_id, written) for written in events]
                self._forget_group()
                raise
            self._after_failed_commit(running, event, facts, changes)
            event.fields[9] = captures.said(error)
            self._ledger.note(event)
            running.settled = True
            self.recorded = id(error)
            raise
        running.settled = True
        if connection.changes() != changes:  # what virtual tables write at a commit counts, outside a statement
            self._writer.restore(changes, rowid)
        self._group += [(self._writer.last_id, written) for written in events]
        self._forget_group()

    def _forget_group(self) -> None:
        """Forget the events that were undecided while another statement was half-read, if none is any more."""
        if self._group and not self._held and not self._writer.is_writing:
            self._group.clear()

    def _after_failed_commit(self, running: Running, event: Event, facts: list[Event], changes: int) -> None:
        self._put_back(facts)
        is_dml = running.cursor is not None and running.verdict.event_class == "DML"
        if is_dml:  # SQLite does not count what a commit that failed undid
            self._writer.offset += event.fields[7] or 0
        event.fields[7], event.fields[8] = 0, False
        self._writer.restore(0 if is_dml else changes, _base.last_insert_rowid(self._writer.connection))

    def _not_written(self, event: Event, error: BaseException) -> AuditWriteError:
        event.fields[8], event.fields[9] = False, captures.said(error)
        self._ledger.note(event)
        problem = AuditWriteError(f"the audit log can't be written, so the statement was undone: {captures.said(error)}")
        self.recorded = id(problem)
        return problem

    def _undo(self, running: Running) -> None:
        """Have SQLite roll back an autocommit statement that has ended: the commit hook refuses its commit.

        While another is half-read under a holder there is no commit yet, and the one that comes is refused.
        """
        self.is_doomed = self.is_doomed or len(self._held) > 1
        self.refuses = True
        try:
            self.close(running)
        except apsw.ConstraintError:
            pass
        finally:
            self.refuses = False

    def abandon(self, running: Running) -> None:
        """Undo a statement whose event could not be made, whatever the reason: nothing of it may stay open.

        In a transaction of the application's it can't be undone alone, so that the whole can't be committed any more.
        """
        self.end_allowance(running)
        if running.began:
            running.began, running.undone = False, True  # where it is ended once more, as by a cursor that is dropped
            self._roll_back()
        elif running.holder is not None:
            running.undone = True
            self._undo(running)
        elif running.verdict.is_work and running.verdict.is_logged and self._writer.connection.in_transaction:
            self.is_doomed = self.is_doomed or not running.undone

    def drop(self, running: Running) -> None:
        """Let go of a statement that failed: SQLite rolls back what it began, and says so if it began anything."""
        if running.began:
            running.began = False
            self._roll_back()
        elif running.holder is None:
            return
        elif self._writer.has_written and len(self._held) == 1 and not self._writer.connection.in_transaction:
            self._undo(running)
        else:
            self._writer.hiding += 1
            try:
                self._check_group()
                with self.allowed():
                    self.close(running)
            finally:
                self._writer.hiding -= 1

    # -- DDL -----------------------------------------------------------------------------------------------------------

    def release(self, running: Running, event: Event) -> None:
        """Write the event of DDL, and commit both.

        Raises:
            AuditWriteError: The event can't be written; the statement was undone.
            apsw.Error: The commit failed.
        """
        running.began = False
        facts = self._ledger.take_facts()
        self._ledger.has_landed = False
        self.rollbacks = 1  # SQLite tells a RELEASE that a commit hook refuses twice
        try:
            self._ledger.flush_inside()  # of what a function of the application's has changed meanwhile
            self._writer.append([*facts, event])
            with self.allowed():
                self._writer.run(f"RELEASE {_DDL}", hides=False)
            self._ledger.transactions.committed()
        except BaseException as error:
            running.settled = True
            if self._ledger.has_landed and not self._writer.connection.in_transaction:  # it came later, as KeyboardInterrupt may
                self._ledger.transactions.committed()
                raise
            self._roll_back()
            self._ledger.put_back(facts)
            if isinstance(error, AuditError):
                raise self._not_written(event, error) from error
            event.fields[8], event.fields[9] = False, captures.said(error)
            self._ledger.note(event)
            self.recorded = id(error)
            raise
        finally:
            self.rollbacks = -1

    def _roll_back(self) -> None:
        if not self._writer.connection.in_transaction:
            return
        if self._writer.has_written:
            # a commit that is refused leaves what is half-read alone, as a statement that fails does; ROLLBACK would abort it
            self.refuses, self.rollbacks = True, 1  # rollbacks that the application hears of: SQLite tells this one twice
            try:
                self._writer.run(f"RELEASE {_DDL}", hides=False)
            except apsw.ConstraintError:
                pass
            finally:
                self.refuses, self.rollbacks = False, -1
        self._writer.run(f"RELEASE {_DDL}")  # the savepoint is still open, and empty
        self._ledger.check()
