"""What has to happen before a statement runs: holders, intents, reads that are recorded first (AUDIT.md, "Mechanism")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliosaudit import captures
from heliosaudit.captures import Running
from heliosaudit.errors import AuditWriteError
from heliosaudit.policies import Policy
from heliosaudit.statements import Verdict

if TYPE_CHECKING:
    from heliosaudit.auditors import Auditor

__all__ = ["before", "record_first"]

_ALONE = frozenset({"journal_mode", "locking_mode"})  # PRAGMAs that need the database for themselves
_READS = ("SELECT", "AUDIT")
_INTENDED = frozenset({"VACUUM", "ATTACH", "DETACH"})


def before(auditor: Auditor, running: Running) -> None:
    """Do what a statement needs before it runs.

    Raises:
        AuditWriteError: What has to be in the log first can't be written.
        apsw.Error: The log could not be asked or held.
    """
    verdict, commits = running.verdict, auditor.commits
    if verdict.event_class in _READS:
        _before_read(auditor, running)
        return
    in_transaction = auditor.writer.connection.in_transaction
    if verdict.is_work and (verdict.is_logged if in_transaction else _may_be_logged(verdict, auditor.policy)):
        if not in_transaction:
            auditor.end_orphans()
            commits.begin(running)
        if not verdict.never_returns_rows:
            auditor.unfinished.add(running, len(auditor.ledger.transactions.frames))
        return
    if verdict.event_class == "TRANSACTION":
        _before_transaction(auditor, verdict)
    elif verdict.event_class == "ADMIN":
        if verdict.operation in _INTENDED or verdict.pragma in _ALONE:
            _intend(auditor, running)
        if verdict.operation == "VACUUM":
            auditor.gate.begin_vacuum()
    commits.allow(running)


def record_first(auditor: Auditor, running: Running) -> None:
    """Have a read's event on disk before its first row is handed out.

    Raises:
        AuditWriteError: The log can't be written now: a transaction holds the lock, this connection's own perhaps.
    """
    event = captures.event_for(running, auditor.policy)
    if event is None:
        return
    event.fields[13] = None
    auditor.ledger.note(event)
    if not auditor.ledger.write_now():
        auditor.ledger.forget(event)
        msg = (
            "a strict read is recorded before it is answered, and the audit log can't be written now: read before the "
            "transaction writes, or after it has ended, or use read_durability = 'buffered'"
        )
        raise AuditWriteError(msg)
    running.recorded = True


def _before_read(auditor: Auditor, running: Running) -> None:
    if auditor.policy.read_durability == "strict" and running.verdict.is_logged:
        record_first(auditor, running)
    elif running.verdict.reads_log:
        auditor.flush()


def _may_be_logged(verdict: Verdict, policy: Policy) -> bool:
    """Tell whether an autocommit change must not be committed before its event is written.

    SQLite may prepare it again only when it runs, because another connection has changed the schema, and then it may write
    another table than its verdict says: a view's, by its trigger.
    """
    if not (verdict.reads_log or captures.who(policy).wanted):
        return False
    return verdict.is_logged or (verdict.event_class == "DML" and policy.log_dml)


def _before_transaction(auditor: Auditor, verdict: Verdict) -> None:
    ledger = auditor.ledger
    if verdict.operation in ("BEGIN", "SAVEPOINT") and not auditor.connection.in_transaction:
        # A holder makes SQLite open a statement journal for what is half-read under it, and a transaction that begins while that
        # is open loses rows when a statement in it fails (SQLite 3.54.1 does so without us, while a SELECT is half-read:
        # docs/AUDIT.md, "What differs").
        for cursor in auditor.commits.held_cursors():
            cursor.drain()
    if not ledger.transactions.frames or auditor.nested.is_open():  # SQLite refuses it
        return
    outermost = verdict.operation == "RELEASE" and ledger.transactions.index_of(verdict.savepoint) == 0
    if verdict.operation == "COMMIT" or outermost or (verdict.operation == "SAVEPOINT" and auditor.writer.is_writing):
        ledger.flush_inside()


def _intend(auditor: Auditor, running: Running) -> None:
    """Record what is about to be tried, for it can't share a transaction with its event."""
    event = captures.event_for(running, auditor.policy) if running.verdict.is_logged else None
    if event is not None:
        event.fields[4] += " (INTENT)"
        event.fields[13] = None
        auditor.ledger.note(event)
        auditor.flush()
    if running.verdict.pragma in _ALONE:
        auditor.ledger.step_aside()
