"""Functions, generators and closing calls that come while a statement of the same connection runs (A0, A1, A2)."""

from __future__ import annotations

from collections.abc import Iterator
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
    assert [event for event in found if event[0] == "CLOSE"] == [("CLOSE", 1, 0), ("CLOSE", 0, 0), ("CLOSE", 1, 0)]
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
