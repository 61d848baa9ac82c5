"""What becomes of events in transactions, savepoints, failures and rollbacks (A2, A3; AUDIT.md, "States of a transaction")."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest

import heliosaudit
from heliosaudit.connections import AuditedConnection

DML = heliosaudit.Policy()


@pytest.fixture(params=["wal", "delete"])
def connection(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[AuditedConnection]:
    path = tmp_path / "db"
    with closing(apsw.Connection(str(path))) as plain:
        plain.pragma("journal_mode", request.param)
        plain.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x UNIQUE)")
    with closing(heliosaudit.connect(path, DML)) as audited:
        yield audited


def events(connection: AuditedConnection) -> list[tuple[str, int | None, bool, bool]]:
    """Return what another connection finds of operation, rows, success and rolled back."""
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        rows = other.execute(
            "SELECT operation, affected_rows, success, rolled_back FROM __audit_log WHERE class = 'DML' ORDER BY id"
        )
        return [(operation, count, bool(success), bool(rolled_back)) for operation, count, success, rolled_back in rows]


def done(count: int = 1, operation: str = "INSERT") -> tuple[str, int, bool, bool]:
    return (operation, count, True, False)


def undone(count: int = 1, operation: str = "INSERT") -> tuple[str, int, bool, bool]:
    return (operation, count, True, True)


def failed(count: int = 0, operation: str = "INSERT") -> tuple[str, int, bool, bool]:
    return (operation, count, False, False)


def test_an_autocommit_statement_and_its_event_are_committed_together(connection: AuditedConnection) -> None:
    connection.execute("INSERT INTO t VALUES(1, 1)")
    assert events(connection) == [done()]


def test_events_of_a_transaction_appear_with_its_commit(connection: AuditedConnection) -> None:
    connection.execute("BEGIN; INSERT INTO t VALUES(1, 1); INSERT INTO t VALUES(2, 2)")
    assert events(connection) == []
    connection.execute("END")
    assert events(connection) == [done(), done()]


def test_events_of_a_transaction_that_was_rolled_back_say_so(connection: AuditedConnection) -> None:
    connection.execute("BEGIN; INSERT INTO t VALUES(1, 1); INSERT INTO t VALUES(2, 2); ROLLBACK")
    assert events(connection) == [undone(), undone()]


def test_rollback_to_marks_only_what_it_undid(connection: AuditedConnection) -> None:
    connection.execute(
        "BEGIN; INSERT INTO t VALUES(1, 1); SAVEPOINT a; DELETE FROM t; SAVEPOINT A; UPDATE t SET x = 5; ROLLBACK TO a; "
        "INSERT INTO t VALUES(3, 3); ROLLBACK TO a; RELEASE a; RELEASE a; COMMIT"
    )
    assert sorted(events(connection)) == sorted([done(), done(1, "DELETE"), undone(0, "UPDATE"), undone()])


def test_release_of_the_outermost_savepoint_commits(connection: AuditedConnection) -> None:
    connection.execute('SAVEPOINT "s"; INSERT INTO t VALUES(1, 1); SAVEPOINT inner_one; INSERT INTO t VALUES(2, 2); RELEASE S')
    assert not connection.in_transaction
    assert events(connection) == [done(), done()]


def test_with_blocks_commit_and_roll_back(connection: AuditedConnection) -> None:
    with connection:
        connection.execute("INSERT INTO t VALUES(1, 1)")
    with suppress(ZeroDivisionError), connection, connection:
        connection.execute("INSERT INTO t VALUES(2, 2)")
        raise ZeroDivisionError
    assert events(connection) == [done(), undone()]


def test_returning_commits_when_its_last_row_was_read(connection: AuditedConnection) -> None:
    cursor = connection.execute("INSERT INTO t VALUES(1, 1), (2, 2) RETURNING i")
    assert next(cursor) == (1,)
    assert events(connection) == []
    assert cursor.fetchall() == [(2,)]
    assert events(connection) == [done(2)]


def test_executemany_commits_row_by_row(connection: AuditedConnection) -> None:
    seen = []

    def rows() -> Iterator[tuple[int, int]]:
        for number in range(3):
            seen.append(len(events(connection)))
            yield number, number

    connection.executemany("INSERT INTO t VALUES(?, ?)", rows())
    assert seen == [0, 1, 2]
    assert events(connection) == [done()] * 3


def test_a_constraint_that_fails_is_an_event(connection: AuditedConnection) -> None:
    connection.execute("INSERT INTO t VALUES(1, 1)")
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT INTO t VALUES(1, 2)")
    assert events(connection) == [done(), failed()]


def test_or_fail_keeps_the_rows_before_the_one_that_failed(connection: AuditedConnection) -> None:
    connection.execute("INSERT INTO t VALUES(5, 5)")
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT OR FAIL INTO t VALUES(1, 1), (2, 2), (5, 6)")
    assert events(connection) == [done(), failed(2)]
    assert connection.execute("SELECT count(*) FROM t").get == 3


def test_or_rollback_ends_the_transaction(connection: AuditedConnection) -> None:
    connection.execute("BEGIN; INSERT INTO t VALUES(1, 1)")
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT OR ROLLBACK INTO t VALUES(1, 2)")
    assert not connection.in_transaction
    assert events(connection) == [undone(), failed()]


def test_a_commit_that_fails_can_be_tried_again(connection: AuditedConnection) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("CREATE TABLE c(i REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
    connection.execute("BEGIN; INSERT INTO c VALUES(7)")
    with pytest.raises(apsw.ConstraintError):
        connection.execute("COMMIT")
    assert connection.in_transaction
    connection.execute("INSERT INTO t VALUES(7, 7); COMMIT")
    assert events(connection) == [done(), done()]


def test_a_deferred_foreign_key_undoes_an_autocommit_statement(connection: AuditedConnection) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("CREATE TABLE c(i REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(apsw.ConstraintError, match="FOREIGN KEY"):
        connection.execute("INSERT INTO c VALUES(7)")
    assert events(connection) == [failed()]
    assert connection.execute("SELECT count(*) FROM c").get == 0


def test_a_commit_hook_that_refuses_undoes_statement_and_event(connection: AuditedConnection) -> None:
    connection.set_commit_hook(lambda: True)
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT INTO t VALUES(1, 1)")
    connection.set_commit_hook(None)
    assert events(connection) == [failed()]


def test_half_read_rows_survive_a_begin(connection: AuditedConnection) -> None:
    """It is ended before the transaction begins, or SQLite would lose rows when a statement in it fails."""
    cursor = connection.execute("INSERT OR REPLACE INTO t VALUES(1, 1), (2, 2), (3, 3) RETURNING i")
    assert next(cursor) == (1,)
    connection.execute("BEGIN; INSERT INTO t VALUES(21, 21)")
    with suppress(apsw.ConstraintError):
        connection.execute("INSERT INTO t VALUES(7, 7), (1, 9)")
    assert cursor.fetchall() == [(2,), (3,)]
    connection.execute("COMMIT")
    assert connection.execute("SELECT i FROM t").fetchall() == [(1,), (2,), (3,), (21,)]
    assert sorted(events(connection)) == sorted([done(3), done(), failed()])


def test_half_read_rows_survive_ddl_that_fails(connection: AuditedConnection) -> None:
    connection.execute("CREATE TABLE d(i INTEGER PRIMARY KEY, k); CREATE INDEX di ON d(k); INSERT INTO d VALUES(1, 1), (2, 2)")
    rows = connection.execute("SELECT i FROM d ORDER BY i")
    assert next(rows) == (1,)
    with pytest.raises(apsw.LockedError):
        connection.execute("DROP INDEX di")
    assert not connection.in_transaction
    assert rows.fetchall() == [(2,)]
    connection.execute("DROP INDEX di")
    connection.auditor.flush()
    found = connection.execute("SELECT success FROM __audit_log WHERE operation = 'DROP INDEX' ORDER BY id").fetchall()
    assert found == [(0,), (1,)]


def test_alter_table_that_found_the_database_busy_can_be_tried_again(connection: AuditedConnection) -> None:
    """Nothing is read before it: a transaction that has read can't write any more once another connection has (BUSY_SNAPSHOT)."""
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        other.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES(1, 1)")
        connection.set_busy_timeout(0)
        connection.execute("BEGIN")
        with pytest.raises(apsw.BusyError):
            connection.execute("ALTER TABLE t ADD COLUMN y")
        other.execute("COMMIT")
    connection.execute("ALTER TABLE t ADD COLUMN y; COMMIT")
    assert connection.execute("SELECT y FROM t").fetchall() == [(None,)]


@pytest.mark.parametrize("end", ["ROLLBACK", "ROLLBACK TO s", "INSERT OR ROLLBACK INTO t VALUES(1, 1)", "ROLLBACK, then a blob"])
def test_what_is_half_read_when_it_is_rolled_back_is_recorded_as_undone(connection: AuditedConnection, end: str) -> None:
    connection.execute("INSERT INTO t VALUES(1, 1); BEGIN; SAVEPOINT s")
    cursor = connection.execute("UPDATE t SET x = x + 1 RETURNING i")
    if end.startswith("INSERT"):
        with pytest.raises(apsw.ConstraintError):
            connection.execute(end)
    else:
        connection.execute(end.partition(",")[0])
    if end.endswith("blob"):  # it fails, and SQLite leaves its transaction to the statement that is half-read
        with pytest.raises(apsw.SQLError):
            connection.blob_open("main", "t", "x", 99, True)
    cursor.close()
    if connection.in_transaction:
        connection.execute("COMMIT")
    assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
    assert [event for event in events(connection) if event[0] == "UPDATE"] == [undone(1, "UPDATE")]
    connection.execute("UPDATE t SET x = 5")
    assert events(connection)[-1] == done(1, "UPDATE")


def test_an_autocommit_change_that_another_statement_rolled_back_is_recorded_as_undone(connection: AuditedConnection) -> None:
    connection.execute("INSERT INTO t VALUES(1, 1)")
    cursor = connection.execute("UPDATE t SET x = x + 1 RETURNING i")
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT OR ROLLBACK INTO t VALUES(1, 1)")
    with suppress(apsw.AbortError):
        cursor.close()
    assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
    assert [event for event in events(connection) if event[0] == "UPDATE"] == [undone(1, "UPDATE")]


def test_a_change_whose_event_can_not_be_written_is_undone_with_those_that_share_its_transaction(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(heliosaudit.connect(path, DML)) as made:
        made.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x)")
    with closing(apsw.Connection(str(path))) as plain:
        plain.execute(
            """CREATE TRIGGER full BEFORE INSERT ON __audit_log
            WHEN NEW.record LIKE '%"unlucky"%' AND NEW.record->>8 BEGIN SELECT RAISE(ABORT, 'no room'); END"""
        )
    with closing(heliosaudit.connect(path, DML)) as connection:
        cursor = connection.execute("INSERT INTO t VALUES(1, 1) RETURNING i")
        with heliosaudit.session(user="unlucky"), pytest.raises(heliosaudit.AuditError, match="no room"):
            connection.execute("INSERT INTO t VALUES(2, 2)")
        with pytest.raises(apsw.ConstraintError):
            cursor.fetchall()
        assert connection.execute("SELECT * FROM t").fetchall() == []
        connection.execute("INSERT INTO t VALUES(3, 3)")
        assert connection.execute("SELECT i FROM t").fetchall() == [(3,)]
        assert [event for event in events(connection) if event[2]] == [done()]


def test_what_was_done_in_a_savepoint_that_was_released_outlives_one_that_is_rolled_back(
    connection: AuditedConnection, tmp_path: Path
) -> None:
    connection.execute("ATTACH ? AS aux; CREATE TABLE aux.far(a)", (str(tmp_path / "aux"),)).fetchall()
    for sql in (
        "BEGIN; SAVEPOINT a; INSERT INTO aux.far VALUES(1); RELEASE a",
        "SAVEPOINT b; INSERT INTO t VALUES(1, 1); SAVEPOINT c; INSERT INTO t VALUES(2, 2); ROLLBACK TO b",
        "COMMIT",
    ):
        connection.execute(sql).fetchall()
    assert connection.execute("SELECT (SELECT count(*) FROM aux.far), (SELECT count(*) FROM t)").get == (1, 0)
    assert sorted(events(connection)) == sorted([done(), undone(), undone()])


def test_triggers_and_views_are_named_in_what_was_written(connection: AuditedConnection) -> None:
    connection.execute("CREATE TABLE u(x); CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO u VALUES(NEW.x); END").fetchall()
    connection.execute("INSERT INTO t VALUES(1, 1)")
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        writes = other.execute("SELECT record->>17 FROM __audit_log WHERE class = 'DML'").get
    assert writes == '["main.t","main.u"]'


def test_memory_stays_bounded_when_a_long_transaction_is_rolled_back(tmp_path: Path) -> None:
    """Beyond the limit a summary tells counts and a digest."""
    path = tmp_path / "bounded"
    with closing(heliosaudit.connect(path, heliosaudit.Policy(max_transaction_events=100))) as connection:
        connection.execute("CREATE TABLE t(i)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t VALUES(?)", ((number,) for number in range(2000)))
        connection.execute("ROLLBACK")
    with closing(apsw.Connection(str(path))) as other:
        kept = other.execute("SELECT count(*) FROM __audit_log WHERE operation = 'INSERT' AND rolled_back").get
        summary = other.execute("SELECT record->>'$[21].counts' FROM __audit_log WHERE operation = 'ROLLED BACK EVENTS'").get
    assert kept >= 100
    assert summary == f'[["DML","INSERT","t",{2000 - kept}]]'


def test_vacuum_and_attach_have_an_intent_and_an_outcome(connection: AuditedConnection) -> None:
    connection.execute("VACUUM")
    connection.execute("ATTACH ':memory:' AS aux; INSERT INTO t VALUES(1, 1); DETACH aux").fetchall()
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        found = [row[0] for row in other.execute("SELECT operation FROM __audit_log WHERE class IN ('ADMIN', 'DML')")]
    assert found == ["VACUUM (INTENT)", "VACUUM", "ATTACH (INTENT)", "ATTACH", "INSERT", "DETACH (INTENT)", "DETACH"]
