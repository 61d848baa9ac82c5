"""Statements that failed, and attempts that were denied (AUDIT.md, "Failures")."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import apsw

from heliosaudit import captures
from heliosaudit.captures import Running
from heliosaudit.errors import AccessDeniedError, AuditPolicyError, AuditWriteError
from heliosaudit.gates import BY_APPLICATION
from heliosaudit.literals import Template, without_literals, without_secrets
from heliosaudit.policies import Policy
from heliosaudit.rules import Refusal
from heliosaudit.statements import Action, Verdict, judge, object_of

if TYPE_CHECKING:
    from heliosaudit.auditors import Auditor
    from heliosaudit.cursors import Cursor

__all__ = ["abandon", "failed", "foreign_cursor", "record_failure", "record_stray"]

_base = apsw.Connection
_FAIL = re.compile(r"\bOR\s+FAIL\b", re.IGNORECASE)
_ERROR_IN_STEP = "resetcursor"  # the frame that APSW puts into tracebacks of errors that sqlite3_step reports
_SPACE = "; \t\r\n"
_LONG_NUMBERS = re.compile(r"\d(?:[^a-zA-Z\d]{0,3}\d){6,}")  # in comments and names, where literals are not
_CLASSES = {  # of SQL that could not be prepared, by its first word
    **dict.fromkeys(("INSERT", "UPDATE", "DELETE", "REPLACE"), "DML"),
    **dict.fromkeys(("SELECT", "WITH", "VALUES", "EXPLAIN"), "SELECT"),
    **dict.fromkeys(("CREATE", "DROP", "ALTER", "REINDEX", "ANALYZE"), "DDL"),
    **dict.fromkeys(("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"), "TRANSACTION"),
}


# what may go wrong for a row of a table: such a message names the schema, and others may quote values, as RAISE does
_OF_SCHEMA = frozenset(
    {
        apsw.SQLITE_CONSTRAINT_CHECK,
        apsw.SQLITE_CONSTRAINT_COMMITHOOK,
        apsw.SQLITE_CONSTRAINT_DATATYPE,
        apsw.SQLITE_CONSTRAINT_FOREIGNKEY,
        apsw.SQLITE_CONSTRAINT_NOTNULL,
        apsw.SQLITE_CONSTRAINT_PRIMARYKEY,
        apsw.SQLITE_CONSTRAINT_ROWID,
        apsw.SQLITE_CONSTRAINT_UNIQUE,
    }
)


def failed(auditor: Auditor, cursor: Cursor, error: BaseException) -> BaseException:
    """Record a statement that failed; returns what is to be raised."""
    if isinstance(error, apsw.ExecTraceAbort) and cursor.running is None:
        return error  # the application's own tracer did not let it run, as APSW's query_info does: it is no statement
    refusal, denied = auditor.gate.take_denied()
    running, cursor.running = cursor.running, None
    actions = auditor.gate.take_actions() or []
    if running is not None and _failed_later(running, cursor, error, refusal):
        running.has_failed = False
        try:
            auditor.finish(running)
        except BaseException as earlier:  # noqa: BLE001 - the statement before the one that failed could not commit
            return earlier
        running = None
    if id(error) == auditor.commits.recorded:
        auditor.commits.recorded = 0
        return error
    ran = running is not None
    instead: BaseException = error
    if running is not None:
        running.asked = [*running.asked, *actions]  # when it was prepared again
        auditor.judge_again(running)
    else:
        unprepared = auditor.gate.refusal_of_unprepared(str(cursor.text))
        if unprepared not in (None, refusal):
            refusal, instead = unprepared, unprepared.raised(str(cursor.text))
            instead.__cause__ = None  # SQLite's error quotes the SQL
        running = _not_run(auditor, cursor, actions, error, denied, hides_values=_hides_text(refusal))
    if refusal not in (None, BY_APPLICATION) and isinstance(error, apsw.AuthError) and not isinstance(error, AccessDeniedError):
        instead = refusal.raised(str(cursor.text))
    auditor.let_commits_end(running)
    hides_error = None if ran else running.verdict.template is not None and running.verdict.template.text != running.sql.strip()
    record_failure(auditor, running, instead, refusal, hides_error=hides_error)
    if auditor.commits.refused:
        auditor.commits.refused = False
        if isinstance(error, apsw.ConstraintError):
            instead = AuditWriteError("this would have been committed without its event in the audit log, and was rolled back")
    return auditor.gate.told(instead, str(cursor.text), refusal, ran=ran) if auditor.gate.rules else instead


def abandon(auditor: Auditor, running: Running, error: BaseException) -> None:
    """Undo a statement whose event could not be made or kept, as where KeyboardInterrupt came, and record that.

    Once: where the exception comes on its way out past those who call this, too, they do it again.
    """
    if running.settled:
        return
    running.settled = running.closed = True
    verdict, commits = running.verdict, auditor.commits
    cursor = running.cursor() if running.cursor is not None else None
    if cursor is not None:
        cursor.running = None
    auditor.let_commits_end(running)
    commits.abandon(running)
    if verdict.event_class == "TRANSACTION":
        auditor.follow(running)
    auditor.ledger.check()
    if not verdict.is_logged or running.recorded or auditor.ledger.keeps(running.event) or id(error) == commits.recorded:
        return
    event = captures.event_for(running, auditor.policy, success=False, error=captures.said(error), affected=0)
    if event is not None:
        event.fields[15] = verdict.is_work and auditor.connection.in_transaction
        auditor.ledger.note(event)
        commits.recorded = id(error)


def foreign_cursor(auditor: Auditor, sql: str) -> AuditPolicyError:
    """Record that a cursor was used that is not audited; returns what is to be raised."""
    problem = AuditPolicyError("apsw.Cursor(connection) would pass the audit by: use connection.cursor()")
    target = judge(sql, auditor.gate.take_actions() or [], auditor.policy).target
    said = f"AuditPolicyError: {problem}"
    auditor.record("ACCESS DENIED", event_class="AUTH", target=target, query=without_literals(sql), success=False, error=said)
    return problem


def record_stray(auditor: Auditor) -> None:
    """Record a denial of something that was prepared by none of our cursors, before another is made."""
    refusal, denied = auditor.gate.take_denied()
    if refusal is not None:
        target, _ = object_of(denied)
        error = f"AccessDeniedError: {refusal.reason}"
        auditor.record("ACCESS DENIED", event_class="AUTH", target=target, success=False, error=error)


def _failed_later(running: Running, cursor: Cursor, error: BaseException, refusal: Refusal | None) -> bool:
    """Tell whether it is not this statement that failed, but the preparation of the one after it."""
    is_last = len(running.sql.rstrip(_SPACE)) == len(cursor.text.rstrip(_SPACE))
    if is_last and not isinstance(error, apsw.BindingsError):
        return False
    if isinstance(error, (apsw.BindingsError, AccessDeniedError)):
        return True
    if not isinstance(error, apsw.SQLError) and refusal is None:
        return False
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == _ERROR_IN_STEP:
            return False
        trace = trace.tb_next
    return True


def _not_run(  # noqa: PLR0913 - what is known of it
    auditor: Auditor, cursor: Cursor, actions: list[Action], error: BaseException, denied: Action | None, *, hides_values: bool
) -> Running:
    """Make what stands for SQL that could not even be prepared; ``denied`` is what SQLite asked about then."""
    policy = auditor.policy
    text = str(cursor.text)
    hides_values = hides_values or bool(policy.redacted_columns)  # which it names is not known
    verdict = judge(text, actions if denied is None else [*actions, denied], policy)
    target, database = object_of(denied)
    event_class = verdict.event_class or "ADMIN"
    if isinstance(error, apsw.AuthError):
        event_class = "AUTH"
    elif not actions and denied is None:
        event_class = _CLASSES.get(verdict.operation, "ADMIN")
    verdict = Verdict(
        event_class,
        verdict.operation or "STATEMENT",
        target or verdict.target,
        database if target else verdict.database,
        verdict.reads,
        verdict.writes,
        template=Template(_LONG_NUMBERS.sub("?", without_literals(text)) if hides_values else text, policy.max_query_length),
        shows_values=False,
        is_logged=policy.logs(event_class) or event_class == "AUTH",
    )
    return Running(cursor, verdict, text, None, _base.total_changes(auditor.connection))


def _said(error: BaseException, *, hides_values: bool) -> str:
    """Describe an error; where values are not to be recorded, without a message that may quote them."""
    if not hides_values or (isinstance(error, apsw.ConstraintError) and getattr(error, "extendedresult", None) in _OF_SCHEMA):
        return captures.said(error)
    may_quote = isinstance(error, (apsw.SQLError, apsw.ConstraintError))
    return f"{type(error).__name__}: (a message that may quote values)" if may_quote else captures.said(error)


def _hides_text(refusal: Refusal | None) -> bool:
    return refusal is not None and refusal.hides_values


def _hides_values(running: Running, policy: Policy) -> bool:
    verdict = running.verdict
    return policy.capture_parameters != "expanded" or not verdict.shows_values or without_secrets(running.sql) != running.sql


def record_failure(
    auditor: Auditor, running: Running, error: BaseException, refusal: Refusal | None = None, *, hides_error: bool | None = None
) -> None:
    """Make the event of a failure, and end what was begun for its statement.

    Args:
        auditor: Whose statement it is.
        running: The statement.
        error: What it raised.
        refusal: Why it was denied; None: it was not.
        hides_error: Whether the error's message may hold what is not to be recorded; None: as its values are.
    """
    connection, verdict, commits = auditor.connection, running.verdict, auditor.commits
    running.closed = True
    if running.frame is not None:
        auditor.nested.end(running, failed=True)
    affected = None
    if verdict.event_class == "DML":
        is_kept = _base.total_changes(connection) != running.changes and not running.undone
        affected = connection.changes() if is_kept else 0
    event = None
    if auditor.images is not None and running.changed_rows:
        with contextlib.suppress(AuditWriteError):
            auditor.images.show(running, affected)
    if verdict.is_logged or refusal is not None:
        says = _said(error, hides_values=_hides_values(running, auditor.policy) if hides_error is None else hides_error)
        event = captures.event_for(
            running, auditor.policy, success=False, error=says, affected=affected, is_denied=refusal is not None
        )
    if event is not None and refusal is not None:
        event.fields[4], event.fields[14] = "ACCESS DENIED", "AUTH"
        if refusal.reason not in event.fields[9]:
            event.fields[9] = f"{event.fields[9]} ({refusal.reason})"
    keeps_rows = affected or (auditor.writer.has_written and _FAIL.search(running.sql))
    if running.holder is not None and event is not None and keeps_rows and not connection.in_transaction:
        event.is_work = True
        with contextlib.suppress(apsw.Error):  # it is recorded, and the statement's own error is the one to raise
            commits.commit(running, event)  # OR FAIL keeps the rows before the one that failed, and commits if there are none
        event = None
    else:
        commits.drop(running)
    auditor.ledger.check()
    running.event = event
    if event is None:
        running.settled = True
        return
    if event.is_work and connection.in_transaction:
        auditor.nested.add_work(running, event)
    else:
        auditor.ledger.note(event)
        running.settled = True
        auditor.ledger.flush_soon()
        auditor.ledger.look()
