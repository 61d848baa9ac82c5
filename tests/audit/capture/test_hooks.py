"""The application's own hooks work on an audited connection as on a plain one, and see nothing of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit.verifications import verify

Seen = list[Any]


def exec_trace(connection: apsw.Connection, seen: Seen) -> None:
    def trace(_cursor: Any, sql: str, bindings: Any) -> bool:
        seen.append((sql, bindings))
        return True

    connection.exec_trace = trace


def row_trace(connection: apsw.Connection, seen: Seen) -> None:
    def trace(_cursor: Any, row: Any) -> Any:
        seen.append(row)
        return row

    connection.row_trace = trace


def authorizer(connection: apsw.Connection, seen: Seen) -> None:
    def ask(code: int, *names: Any) -> int:
        seen.append((code, *names))
        return apsw.SQLITE_OK

    connection.authorizer = ask


def update_hook(connection: apsw.Connection, seen: Seen) -> None:
    connection.set_update_hook(lambda *change: seen.append(change))


def preupdate_hook(connection: apsw.Connection, seen: Seen) -> None:
    connection.preupdate_hook(lambda update: seen.append((str(update.op), update.table_name, update.rowid)))


def commit_hook(connection: apsw.Connection, seen: Seen) -> None:
    def commit() -> bool:
        seen.append("commit")
        return False

    connection.set_commit_hook(commit)


def rollback_hook(connection: apsw.Connection, seen: Seen) -> None:
    connection.set_rollback_hook(lambda: seen.append("rollback"))


def profile(connection: apsw.Connection, seen: Seen) -> None:
    connection.set_profile(lambda sql, _nanoseconds: seen.append(sql))


def trace_v2(connection: apsw.Connection, seen: Seen) -> None:
    connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: seen.append((event["sql"], event.get("trigger"))))


HOOKS: list[Callable[[apsw.Connection, Seen], None]] = [
    exec_trace,
    row_trace,
    authorizer,
    update_hook,
    preupdate_hook,
    commit_hook,
    rollback_hook,
    profile,
    trace_v2,
]


def work(connection: apsw.Connection) -> list[Any]:
    """Do a bit of everything; returns what came of it."""
    found: list[Any] = []
    connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x UNIQUE); CREATE TABLE u(x)").fetchall()
    connection.execute("CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO u VALUES(new.x); END")
    connection.execute("INSERT INTO t(x) VALUES(?)", ("a",))
    connection.executemany("INSERT INTO t(x) VALUES(?)", [("b",), ("c",)])
    with connection:
        connection.execute("UPDATE t SET x = x || '!' WHERE i > 1")
    connection.execute("BEGIN; DELETE FROM t WHERE i = 1; ROLLBACK").fetchall()
    for sql in ("INSERT INTO t(x) VALUES('a')", "SELECT * FROM nothing"):
        try:
            connection.execute(sql)
        except apsw.Error as error:
            found.append(str(error))
    found.append(connection.execute("SELECT * FROM t ORDER BY i").fetchall())
    found.append(connection.execute("INSERT INTO t(x) VALUES('d') RETURNING i").fetchall())
    return found


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[apsw.Connection, apsw.Connection]]:
    plain = apsw.Connection(str(tmp_path / "plain.db"))
    audited = heliosaudit.connect(tmp_path / "audited.db", heliosaudit.Policy(log_select=True, flush_interval=60))
    with closing(plain), closing(audited):
        yield plain, audited


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_a_hook_sees_what_it_sees_on_a_plain_connection(
    both: tuple[apsw.Connection, apsw.Connection], hook: Callable[[apsw.Connection, Seen], None]
) -> None:
    seen: list[Seen] = [[], []]
    results = []
    for connection, into in zip(both, seen, strict=True):
        hook(connection, into)
        results.append(work(connection))
    assert results[0] == results[1]
    assert seen[0]
    assert seen[0] == seen[1]
    assert "__audit" not in str(seen[1])


def test_a_tracer_of_a_cursor_goes_before_the_connections(both: tuple[apsw.Connection, apsw.Connection]) -> None:
    seen: list[Any] = []
    for connection in both:
        connection.exec_trace = lambda *_: seen.append("connection") or True
        cursor = connection.cursor()
        cursor.exec_trace = lambda *_: seen.append("cursor") or True
        cursor.execute("SELECT 1")
        connection.execute("SELECT 2").fetchall()
    assert seen == ["cursor", "connection"] * 2


def test_a_statement_that_the_applications_tracer_stops_has_not_run_and_is_no_event(
    both: tuple[apsw.Connection, apsw.Connection],
) -> None:
    _, audited = both
    audited.execute("CREATE TABLE t(x)")
    audited.exec_trace = lambda *_: False
    with pytest.raises(apsw.ExecTraceAbort):
        audited.execute("INSERT INTO t VALUES(1)")
    audited.exec_trace = None
    assert audited.execute("SELECT count(*) FROM t").get == 0
    assert audited.execute("SELECT count(*) FROM __audit_log WHERE operation = 'INSERT'").get == 0


def test_what_the_applications_authorizer_denies_is_recorded(both: tuple[apsw.Connection, apsw.Connection]) -> None:
    _, audited = both
    audited.execute("CREATE TABLE t(x)")
    audited.authorizer = lambda code, *_: apsw.SQLITE_DENY if code == apsw.SQLITE_DELETE else apsw.SQLITE_OK
    with pytest.raises(apsw.AuthError):
        audited.execute("DELETE FROM t")
    audited.authorizer = None
    [(error,)] = audited.execute("SELECT error FROM __audit_log WHERE operation = 'ACCESS DENIED'").fetchall()
    assert "denied by the application's authorizer" in error


def test_a_connection_that_was_just_opened_says_that_nothing_was_changed(both: tuple[apsw.Connection, apsw.Connection]) -> None:
    """It once told of the row that is in the log's own temporary table."""
    plain, audited = both
    for connection in (plain, audited):
        assert (connection.changes(), connection.total_changes(), connection.last_insert_rowid()) == (0, 0, 0)
        assert connection.execute("SELECT changes(), total_changes(), last_insert_rowid()").fetchall() == [(0, 0, 0)]


def test_hooks_that_refuse_and_interrupt_do_not_stop_the_log(both: tuple[apsw.Connection, apsw.Connection]) -> None:
    _, audited = both
    audited.execute("CREATE TABLE t(x)")
    audited.set_commit_hook(lambda: True)
    with pytest.raises(apsw.ConstraintError):
        audited.execute("INSERT INTO t VALUES(1)")
    audited.set_commit_hook(None)
    audited.set_progress_handler(lambda: True, 1)
    with pytest.raises(apsw.InterruptError):
        audited.execute("INSERT INTO t VALUES(2)")
    audited.set_progress_handler(None)
    audited.execute("PRAGMA query_only = ON")
    with pytest.raises(apsw.ReadOnlyError):
        audited.execute("INSERT INTO t VALUES(3)")
    audited.execute("PRAGMA query_only = OFF")
    assert audited.execute("SELECT count(*) FROM t").get == 0
    assert audited.execute("SELECT count(*) FROM __audit_log WHERE operation = 'INSERT' AND NOT success").get == 3


def test_a_row_tracer_that_raises_ends_no_statement(both: tuple[apsw.Connection, apsw.Connection]) -> None:
    """The audit once took it for the statement's failure, and undid that."""
    seen: list[list[Any]] = []
    for connection in both:
        connection.execute("CREATE TABLE t(i)")
        outcomes: list[Any] = []
        cursor = connection.cursor()
        cursor.row_trace = lambda _, row: (1 // (row[0] - 2), row[0])
        cursor.execute("INSERT INTO t VALUES(1), (2), (3) RETURNING i")
        for _ in range(5):
            try:
                outcomes.append(next(cursor))
            except (StopIteration, ZeroDivisionError) as error:
                outcomes.append(type(error))
        with pytest.raises(ZeroDivisionError):
            cursor.execute("INSERT INTO t VALUES(1), (2) RETURNING i").fetchall()
        cursor.close()
        outcomes += [connection.changes(), connection.total_changes(), connection.execute("SELECT count(*) FROM t").get]
        seen.append(outcomes)
    assert seen[0] == seen[1]
    found = both[1].execute("SELECT success, affected_rows FROM __audit_log WHERE operation = 'INSERT'").fetchall()
    assert found == [(1, 3), (1, 2)]


def test_a_row_tracer_that_changes_or_drops_rows_does_not_reach_the_logs_own(
    both: tuple[apsw.Connection, apsw.Connection],
) -> None:
    """The log once read its own head through the application's tracer."""
    _, audited = both
    audited.execute("CREATE TABLE t(x)")
    for trace in (lambda *_: None, lambda *_: (0, b"", "")):
        audited.row_trace = trace
        audited.execute("INSERT INTO t VALUES(1)")
        with audited:
            audited.execute("INSERT INTO t VALUES(2)")
    audited.row_trace = None
    assert audited.execute("SELECT count(*) FROM t").get == 4
    assert verify(audited).ok
