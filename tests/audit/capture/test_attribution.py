"""Events name who did it, and are made for all who may not go unseen (A1, A8)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit.connections import AuditedConnection


def events(connection: AuditedConnection) -> list[tuple[Any, ...]]:
    """Return operation, class, user, success of each event."""
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        return other.execute('SELECT operation, class, "user", success FROM __audit_log ORDER BY id').fetchall()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[AuditedConnection]:
    policy = heliosaudit.Policy(log_select=True, flush_interval=3600)
    with closing(heliosaudit.connect(tmp_path / "db", policy)) as audited:
        audited.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, x'00'), (2, x'00')").fetchall()
        yield audited


@pytest.mark.parametrize("sql", ["SELECT * FROM t", "UPDATE t SET x = 1 RETURNING i"])
def test_a_statement_is_its_users_who_began_it_whoever_reads_on(connection: AuditedConnection, sql: str) -> None:
    with heliosaudit.session(user="alice"):
        cursor = connection.execute(sql)
        next(cursor)
    with heliosaudit.session(user="bob"):
        cursor.fetchall()
    assert events(connection)[-1][2] == "alice"


@pytest.mark.parametrize("capture_rows", ["none", "values"])
def test_each_statement_of_a_string_is_what_it_is_itself(tmp_path: Path, capture_rows: str) -> None:
    """SQLite prepares the second, and asks about its change, before the first has been seen to end."""
    policy = heliosaudit.Policy(log_select=True, capture_rows=capture_rows)  # type: ignore[arg-type]
    with closing(heliosaudit.connect(tmp_path / "db", policy)) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)").fetchall()
        connection.execute("SELECT 1; INSERT INTO t VALUES(2); SELECT x FROM t; DELETE FROM t; SELECT 2").fetchall()
        found = [event[:2] for event in events(connection)][-5:]
    assert found == [("SELECT", "SELECT"), ("INSERT", "DML"), ("SELECT", "SELECT"), ("DELETE", "DML"), ("SELECT", "SELECT")]


def _of_change(connection: AuditedConnection) -> list[tuple[Any, ...]]:
    """Return operation, target, success, query of each event that tells of a change."""
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        sql = "SELECT operation, target, success, query FROM __audit_log WHERE class IN ('DML', 'AUTH') AND id > 4 ORDER BY id"
        return other.execute(sql).fetchall()


@pytest.fixture
def of_changes(tmp_path: Path) -> Iterator[AuditedConnection]:
    with closing(heliosaudit.connect(tmp_path / "changes", heliosaudit.Policy(flush_interval=3600))) as audited:
        audited.execute("CREATE TABLE t(i, v); CREATE VIRTUAL TABLE w USING fts5(body)").fetchall()
        yield audited


def test_what_fts5_writes_when_it_commits_is_of_no_later_statement(of_changes: AuditedConnection) -> None:
    def rows() -> Iterator[tuple[int]]:
        of_changes.execute("INSERT INTO w VALUES('a word')")
        yield (1,)

    of_changes.executemany("INSERT INTO t(v) VALUES(?)", rows())
    of_changes.execute("INSERT INTO w VALUES('b'); SELECT 1").fetchall()
    assert _of_change(of_changes) == [
        ("INSERT", "w", 1, "INSERT INTO w VALUES('a word')"),
        ("INSERT", "t", 1, "INSERT INTO t(v) VALUES(1)"),
        ("INSERT", "w", 1, "INSERT INTO w VALUES('b');"),
    ]


def test_a_query_is_no_change_because_what_follows_it_can_not_be_prepared(of_changes: AuditedConnection) -> None:
    with pytest.raises(apsw.SQLError):
        of_changes.execute("SELECT 1; INSERT INTO t(i, v) VALUES(1)").fetchall()
    assert _of_change(of_changes) == [("INSERT", "t", 0, "SELECT 1; INSERT INTO t(i, v) VALUES(1)")]


def test_a_statement_of_a_string_that_is_denied_when_it_is_prepared_again_is_denied_once(of_changes: AuditedConnection) -> None:
    sql = "INSERT INTO w VALUES('a'); INSERT INTO t(i) VALUES(1)"
    of_changes.execute(sql).fetchall()
    of_changes.authorizer = lambda code, name, *_: int(code == apsw.SQLITE_INSERT and name == "w")
    with pytest.raises(apsw.AuthError):
        of_changes.execute(sql).fetchall()
    of_changes.authorizer = None
    assert [event[:3] for event in _of_change(of_changes)] == [("INSERT", "w", 1), ("INSERT", "t", 1), ("ACCESS DENIED", "w", 0)]


def test_a_blob_handle_is_its_users_who_opened_it(connection: AuditedConnection) -> None:
    with heliosaudit.session(user="alice"):
        blob = connection.blob_open("main", "t", "x", 1, True)
    with heliosaudit.session(user="bob"):
        blob.write(b"1")
        blob.close()
    assert events(connection)[-1][:3] == ("BLOB WRITE", "DML", "alice")


def test_a_user_who_is_excluded_is_recorded_where_the_log_is_concerned(tmp_path: Path) -> None:
    policy = heliosaudit.Policy(exclude_users=frozenset({"robot"}))
    with heliosaudit.session(user="robot"), closing(heliosaudit.connect(tmp_path / "db", policy)) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.execute("SELECT record FROM __audit_log").fetchall()
        connection.execute("INSERT INTO t SELECT record FROM __audit_log")
        with suppress(apsw.AuthError):
            connection.execute("DELETE FROM __audit_log")
        found = [event for event in events(connection) if event[2] == "robot"]
    assert found == [
        ("GENESIS", "AUDIT", "robot", 1),
        ("OPEN", "AUTH", "robot", 1),
        ("SELECT", "AUDIT", "robot", 1),
        ("INSERT", "DML", "robot", 1),
        ("ACCESS DENIED", "AUTH", "robot", 0),
    ]


@pytest.mark.parametrize(
    "sql", ["INSERT INTO t(x) SELECT record FROM __audit_log", "CREATE TABLE c AS SELECT * FROM __audit_log"]
)
def test_what_copies_the_log_is_recorded_though_changes_are_not(tmp_path: Path, sql: str) -> None:
    policy = heliosaudit.Policy(log_dml=False, log_ddl=False)
    with closing(heliosaudit.connect(tmp_path / "db", policy)) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x)")
        before = len(events(connection))
        connection.execute(sql)
        assert len(events(connection)) == before + 1
        connection.execute("INSERT INTO t(x) VALUES(1)")
        assert len(events(connection)) == before + 1


def test_an_authorizer_that_ignores_a_column_denies_nothing(connection: AuditedConnection) -> None:
    connection.set_authorizer(
        lambda code, _table, column, *_: apsw.SQLITE_IGNORE if (code, column) == (apsw.SQLITE_READ, "x") else apsw.SQLITE_OK
    )
    assert connection.execute("SELECT x FROM t").fetchall() == [(None,), (None,)]
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT INTO t VALUES(1, 1)")
    assert [event[:2] for event in events(connection)[-2:]] == [("SELECT", "SELECT"), ("INSERT", "DML")]


def test_an_authorizer_that_ignores_a_delete_lets_it_happen_with_its_event(connection: AuditedConnection) -> None:
    """SQLite deletes row by row then (https://sqlite.org/c3ref/set_authorizer.html)."""
    connection.set_authorizer(lambda code, *_: apsw.SQLITE_IGNORE if code == apsw.SQLITE_DELETE else apsw.SQLITE_OK)
    connection.execute("DELETE FROM t")
    assert connection.execute("SELECT count(*) FROM t").get == 0
    assert ("DELETE", "DML") in [event[:2] for event in events(connection)]


@pytest.mark.parametrize("transaction", ["", "BEGIN"])
def test_what_is_half_read_when_the_connection_closes_has_its_event(connection: AuditedConnection, transaction: str) -> None:
    path = connection.db_filename("main")
    connection.execute(transaction)
    cursor = connection.execute("INSERT INTO t(x) VALUES(1), (2) RETURNING i")
    next(cursor)
    connection.close()
    with closing(apsw.Connection(path)) as other:
        found = other.execute("SELECT rolled_back FROM __audit_log WHERE operation = 'INSERT' ORDER BY id").fetchall()
        assert found == [(0,), (1 if transaction else 0,)]
        assert other.execute("SELECT count(*) FROM t").get == (2 if transaction else 4)
