"""One audited connection: its hooks, its transaction's events, and when these are written (AUDIT.md, "Mechanism")."""

from __future__ import annotations

import contextlib
import re
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import apsw

from heliosaudit import captures, guards, sessions
from heliosaudit.blobs import Blob
from heliosaudit.captures import Running
from heliosaudit.cursors import Cursor
from heliosaudit.errors import AccessDeniedError, AuditError, AuditPolicyError, AuditWriteError
from heliosaudit.events import Event, event_of
from heliosaudit.literals import Template
from heliosaudit.policies import Policy
from heliosaudit.private import Scratch, allow, refuse
from heliosaudit.recorders import Recorder
from heliosaudit.statements import Action, Verdict, judge, judge_blob
from heliosaudit.stores import Store
from heliosaudit.transactions import Summary, Transactions

if TYPE_CHECKING:
    from heliosaudit.connections import Audited

__all__ = ["Auditor"]

_CHUNK = 250  # events of an open transaction that are written at once
_VERDICTS = 2000
_OVERDUE = 20  # buffers of facts after which they are written though a read transaction is open
_RESERVED_CHECKS = ("ALTER TABLE",)
# PRAGMAs that need the database for themselves
_ALONE = frozenset({"journal_mode", "locking_mode"})
_INTENDED = frozenset({"VACUUM", "ATTACH", "DETACH"})
_ERROR_IN_STEP = "resetcursor"  # the frame that APSW puts into tracebacks of errors that sqlite3_step reports

_FAIL = re.compile(r"\bOR\s+FAIL\b", re.IGNORECASE)

_CONDITIONAL = re.compile(r"\bEXISTS\b", re.IGNORECASE)

_base = apsw.Connection


class Auditor:
    """Records what happens on a connection.

    It lives as long as the connection; `heliosaudit.connections.Audited` calls it.
    """

    def __init__(self, connection: Audited, policy: Policy, recorder: Recorder | None) -> None:
        """Take over the hooks of ``connection``.

        Args:
            connection: The connection, whose log exists.
            policy: What is recorded.
            recorder: Writes what belongs to no transaction of the application's; None: the connection itself does, in between.
        """
        self._owner = weakref.ref(connection)
        self.policy = policy
        self.recorder = recorder
        self.transactions = Transactions(policy.max_transaction_events)
        self.offset = 0  # rows that the log itself changed, for total_changes()
        self.trace: Any = None  # the application's exec tracer and authorizer
        self.authorizer: Any = None
        self.hiding = 0  # > 0 while the application's hooks are not to see what happens
        self.private_cursor = apsw.Cursor(connection)
        self.private_cursor.exec_trace = allow
        self._store = Store(self.private_cursor)
        self._secret = self._store.secret
        self._scratch = Scratch(connection, self.private_cursor, self._secret)
        self.lock = threading.RLock()
        self._internal = 0  # the thread that runs statements of the log
        self._inside: set[int] = set()  # threads that are within an audited call
        self._actions: dict[int, list[Action]] = {}
        self._denials: dict[int, str] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._held: list[Running] = []  # statements under a holder
        self.rollbacks = -1  # how many rollbacks the application's hook is still told of; -1: all
        self._resetting: Cursor | None = None  # whose half-read statement is being ended
        self._recorded = 0  # id() of an error whose event was made where it arose
        self._group: list[Event] = []  # events written under a holder while others were open: undecided as yet
        self._vacuuming = 0  # the thread that runs VACUUM
        self._may_commit = 0
        self._appended = False  # whether events were written since the last commit
        self._away = False  # whether the recorder writes on its own connection
        self.refuses = False
        self._refused = False
        self.closed = False
        with self._privately():
            self._scratch.make()
        connection.create_scalar_function(
            "total_changes", self._total_changes, 0, flags=apsw.SQLITE_INNOCUOUS
        )  # rows of the log do not count

    def _total_changes(self) -> int:
        return self.connection.total_changes()

    @property
    def connection(self) -> Audited:
        """The connection."""
        connection = self._owner()
        assert connection is not None  # noqa: S101 - it calls us, so it is there
        return connection

    # -- hooks -------------------------------------------------------------------------------------------------------

    def enter(self) -> bool:
        """Note that this thread is within an audited call; returns whether it was before."""
        thread = threading.get_ident()
        was = thread in self._inside
        if not was:
            self._inside.add(thread)
            if self._away:
                with self.lock:  # until the recorder has ended: a read that began meanwhile could not become a write
                    pass
        return was

    @contextmanager
    def idle(self) -> Iterator[bool]:
        """Keep this connection from beginning anything; yields whether it was doing nothing, not even reading."""
        with self.lock:
            self._away = True
            try:
                # either enter() sees _away, or we see who is inside
                yield not self._inside and self._is_idle()
            finally:
                self._away = False

    def _is_idle(self) -> bool:
        """Tell whether no transaction is open that a commit of the recorder's would make unable to write (BUSY_SNAPSHOT)."""
        try:
            return self.connection.txn_state("main") == apsw.SQLITE_TXN_NONE
        except (apsw.Error, AssertionError):
            return False

    def start(self) -> None:
        """Forget what was asked before a statement is prepared: it was asked by one that is half-read."""
        self._recorded = 0
        if self._actions:
            self._actions.pop(threading.get_ident(), None)

    def leave(self, was: bool) -> None:  # noqa: FBT001 - what enter() returned
        """Note the end of an audited call."""
        if not was:
            self._inside.discard(threading.get_ident())

    def authorize(self, code: int, first: str | None, second: str | None, schema: str | None, source: str | None) -> int:
        """Answer SQLite's authorizer, and note what it asked."""
        thread = threading.get_ident()
        if self._internal == thread:
            return apsw.SQLITE_OK
        if self._vacuuming == thread and schema is not None and schema.startswith("vacuum_"):
            return apsw.SQLITE_OK  # VACUUM copies the log like any other table, through SQL of its own (vacuum.c)
        action = (code, first, second, schema, source)
        reason = guards.denial(action)
        if reason is None and code in guards.WRITES and thread not in self._inside:
            reason = f"{first} would be written past the audit"
        if reason is not None:
            self._denials[thread] = reason
            return apsw.SQLITE_DENY
        if self.authorizer is not None:
            verdict: int = self.authorizer(code, first, second, schema, source)
            if verdict != apsw.SQLITE_OK:
                self._denials[thread] = "denied by the application's authorizer"
                return verdict
        self._actions.setdefault(thread, []).append(action)
        return apsw.SQLITE_OK

    def on_commit(self) -> bool:
        """Refuse, as a commit hook, what would be committed without its events."""
        if self.refuses:
            return True
        if self._internal == threading.get_ident():
            return False
        logged = self._may_commit or self._appended or not self._has_written()
        if logged and not self.transactions.has_unwritten_work:
            self._appended = False
            return False
        self._refused = True
        return True

    def on_statement(self, cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        """See a statement before it runs: the exec tracer."""
        if cursor is self._resetting:
            return True
        if not isinstance(cursor, Cursor):
            msg = "apsw.Cursor(connection) would pass the audit by: use connection.cursor()"
            raise AuditPolicyError(msg)
        if cursor.running is not None:
            self.finish(cursor.running)
        if self._secret in sql:
            msg = "this SQL belongs to the audit log"
            self._denials[threading.get_ident()] = msg
            raise AccessDeniedError(msg)
        actions = self._actions.pop(threading.get_ident(), None) if self._actions else None
        verdict = None if actions else self._verdicts.get(sql)
        if verdict is None:
            # what came after the first statement of a string may be of statements that the one before it prepared, as FTS5's do
            verdict = self._judge(sql, bindings, actions if cursor.is_fresh and actions else [])
        if cursor.is_explain:
            verdict = self._explain(verdict)
        cursor.is_fresh = False
        trace = cursor.trace or self.trace
        if trace is not None and not trace(self.connection if cursor.is_control else cursor, sql, bindings):
            return False
        if verdict.event_class:
            running = Running(cursor, verdict, sql, bindings, _base.total_changes(self.connection))
            cursor.running = running
            if verdict.event_class != "SELECT":
                self._before(running)
        return True

    def _let_commits_end(self, running: Running) -> None:
        if running.verdict.operation == "VACUUM":
            self._vacuuming = 0
            self._actions.pop(threading.get_ident(), None)
        if running.may_commit:
            running.may_commit = False
            self._may_commit -= 1

    def _judge(self, sql: str, bindings: Any, actions: list[Action]) -> Verdict:
        verdict = judge(sql, actions, self.policy)
        if not actions and verdict.event_class and verdict.operation != "VACUUM":
            verdict = judge(sql, self._ask(sql, bindings), self.policy)
        if len(self._verdicts) >= _VERDICTS:
            self._verdicts.clear()
        self._verdicts[sql] = verdict
        return verdict

    def _ask(self, sql: str, bindings: Any) -> list[Action]:
        """Prepare a statement once more, to be asked about it."""
        was = self.enter()
        try:
            asking = apsw.Cursor(self.connection)
            asking.exec_trace = refuse  # it is prepared, and not run: EXPLAIN of a change sets changes() to 0
            asking.execute(sql, bindings, can_cache=False, explain=1)
        except apsw.Error:
            pass
        finally:
            self.leave(was)
        return self._actions.pop(threading.get_ident(), [])

    def _explain(self, verdict: Verdict) -> Verdict:
        """Return the verdict on EXPLAIN of a statement, which is not run."""
        return replace(
            verdict, event_class="SELECT", operation="EXPLAIN", is_work=False, is_logged=self.policy.log_select, never_returns_rows=False
        )

    def forget(self) -> None:
        """Drop all verdicts, and have every statement prepared anew: whom it is for, or what may be, has changed."""
        self._verdicts.clear()
        _base.set_authorizer(self.connection, self.authorize)

    # -- the start of a statement ------------------------------------------------------------------------------------

    def _before(self, running: Running) -> None:
        verdict = running.verdict
        kind = verdict.event_class
        connection = self.connection
        if verdict.is_work and verdict.is_logged and self._wants():
            if not connection.in_transaction:
                if kind == "DDL" and self._begin_hidden_transaction():
                    running.began = True
                    if _CONDITIONAL.search(running.sql):
                        running.schema = self._schema_version(verdict)
                else:
                    running.holder = self._scratch.hold()
                    self._held.append(running)
            return
        if kind == "TRANSACTION":
            self._before_transaction(running)
        elif kind == "AUDIT":
            self.flush()
            return
        elif kind == "ADMIN":
            if verdict.operation in _INTENDED or verdict.pragma in _ALONE:
                self._intend(running)
            if verdict.operation == "VACUUM":
                self._vacuuming = threading.get_ident()
        running.may_commit = True
        self._may_commit += 1

    def _begin_hidden_transaction(self) -> bool:
        """Open a transaction around DDL, which a holder would lock out; returns whether that was possible.

        It is not while another statement that writes is half-read: but then SQLite does not commit before that one ends.
        """
        try:
            with self._privately():
                self.private_cursor.execute(f"SAVEPOINT __audit_ddl -- {self._secret}")
        except apsw.BusyError:
            return False
        return True

    def _wants(self) -> bool:
        """Tell whether the policy wants this user's events."""
        policy = self.policy
        if not policy.include_users and not policy.exclude_users:
            return True
        user = sessions.current().user
        return user not in policy.exclude_users and (not policy.include_users or user in policy.include_users)

    def _before_transaction(self, running: Running) -> None:
        verdict = running.verdict
        frames = self.transactions.frames
        if verdict.operation in ("BEGIN", "SAVEPOINT") and not self.connection.in_transaction:
            self._end_held_statements()
        if not frames:
            return
        outermost = verdict.operation == "RELEASE" and self.transactions.index_of(verdict.savepoint) == 0
        if verdict.operation == "COMMIT" or outermost or (verdict.operation == "SAVEPOINT" and self._is_writing()):
            self._flush_inside()

    def _end_held_statements(self) -> None:
        """End the statements that are half-read under a holder, before a transaction begins; their cursors keep the rows.

        A holder makes SQLite open a statement journal for them, and a transaction that begins while that is open loses rows when a
        statement in it fails (SQLite 3.54.1 does so without us too, while any SELECT is half-read).
        """
        for running in [*self._held]:
            cursor = running.cursor() if running.cursor is not None else None
            if cursor is not None:
                cursor.drain()

    def _intend(self, running: Running) -> None:
        """Record what is about to be tried, for it can't share a transaction with its event."""
        if not running.verdict.is_logged:
            return
        event = captures.event_for(running, self.policy)
        if event is not None:
            event.is_work = False
            event.fields[4] += " (INTENT)"
            event.fields[13] = None
            self.note(event)
            self.flush()
        if running.verdict.pragma in _ALONE and self.recorder is not None:
            self.recorder.release()

    # -- the end of a statement --------------------------------------------------------------------------------------

    def reset(self, cursor: Cursor) -> None:
        """End a statement that was left half-read, as executing another on its cursor does."""
        was = self.enter()
        self._resetting = cursor
        try:
            apsw.Cursor.execute(cursor, "")
        except BaseException as error:
            self._resetting = None
            self.leave(was)
            instead = self.failed(cursor, error)
            raise instead from (None if instead is error else error)
        self._resetting = None
        self.leave(was)
        if cursor.running is not None:
            self.finish(cursor.running)

    def finish(self, running: Running) -> None:
        """Record a statement that has ended well, and let it commit."""
        cursor = running.cursor() if running.cursor is not None else None
        if cursor is not None:
            cursor.running = None
        running.closed = True
        verdict = running.verdict
        kind = verdict.event_class
        self._let_commits_end(running)
        if kind == "TRANSACTION":
            self._after_transaction(verdict)
        elif self._actions and self._actions.pop(threading.get_ident(), None) and kind in ("DML", "SELECT") and cursor is not None:
            actions = self._ask(running.sql, running.bindings)  # the schema may have changed, and SQLite prepared it again
            if actions and verdict.operation != "EXPLAIN":
                verdict = running.verdict = self._verdicts[running.sql] = judge(running.sql, actions, self.policy)
        if kind == "ADMIN":
            self._after_admin(verdict)
        if verdict.operation in _RESERVED_CHECKS:
            self._refuse_reserved_names(running)
        if verdict.is_logged:
            affected = self._affected(running)
            event = captures.event_for(running, self.policy, affected=affected)
            if event is not None:
                self._settle(running, event)
            else:
                self._let_go(running)
        else:
            self._let_go(running)

    def _let_go(self, running: Running) -> None:
        """End a statement that turned out to need no event."""
        if running.began:
            running.began = False
            self._may_commit += 1
            try:
                with self._privately():
                    self.private_cursor.execute(f"RELEASE __audit_ddl -- {self._secret}")
            finally:
                self._may_commit -= 1
        elif running.holder is not None:
            self._may_commit += 1
            try:
                self._close(running)
            finally:
                self._may_commit -= 1

    def _affected(self, running: Running) -> int | None:
        kind = running.verdict.event_class
        if running.cursor is None:
            return running.rows
        if kind == "DML":
            return self.connection.changes()
        return running.rows if kind in ("SELECT", "AUDIT") else None

    def _settle(self, running: Running, event: Event) -> None:
        """Write an event, or keep it until it can be."""
        if (running.began or running.holder is not None) and event.is_work and self._did_nothing(running):
            event.is_work = False  # IF NOT EXISTS and the like
            self._let_go(running)
            self.note(event)
        elif running.began:
            self._end_hidden_transaction(running, event)
        elif running.holder is not None:
            if self.connection.in_transaction:  # a BEGIN came while it was half-read: it belongs to that transaction
                self._close(running)
                self._add_work(event)
            else:
                self._commit(running, event)
        elif event.is_work and self.connection.in_transaction and self._has_written():
            self._add_work(event)
        else:
            self.note(event)
            if self.transactions.frames and not self.connection.in_transaction:
                self._lost_transaction()
            if len(self.transactions.facts) >= self.policy.async_buffer_size:
                self.flush()

    def _did_nothing(self, running: Running) -> bool:
        """Tell whether a statement changed nothing, as IF NOT EXISTS may have it."""
        return not self._has_written() or (running.schema is not None and running.schema == self._schema_version(running.verdict))

    def _schema_version(self, verdict: Verdict) -> int:
        """Return the schema version of a statement's database (SQLite file format, "Schema cookie")."""
        name = (verdict.database or "main").replace('"', '""')
        with self._privately():
            found: int = self.private_cursor.execute(f'PRAGMA "{name}".schema_version -- {self._secret}').fetchall()[0][0]
        return found

    def _has_written(self) -> bool:
        """Tell whether the open transaction has taken a write lock on any database but the temporary one."""
        connection = self.connection
        if connection.txn_state("main") == apsw.SQLITE_TXN_WRITE:
            return True
        return any(connection.txn_state(name) == apsw.SQLITE_TXN_WRITE for name in connection.db_names() if name != "temp")

    def _add_work(self, event: Event) -> None:
        if not self.transactions.frames:
            self.transactions.begin()
        if self.transactions.add_work(event) >= _CHUNK and self._is_writing():
            self._flush_inside()

    def note(self, event: Event) -> None:
        """Keep a fact until it can be written; a repeated failure is counted."""
        facts = self.transactions.facts
        if facts and not event.fields[8]:
            last = facts[-1].fields
            if not last[8] and last[2:7] == event.fields[2:7] and last[9] == event.fields[9]:
                details = last[21] or {"count": 1}
                last[21] = {**details, "count": details["count"] + 1, "until": event.fields[1]}
                return
        event.is_work = False
        facts.append(event)
        if self.recorder is not None:
            self.recorder.expect(self)

    def _is_writing(self) -> bool:
        return self.connection.txn_state("main") == apsw.SQLITE_TXN_WRITE

    # -- writing -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _privately(self, *, hides: bool = True) -> Iterator[None]:
        """Run statements of the log on the application's connection; its hooks see them only where they stand for its own."""
        with self.lock:
            was, self._internal = self._internal, threading.get_ident()
            self.hiding += hides
            try:
                yield
            finally:
                self.hiding -= hides
                self._internal = was

    def _append(self, events: list[Event]) -> None:
        """Append events in the transaction that is open."""
        with self._unnoticed():
            self._store.append(events)
        self._appended = True

    @contextmanager
    def _unnoticed(self) -> Iterator[None]:
        """Run statements of the log that change a row, and put back what the application reads."""
        connection = self.connection
        with self._privately():
            changes, rowid, total = connection.changes(), _base.last_insert_rowid(connection), _base.total_changes(connection)
            try:
                yield
            finally:
                self._scratch.restore(changes, rowid)
                self.offset += _base.total_changes(connection) - total

    def _restore(self, changes: int, rowid: int) -> None:
        """Put back what the application reads."""
        with self._privately():
            total = _base.total_changes(self.connection)
            self._scratch.restore(changes, rowid)
            self.offset += _base.total_changes(self.connection) - total

    def _flush_inside(self) -> None:
        """Write all events in the open transaction.

        Raises:
            AuditWriteError: That is not possible; nothing is lost, and the transaction can't be committed as it is.
        """
        transactions = self.transactions
        if not transactions.has_unwritten_work:
            return
        events = transactions.take()
        try:
            self._append(events)
        except (apsw.Error, AuditError) as error:
            transactions.returned(events)
            msg = f"the audit log can't be written, so the transaction can't be committed: {captures.said(error)}"
            raise AuditWriteError(msg) from error
        transactions.written(events)

    def _commit(self, running: Running, event: Event) -> None:
        """Write the event of an autocommit statement, then let SQLite commit both."""
        facts = [*self.transactions.facts]
        self.transactions.facts.clear()
        events = [*facts, event] if event.is_work else facts
        try:
            if events:
                self._append(events)
        except (apsw.Error, AuditError) as error:
            self.transactions.facts.extendleft(reversed(facts))
            self._undo(running)
            event.fields[8], event.fields[9] = False, captures.said(error)
            self.note(event)
            msg = f"the audit log can't be written, so the statement was undone: {captures.said(error)}"
            problem = AuditWriteError(msg)
            self._recorded = id(problem)
            raise problem from error
        if not event.is_work:
            self.note(event)
        changes, rowid = self.connection.changes(), _base.last_insert_rowid(self.connection)
        try:
            self._may_commit += 1
            try:
                self._close(running)
            finally:
                self._may_commit -= 1
            if self.connection.changes() != changes:  # what virtual tables write at a commit counts, outside a statement
                self._restore(changes, rowid)
        except BaseException as error:
            for lost in (*self._group, *events):
                if lost is not event:
                    lost.mark_rolled_back()
                    self.transactions.facts.append(lost)
            self._group.clear()
            changed = event.fields[7] or 0
            event.fields[7], event.fields[8], event.fields[9] = 0, False, captures.said(error)
            self.note(event)
            if running.cursor is not None and running.verdict.event_class == "DML":
                self.offset += changed  # SQLite does not count what a commit that failed undid, but for what triggers did
            is_dml = running.cursor is not None and running.verdict.event_class == "DML"
            self._restore(0 if is_dml else changes, _base.last_insert_rowid(self.connection))
            self._recorded = id(error)
            raise
        if self._held or self._is_writing():  # another statement is half-read, and commits both
            self._group += events
        else:
            self._group.clear()

    def _close(self, running: Running) -> None:
        """Close a statement's holder, which commits if it is the last."""
        holder, running.holder = running.holder, None
        self._held.remove(running)
        was = self.enter()  # virtual tables write when they are asked to commit, as FTS5 does
        try:
            holder.close()
        finally:
            self.leave(was)

    def _undo(self, running: Running) -> None:
        """Have SQLite roll back an autocommit statement that has ended: the commit hook refuses its commit."""
        self.refuses = True
        try:
            self._close(running)
        except apsw.ConstraintError:
            pass
        finally:
            self.refuses = False

    def _drop(self, running: Running) -> None:
        """Let go of a statement that failed: SQLite rolls back what it began, and says so if it began anything."""
        if self._has_written() and len(self._held) == 1 and not self.connection.in_transaction:
            self._undo(running)
            return
        self.hiding += 1
        self._may_commit += 1
        try:
            self._close(running)
        finally:
            self._may_commit -= 1
            self.hiding -= 1

    def _end_hidden_transaction(self, running: Running, event: Event) -> None:
        running.began = False
        facts = [*self.transactions.facts]
        self.transactions.facts.clear()
        self.rollbacks = 1  # SQLite tells a RELEASE that a commit hook refuses twice
        try:
            self._append([*facts, event])
            self._may_commit += 1
            try:
                with self._privately(hides=False):
                    self.private_cursor.execute(f"RELEASE __audit_ddl -- {self._secret}")
            finally:
                self._may_commit -= 1
        except BaseException as error:
            self._roll_hidden_transaction_back()
            self.transactions.facts.extendleft(reversed(facts))
            event.fields[8], event.fields[9] = False, captures.said(error)
            self.note(event)
            if isinstance(error, AuditError):
                msg = f"the audit log can't be written, so the statement was undone: {captures.said(error)}"
                problem = AuditWriteError(msg)
                self._recorded = id(problem)
                raise problem from error
            self._recorded = id(error)
            raise
        finally:
            self.rollbacks = -1

    def _roll_hidden_transaction_back(self) -> None:
        if not self.connection.in_transaction:
            return
        if self._has_written():
            with self._privately(hides=False):
                self.private_cursor.execute(f"ROLLBACK -- {self._secret}")
        else:  # ROLLBACK would abort what is half-read
            with self._privately():
                self.private_cursor.execute(f"RELEASE __audit_ddl -- {self._secret}")

    def flush(self) -> bool:
        """Write the facts that wait, if the lock is free; returns whether none is left."""
        transactions = self.transactions
        if not transactions.facts:
            return True
        connection = self.connection
        overdue = len(transactions.facts) > _OVERDUE * self.policy.async_buffer_size
        if self.recorder is not None and (overdue or self._is_idle()) and self.recorder.write(self):
            return True
        if not connection.in_transaction and not self._held and (self.recorder is None or self._is_alone()):
            return self._flush_between()
        if transactions.frames and self._is_writing():
            events = transactions.take()
            try:
                self._append(events)
            except (apsw.Error, AuditError):
                transactions.returned(events)
                return False
            transactions.written(events)
            return True
        return False

    def _is_alone(self) -> bool:
        """Tell whether this connection keeps all others out, the recorder's among them."""
        with self._privately():
            mode = self.private_cursor.execute(f"PRAGMA main.locking_mode -- {self._secret}").fetchall()
        return mode == [("exclusive",)]

    def _flush_between(self) -> bool:
        """Write facts in a transaction of their own on the application's connection."""
        transactions = self.transactions
        with self._privately():
            events = transactions.take()
            try:
                self.private_cursor.execute(f"BEGIN IMMEDIATE -- {self._secret}")
                self._append(events)
                self._may_commit += 1
                try:
                    self.private_cursor.execute(f"COMMIT -- {self._secret}")
                finally:
                    self._may_commit -= 1
            except (apsw.Error, AuditError):
                if self.connection.in_transaction:
                    self.private_cursor.execute(f"ROLLBACK -- {self._secret}")
                transactions.returned(events)
                return False
        return True

    # -- what moves transactions -------------------------------------------------------------------------------------

    def _after_transaction(self, verdict: Verdict) -> None:
        transactions = self.transactions
        operation = verdict.operation
        if not self.connection.in_transaction:
            if operation == "ROLLBACK":
                self._lost_transaction()
            else:
                transactions.committed()
        elif operation == "BEGIN":
            transactions.begin()
        elif operation == "SAVEPOINT":
            transactions.begin(verdict.savepoint)
        else:
            index = transactions.index_of(verdict.savepoint)
            if index is None:
                return
            if operation == "RELEASE":
                transactions.release(index)
            elif operation == "ROLLBACK TO":
                self._summarise(transactions.rolled_back_to(index))
                self.flush_soon()

    def flush_soon(self) -> None:
        """Write facts that matter now, if no transaction of this connection is open."""
        if not self.connection.in_transaction:
            self.flush()

    def _lost_transaction(self) -> None:
        """Turn the events of a transaction that was rolled back into facts."""
        self._summarise(self.transactions.rolled_back())
        self.flush_soon()

    def _summarise(self, summaries: list[Summary]) -> None:
        for summary in summaries:
            self.note(
                event_of(
                    "ROLLED BACK EVENTS",
                    event_class="AUDIT",
                    user=sessions.current().user,
                    session_id=sessions.current().id,
                    rolled_back=True,
                    details={
                        "counts": [[*key, count] for key, count in sorted(summary.counts.items())],
                        "sha256": summary.digest.hexdigest(),
                    },
                )
            )

    def _after_admin(self, verdict: Verdict) -> None:
        if verdict.pragma in ("temp_store", "temp_store_directory") and not self.connection.in_transaction:
            with self._unnoticed():
                self._scratch.make()
        elif verdict.operation == "ATTACH":
            self.connection.refuse_own_file()

    def _refuse_reserved_names(self, running: Running) -> None:
        """Undo an ALTER TABLE that gave a table a name of the log's: the authorizer is not told the new name."""
        with self._privately():
            found = self.private_cursor.execute(
                "SELECT name FROM temp.sqlite_schema WHERE name LIKE '\\_\\_audit%' ESCAPE '\\' "
                f"AND name NOT IN ('__audit_hold', '__audit_count') UNION ALL SELECT name FROM main.sqlite_schema "
                f"WHERE name LIKE '\\_\\_audit%' ESCAPE '\\' AND tbl_name NOT IN ('__audit_log', '__audit_values') -- {self._secret}"
            ).fetchall()
        if not found:
            return
        msg = f"{found[0][0]} would be a name of the audit log's"
        self._denials[threading.get_ident()] = msg
        if running.began:
            running.began = False
            self._roll_hidden_transaction_back()
        raise AccessDeniedError(msg)

    # -- failures ----------------------------------------------------------------------------------------------------

    def failed(self, cursor: Cursor, error: BaseException) -> BaseException:
        """Record a statement that failed; returns what is to be raised."""
        thread = threading.get_ident()
        reason = self._denials.pop(thread, None)
        running, cursor.running = cursor.running, None
        if running is not None and self._failed_later(running, cursor, error, reason):
            try:
                self.finish(running)
            except BaseException as earlier:  # noqa: BLE001 - the statement before the one that failed could not commit
                return earlier
            running = None
        if id(error) == self._recorded:
            self._recorded = 0
            return error
        actions = self._actions.pop(thread, [])
        if running is None:
            running = self._not_run(cursor, actions, error)
        instead: BaseException = error
        if reason is not None and isinstance(error, apsw.AuthError) and not isinstance(error, AccessDeniedError):
            instead = error if reason.startswith("denied by the app") else AccessDeniedError(reason)
        self._let_commits_end(running)
        self._record_failure(running, instead, reason)
        if self._refused:
            self._refused = False
            if isinstance(error, apsw.ConstraintError):
                instead = AuditWriteError("this would have been committed without its event in the audit log, and was rolled back")
        return instead

    def _failed_later(self, running: Running, cursor: Cursor, error: BaseException, reason: str | None) -> bool:
        """Tell whether it is not this statement that failed, but the preparation of the one after it."""
        if len(running.sql.rstrip("; \t\r\n")) == len(cursor.text.rstrip("; \t\r\n")) and not isinstance(error, apsw.BindingsError):
            return False
        if isinstance(error, (apsw.BindingsError, AccessDeniedError)) or reason is not None:
            return True
        if not isinstance(error, apsw.SQLError):
            return False
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_name == _ERROR_IN_STEP:
                return False
            trace = trace.tb_next
        return True

    def _not_run(self, cursor: Cursor, actions: list[Action], error: BaseException) -> Running:
        """Make what stands for SQL that could not even be prepared."""
        text = cursor.text if isinstance(cursor.text, str) else ""
        verdict = judge(text, actions, self.policy)
        event_class = verdict.event_class or "ADMIN"
        if isinstance(error, apsw.AuthError):
            event_class = "AUTH"
        template = Template(text, self.policy.max_query_length)
        verdict = Verdict(
            event_class,
            verdict.operation or "STATEMENT",
            verdict.target,
            verdict.database,
            verdict.reads,
            verdict.writes,
            template=template,
            shows_values=False,
            is_logged=self.policy.logs(event_class) or event_class == "AUTH",
        )
        return Running(cursor, verdict, text, None, _base.total_changes(self.connection))

    def _record_failure(self, running: Running, error: BaseException, reason: str | None) -> None:
        affected = None
        verdict = running.verdict
        if verdict.event_class == "DML":
            affected = self.connection.changes() if _base.total_changes(self.connection) != running.changes else 0
        event = None
        if verdict.is_logged or reason is not None:
            event = captures.event_for(running, self.policy, success=False, error=captures.said(error), affected=affected)
        if event is not None and reason is not None:
            event.fields[4], event.fields[14] = "ACCESS DENIED", "AUTH"
            event.fields[9] = f"{event.fields[9]} ({reason})" if reason not in event.fields[9] else event.fields[9]
        if running.began:
            running.began = False
            self._roll_hidden_transaction_back()
        elif running.holder is not None:
            if event is not None and (affected or (self._has_written() and _FAIL.search(running.sql))) and not self.connection.in_transaction:
                event.is_work = True
                with contextlib.suppress(apsw.Error):  # it is recorded, and the statement's own error is the one to raise
                    self._commit(running, event)  # OR FAIL keeps the rows before the one that failed, and commits if there are none
                event = None
            else:
                self._drop(running)
        if self.transactions.frames and not self.connection.in_transaction:
            self._lost_transaction()  # OR ROLLBACK, a full disk, an interrupt
        if event is not None:
            if event.is_work and self.connection.in_transaction:
                self._add_work(event)
            else:
                self.note(event)
                self.flush_soon()

    # -- blobs -------------------------------------------------------------------------------------------------------

    def blob(self, database: str, table: str, column: str, rowid: int, writeable: bool) -> Blob:  # noqa: FBT001 - APSW's signature
        """Open a blob handle; one that writes keeps an autocommit transaction open itself."""
        verdict = judge_blob(database, table, column, rowid, self.policy, writes=writeable)
        running = Running(None, verdict, "", None, _base.total_changes(self.connection))
        was = self.enter()
        self._may_commit += 1  # one that fails ends a transaction, too
        try:
            blob = _base.blob_open(self.connection, database, table, column, rowid, writeable)
        except apsw.Error as error:
            self._record_failure(running, error, None)
            raise
        finally:
            self._may_commit -= 1
            self.leave(was)
        if verdict.is_work and verdict.is_logged and self._wants() and not self.connection.in_transaction:
            running.holder = blob
            self._held.append(running)
        elif writeable:
            running.may_commit = True
            self._may_commit += 1
        return Blob(self, blob, running)

    def blob_moved(self, running: Running, rowid: int) -> Running:
        """Record what was done on one row, and go on with another."""
        event = captures.event_for(running, self.policy, affected=running.rows) if running.verdict.is_logged else None
        if event is not None and event.is_work and not self.connection.in_transaction:
            self._append([event])
            self._group.append(event)
        elif event is not None and event.is_work:
            self._add_work(event)
        elif event is not None:
            self.note(event)
        running.rows = 0
        verdict = running.verdict
        template = Template(f"blob.reopen({rowid}) on {verdict.target}", self.policy.max_query_length)
        running.verdict = replace(verdict, template=template if verdict.is_logged else None)
        return running

    def blob_failed(self, running: Running, error: BaseException) -> None:
        """Record a write that failed; the handle stays."""
        event = captures.event_for(running, self.policy, success=False, error=captures.said(error), affected=0)
        if event is not None and running.verdict.is_logged:
            self.note(event)

    # -- its own life ------------------------------------------------------------------------------------------------

    def record(self, operation: str, *, event_class: str = "ADMIN", **fields: Any) -> None:
        """Record what no statement stands for: opening, closing, a backup, a change of policy."""
        if not self.policy.logs(event_class) and fields.get("success", True):
            return
        session = sessions.current()
        self.note(
            event_of(
                operation,
                event_class=event_class,
                user=session.user,
                session_id=session.id,
                client_ip=session.client_ip,
                application_name=session.application_name or self.policy.application_name,
                **fields,
            )
        )

    def close(self) -> None:
        """Write what still waits, before the connection closes."""
        self.closed = True
        for running in [*self._held]:
            cursor = running.cursor() if running.cursor is not None else None
            if cursor is not None:
                cursor.close(True)  # noqa: FBT003 - APSW's signature
        if self.transactions.frames:
            self._summarise(self.transactions.rolled_back())
        self.flush()
        if self.recorder is not None:
            self.recorder.forget(self)
        self.private_cursor.close()  # APSW closes with a connection only the cursors that connection.cursor() made

