"""Functions, generators and closing calls that come while a statement of the same connection runs (A0, A1, A2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit.connections import AuditedConnection


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[AuditedConnection]:
    with closing(heliosaudit.connect(tmp_path / "db", heliosaudit.Policy(flush_interval=3600))) as audited:
        audited.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, 1)").fetchall()
        yield audited


def events(connection: AuditedConnection) -> list[tuple[Any, ...]]:
    """Return operation, affected rows, success of the events after those of the fixture."""
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        return other.execute("SELECT operation, affected_rows, success FROM __audit_log WHERE id > 4 ORDER BY id").fetchall()


@pytest.mark.parametrize(
    "outer", ["CREATE TABLE made AS SELECT writes() AS x", "CREATE TABLE IF NOT EXISTS made AS SELECT writes()"]
)
def test_what_a_function_writes_while_ddl_runs_is_committed_with_its_event(connection: AuditedConnection, outer: str) -> None:
    connection.create_scalar_function("writes", lambda: len(connection.execute("INSERT INTO t VALUES(2, 2)").fetchall()))
    connection.execute(outer)
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        assert other.execute("SELECT i FROM t").fetchall() == [(1,), (2,)]
        found = other.execute("SELECT operation FROM __audit_log WHERE id > 4 ORDER BY id").fetchall()
    assert found == [("INSERT",), ("CREATE TABLE",)]


def test_what_a_function_wrote_while_ddl_failed_is_recorded_as_undone(connection: AuditedConnection) -> None:
    def writes() -> None:
        connection.execute("INSERT INTO t VALUES(2, 2)").fetchall()
        raise ZeroDivisionError

    connection.create_scalar_function("writes", writes)
    with pytest.raises(ZeroDivisionError):
        connection.execute("CREATE TABLE made AS SELECT writes() AS x")
    assert connection.execute("SELECT count(*) FROM t").get == 1
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        found = other.execute("SELECT operation, success, rolled_back FROM __audit_log WHERE id > 4 ORDER BY id").fetchall()
    assert sorted(found) == [("CREATE TABLE", 0, 0), ("INSERT", 1, 1)]


def test_a_transaction_that_a_function_tries_to_begin_leaves_the_statement_alone(
    connection: AuditedConnection,
) -> None:
    def begins() -> int:
        with suppress(apsw.Error):
            connection.execute("SAVEPOINT s")
        return 1

    connection.create_scalar_function("begins", begins)
    connection.execute("INSERT INTO t VALUES(2, begins())")
    if connection.in_transaction:
        connection.execute("COMMIT")
    assert connection.execute("SELECT * FROM t").fetchall() == [(1, 1), (2, 1)]
    assert ("INSERT", 1, 1) in events(connection)


def test_a_generator_that_uses_its_own_cursor_fails_one_statement(connection: AuditedConnection) -> None:
    cursor = connection.cursor()

    def rows() -> Iterator[tuple[int]]:
        yield (2,)
        cursor.execute("SELECT 1")
        yield (3,)

    with pytest.raises(apsw.ThreadingViolationError):
        cursor.executemany("INSERT INTO t(i) VALUES(?)", rows())
    assert events(connection) == [("INSERT", 1, 1), ("INSERT", 0, 0)]


def test_a_connection_that_could_not_be_closed_goes_on_recording(connection: AuditedConnection) -> None:
    def rows() -> Iterator[tuple[int]]:
        yield (2,)
        connection.close()
        yield (3,)

    with pytest.raises(apsw.ThreadingViolationError):
        connection.executemany("INSERT INTO t(i) VALUES(?)", rows())
    connection.execute("BEGIN; INSERT INTO t VALUES(4, 4)").fetchall()
    path = connection.db_filename("main")
    connection.close()
    with closing(apsw.Connection(path)) as other:
        found = other.execute("SELECT operation, success, rolled_back FROM __audit_log WHERE id > 4 ORDER BY id").fetchall()
    assert [event for event in found if event[0] == "CLOSE"] == [("CLOSE", 0, 0), ("CLOSE", 1, 0)]
    assert ("INSERT", 1, 1) in found


def test_a_commit_that_is_refused_when_an_undone_statement_ends_is_told_of(connection: AuditedConnection) -> None:
    connection.execute("UPDATE t SET x = zeroblob(4)")
    total = connection.total_changes()
    connection.set_commit_hook(lambda: True)
    cursor = connection.execute("UPDATE t SET i = 1 RETURNING i")
    next(cursor)
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT OR ROLLBACK INTO t VALUES(1, 1)")
    with connection.blob_open("main", "t", "x", 1, True) as blob:
        blob.write(b"abcd")
    with pytest.raises(apsw.ConstraintError):
        cursor.execute("SELECT 1")
    assert (connection.changes(), connection.total_changes()) == (0, total)
    connection.set_commit_hook(None)
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        found = other.execute("SELECT operation, rolled_back FROM __audit_log WHERE id > 5 ORDER BY id").fetchall()
    assert sorted(found) == [("BLOB WRITE", 1), ("INSERT", 0), ("UPDATE", 1)]


@pytest.mark.parametrize(("begin", "end"), [("BEGIN", "COMMIT"), ("SAVEPOINT s", "RELEASE s")])
def test_a_table_that_took_a_name_of_the_logs_in_a_transaction_is_not_committed(
    connection: AuditedConnection, begin: str, end: str
) -> None:
    connection.execute(begin)
    with pytest.raises(heliosaudit.AccessDeniedError):
        connection.execute("ALTER TABLE t RENAME TO __audit_mine")
    with pytest.raises(apsw.ConstraintError):
        connection.execute(end)
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM t").get == 1
    connection.execute("INSERT INTO t VALUES(2, 2)")
    assert connection.execute("SELECT count(*) FROM t").get == 2


def test_a_change_in_a_transaction_whose_event_could_not_be_made_is_not_committed(tmp_path: Path) -> None:
    """A session of SQLite's takes the hook that row images come from."""
    policy = heliosaudit.Policy(capture_rows="values")
    with closing(heliosaudit.connect(tmp_path / "db", policy)) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x)")
        session = apsw.Session(connection, "main")
        session.attach()
        connection.execute("BEGIN")
        with pytest.raises(heliosaudit.AuditWriteError):
            connection.execute("INSERT INTO t VALUES(1, 1)")
        with pytest.raises(apsw.ConstraintError):
            connection.execute("COMMIT")
        session.close()
        assert connection.execute("SELECT count(*) FROM t").get == 0


_OUTERS = {
    "one row, nothing to undo": "INSERT INTO t VALUES(1, writes(10))",
    "the second row fails": "INSERT INTO t VALUES(5, writes(10)), (1, writes(11))",
    "the third row of a query fails": "INSERT INTO t SELECT column1, writes(column1 + 10) FROM (VALUES(5), (6), (1))",
    "or fail": "INSERT OR FAIL INTO t SELECT column1, writes(column1 + 10) FROM (VALUES(5), (6), (1))",
    "or rollback": "INSERT OR ROLLBACK INTO t SELECT column1, writes(column1 + 10) FROM (VALUES(5), (6), (1))",
    "another function raises": "UPDATE t SET x = writes(i + 10) || raises(i)",
    "a deletion": "DELETE FROM t WHERE writes(i + 10) AND raises(i)",
    "a trigger aborts": "INSERT INTO aborting VALUES(writes(10))",
    "a trigger fails": "INSERT INTO failing VALUES(writes(10))",
    "a trigger rolls back": "INSERT INTO rolling VALUES(writes(10))",
    "returning": "INSERT INTO t SELECT column1, writes(column1 + 10) FROM (VALUES(5), (1)) RETURNING i",
    "ignored": "INSERT OR IGNORE INTO t VALUES(1, writes(10))",
    "well": "INSERT INTO t SELECT column1, writes(column1 + 10) FROM (VALUES(5), (6))",
    "two deep": "INSERT INTO t SELECT column1, deeper(column1 + 10) FROM (VALUES(5), (6), (1))",
    "two deep, the inner one caught": "INSERT INTO t SELECT column1, caught(column1 + 10) FROM (VALUES(5), (6))",
    "of a query": "SELECT writes(10), raises(3)",
}


def _prepare(connection: apsw.Connection) -> list[int]:
    """Make tables and functions; returns what will hold the numbers that the functions were called with to write them."""
    connection.execute("""
        CREATE TABLE t(i INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, 1), (2, 2), (3, 3); CREATE TABLE u(n);
        CREATE TABLE aborting(x); CREATE TRIGGER a AFTER INSERT ON aborting BEGIN SELECT RAISE(ABORT, 'no'); END;
        CREATE TABLE failing(x); CREATE TRIGGER f AFTER INSERT ON failing BEGIN SELECT RAISE(FAIL, 'no'); END;
        CREATE TABLE rolling(x); CREATE TRIGGER r AFTER INSERT ON rolling BEGIN SELECT RAISE(ROLLBACK, 'no'); END
    """).fetchall()

    called: list[int] = []

    def writes(number: int) -> int:
        called.append(number)
        connection.execute("INSERT INTO u VALUES(?)", (number,)).fetchall()
        return number

    def raises(number: int) -> int:
        if number == 3:
            raise ZeroDivisionError
        return 1

    def deeper(number: int) -> int:
        connection.execute(
            "INSERT INTO t SELECT column1, writes(column1) FROM (VALUES(?), (?))", (number, number + 100)
        ).fetchall()
        return number

    def caught(number: int) -> int:
        with suppress(apsw.ConstraintError):
            connection.execute("INSERT INTO t SELECT column1, writes(column1) FROM (VALUES(?), (1))", (number,)).fetchall()
        return number

    for function in (writes, raises, deeper, caught):
        connection.create_scalar_function(function.__name__, function)
    return called


def _run_within(connection: apsw.Connection, outer: str, begins: list[str]) -> tuple[Any, ...]:
    """Run a statement, commit; return what it raised, what can be seen of the connection, and the table that functions wrote."""
    for number, begin in enumerate(begins):
        connection.execute(begin).fetchall()
        connection.execute("INSERT INTO u VALUES(?)", (-number,)).fetchall()
    raised = None
    try:
        connection.execute(outer).fetchall()
    except (apsw.Error, ZeroDivisionError) as error:
        raised = type(error)
    seen = (connection.in_transaction, connection.changes(), connection.total_changes(), connection.last_insert_rowid())
    if connection.in_transaction:
        connection.execute("COMMIT").fetchall()
    return (
        raised,
        seen,
        [n for (n,) in connection.execute("SELECT n FROM u ORDER BY n")],
        connection.execute("SELECT * FROM t").fetchall(),
    )


@pytest.mark.parametrize("limit", [100_000, 1])
@pytest.mark.parametrize("begins", [[], ["BEGIN"], ["BEGIN", "SAVEPOINT s"]], ids=["autocommit", "transaction", "savepoint"])
@pytest.mark.parametrize("outer", _OUTERS.values(), ids=_OUTERS)
def test_what_a_function_wrote_is_recorded_as_sqlite_left_it(tmp_path: Path, outer: str, begins: list[str], limit: int) -> None:
    with closing(apsw.Connection(str(tmp_path / "plain"))) as plain:
        _prepare(plain)
        expected = _run_within(plain, outer, begins)
    policy = heliosaudit.Policy(flush_interval=3600, max_transaction_events=limit, capture_parameters="expanded")
    with closing(heliosaudit.connect(tmp_path / "audited", policy)) as audited:
        called = _prepare(audited)
        assert _run_within(audited, outer, begins) == expected
    with closing(apsw.Connection(str(tmp_path / "audited"))) as other:
        found = other.execute("""
            SELECT query, rolled_back FROM __audit_log WHERE operation = 'INSERT' AND target = 'u' AND success
        """).fetchall()
        summaries = other.execute("SELECT record ->> 21 FROM __audit_log WHERE operation = 'ROLLED BACK EVENTS'").fetchall()
        assert heliosaudit.verify(other).ok
    stands = sorted(int(query[query.index("(") + 1 : -1]) for query, rolled_back in found if not rolled_back)
    assert stands == expected[2]
    undone = sum(rolled_back for _, rolled_back in found)
    for (details,) in summaries:
        undone += sum(count for _, _, target, count in json.loads(details)["counts"] if target == "u")
    assert undone + len(stands) == len(begins) + len(called)


def _find_in_log(connection: AuditedConnection, sql: str) -> list[tuple[Any, ...]]:
    path = connection.db_filename("main")
    connection.close()
    with closing(apsw.Connection(path)) as other:
        assert heliosaudit.verify(other).ok
        return other.execute(f"SELECT operation, success, rolled_back FROM __audit_log WHERE {sql} ORDER BY id").fetchall()


def _reads(connection: AuditedConnection) -> None:
    connection.execute("SELECT 1").fetchall()


def _begins_block(connection: AuditedConnection) -> None:
    with suppress(apsw.Error), connection:
        pass


@pytest.mark.parametrize("does", [_reads, _begins_block])
def test_what_waits_is_not_written_into_a_statement_that_may_fail(
    tmp_path: Path, does: Callable[[AuditedConnection], None]
) -> None:
    """SQLite would undo the rows of the log with it, and whoever wrote them would think them written."""
    policy = heliosaudit.Policy(log_select=True, async_buffer_size=2, flush_interval=3600)
    connection = heliosaudit.connect(tmp_path / "db", policy)
    connection.create_scalar_function("does", lambda value: does(connection) or value)  # type: ignore[func-returns-value]
    connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x); BEGIN; INSERT INTO t VALUES(1, 'kept')").fetchall()
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT INTO t SELECT does(column1), 0 FROM (VALUES(5), (4), (3), (2), (1))")
    connection.execute("COMMIT")
    assert connection.execute("SELECT x FROM t").get == "kept"
    found = _find_in_log(connection, "query = 'SELECT 1' OR class = 'DML'")
    assert sorted(found) == sorted([("INSERT", 1, 0), ("INSERT", 0, 0), *[("SELECT", 1, 0)] * (5 if does is _reads else 0)])


def test_a_function_within_the_second_statement_of_a_string_is_within_it(connection: AuditedConnection) -> None:
    connection.create_scalar_function("writes", lambda value: (connection.execute("INSERT INTO t VALUES(7, 7)"), value)[1])
    connection.execute("BEGIN")
    with pytest.raises(apsw.ConstraintError):
        connection.execute("SELECT 1; INSERT INTO t SELECT writes(column1), 0 FROM (VALUES(8), (1))").fetchall()
    connection.execute("COMMIT")
    assert connection.execute("SELECT i FROM t").get == 1
    assert sorted(_find_in_log(connection, "id > 4 AND class = 'DML'")) == [("INSERT", 0, 0), ("INSERT", 0, 0), ("INSERT", 1, 1)]


@pytest.mark.parametrize("begins", [True, False])
def test_a_cursor_that_is_read_within_its_own_statement_changes_nothing(connection: AuditedConnection, begins: bool) -> None:
    cursor = connection.cursor()

    def reads() -> int:
        for read in (cursor.fetchone, cursor.fetchall, cursor.__next__, lambda: cursor.get):
            with pytest.raises(apsw.ThreadingViolationError):
                read()
        return 7

    connection.create_scalar_function("reads", reads)
    if begins:
        connection.execute("BEGIN")
    cursor.execute("INSERT INTO t VALUES(7, reads())")
    if begins:
        connection.execute("COMMIT")
    assert connection.execute("SELECT x FROM t WHERE i = 7").get == 7
    assert events(connection) == [("INSERT", 1, 1)]


def test_closing_that_is_refused_leaves_the_transaction_and_its_events(connection: AuditedConnection) -> None:
    def closes() -> None:
        with pytest.raises(apsw.ThreadingViolationError):
            connection.close()

    connection.create_scalar_function("closes", closes)
    connection.execute("BEGIN; INSERT INTO t VALUES(2, 2); SELECT closes()").fetchall()
    assert connection.in_transaction
    connection.execute("COMMIT")
    assert _find_in_log(connection, "id > 4 AND class = 'DML'") == [("INSERT", 1, 0)]


def test_closing_that_is_refused_leaves_a_transaction_in_memory() -> None:
    connection = heliosaudit.connect(":memory:", heliosaudit.Policy())

    def closes() -> None:
        with pytest.raises(apsw.ThreadingViolationError):
            connection.close()

    connection.create_scalar_function("closes", closes)
    connection.execute("CREATE TABLE t(x); BEGIN; INSERT INTO t VALUES(1); SELECT closes()").fetchall()
    assert (connection.in_transaction, connection.execute("SELECT count(*) FROM t").get) == (True, 1)
    connection.close()
