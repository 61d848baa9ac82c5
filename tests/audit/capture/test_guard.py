"""The log is append-only by every door, and each attempt is recorded (A4)."""

from __future__ import annotations

import os
import threading
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
    with closing(heliosaudit.connect(tmp_path / "db", heliosaudit.Policy())) as audited:
        audited.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, 1)").fetchall()
        yield audited


def log_of(connection: AuditedConnection) -> list[tuple[Any, ...]]:
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        return other.execute("SELECT id, checksum, operation, success, error FROM __audit_log ORDER BY id").fetchall()


SQL = {
    "delete": "DELETE FROM __audit_log",
    "delete in other case": 'DELETE FROM main."__AUDIT_log"',
    "update": "UPDATE __audit_log SET record = '[]'",
    "insert": "INSERT INTO __audit_log(id, record, checksum) VALUES(999, '[]', x'00')",
    "replace": "INSERT OR REPLACE INTO __audit_log(id, record, checksum) VALUES(1, '[]', x'00')",
    "drop": "DROP TABLE __audit_log",
    "drop values": "DROP TABLE __audit_values",
    "drop trigger": "DROP TRIGGER __audit_log_no_delete",
    "drop index": "DROP INDEX __audit_log_user",
    "alter": "ALTER TABLE __audit_log RENAME TO old",
    "add column": "ALTER TABLE __audit_log ADD COLUMN extra",
    "index": "CREATE INDEX mine ON __audit_log(id)",
    "trigger on it": "CREATE TRIGGER mine AFTER INSERT ON __audit_log BEGIN DELETE FROM t; END",
    "temp trigger on it": "CREATE TEMP TRIGGER mine AFTER INSERT ON main.__audit_log BEGIN DELETE FROM t; END",
    "a table of its names": "CREATE TABLE __audit_more(x)",
    "a temp table that shadows it": "CREATE TEMP TABLE __audit_log(x)",
    "a view that shadows it": "CREATE TEMP VIEW __Audit_Log AS SELECT 1",
    "a table renamed to its names": "ALTER TABLE t RENAME TO __audit_mine",
    "writable_schema": "PRAGMA writable_schema = ON",
    "writable_schema otherwise": "pragma main . WRITABLE_schema(1)",
    "writable_schema reset": "PRAGMA writable_schema = RESET",
    "journal_mode off": "PRAGMA journal_mode = OFF",
    "journal_mode memory": "PRAGMA journal_mode(memory)",
    "with": "WITH d AS (SELECT 1) DELETE FROM __audit_log",
    "returning": "DELETE FROM __audit_log RETURNING id",
}


@pytest.mark.parametrize("attack", SQL)
def test_sql_against_the_log_is_denied_and_recorded(connection: AuditedConnection, attack: str) -> None:
    before = log_of(connection)
    with pytest.raises(heliosaudit.AccessDeniedError) as raised:
        connection.execute(SQL[attack]).fetchall()
    assert isinstance(raised.value, apsw.AuthError)
    after = log_of(connection)
    assert after[: len(before)] == before
    assert [row[2:4] for row in after[len(before) :]] == [("ACCESS DENIED", 0)]
    assert connection.execute("SELECT * FROM t").fetchall() == [(1, 1)]


@pytest.mark.parametrize(
    ("sql", "target"),
    [
        (SQL["delete"], "__audit_log"),
        (SQL["delete in other case"], "__audit_log"),
        (SQL["replace"], "__audit_log"),
        (SQL["drop values"], "__audit_values"),
        (SQL["add column"], "__audit_log"),
        (SQL["trigger on it"], "mine"),
        (SQL["a table of its names"], "__audit_more"),
        (SQL["a table renamed to its names"], "t"),
        (SQL["writable_schema otherwise"], "writable_schema"),
        ("SELECT t.x, hidden.x FROM t, hidden", "hidden"),
        ("SELECT forbidden(x) FROM t", "forbidden"),
        ("DELETE FROM t; DELETE FROM hidden", "hidden"),
    ],
)
def test_a_denial_names_what_was_asked_for(connection: AuditedConnection, sql: str, target: str) -> None:
    connection.execute("CREATE TABLE hidden(x)")
    connection.create_scalar_function("forbidden", lambda _: 1)
    connection.authorizer = lambda _code, first, second, *_: (
        apsw.SQLITE_DENY if first == "hidden" or second == "forbidden" else apsw.SQLITE_OK
    )
    with pytest.raises((apsw.AuthError, apsw.SQLError)):
        connection.execute(sql).fetchall()
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        assert other.execute("SELECT target FROM __audit_log WHERE operation = 'ACCESS DENIED'").fetchall() == [(target,)]


def test_a_trigger_that_writes_the_log_is_denied_where_it_fires(connection: AuditedConnection) -> None:
    connection.execute("CREATE TRIGGER mine AFTER DELETE ON t BEGIN DELETE FROM __audit_log; END")
    with pytest.raises(heliosaudit.AccessDeniedError):
        connection.execute("DELETE FROM t")
    assert connection.execute("SELECT count(*) FROM t").get == 1


def test_the_text_of_the_logs_own_statements_opens_nothing(connection: AuditedConnection) -> None:
    """Whoever runs the same text would be given the cached statement, and the permission that it was prepared with."""
    for entry in connection.cache_stats(include_entries=True)["entries"]:
        if connection.auditor.writer.secret in entry["query"]:
            with pytest.raises((heliosaudit.AccessDeniedError, apsw.BindingsError)):
                connection.execute(entry["query"], (10_000, "[]", b"")[: entry["query"].count("?")])


def test_a_cursor_that_is_not_ours_is_refused(connection: AuditedConnection) -> None:
    with pytest.raises(heliosaudit.AuditPolicyError):
        apsw.Cursor(connection).execute("SELECT * FROM t")
    with pytest.raises(apsw.AuthError):
        apsw.Cursor(connection).execute("DELETE FROM t")
    assert connection.execute("SELECT count(*) FROM t").get == 1


def test_another_thread_gains_nothing_while_the_log_is_written(connection: AuditedConnection) -> None:
    """'Internal' is a thread and its cursor, not a state of the connection."""
    connection.set_busy_timeout(10_000)
    passed = []
    stop = threading.Event()

    def attack() -> None:
        while not stop.is_set():
            with suppress(apsw.Error):
                connection.cursor().execute("DELETE FROM __audit_log", can_cache=False)
                passed.append(1)

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        for number in range(2, 400):
            with suppress(apsw.ThreadingViolationError):
                connection.execute("INSERT INTO t VALUES(?, 1)", (number,))
    finally:
        stop.set()
        thread.join()
    assert not passed


def _changeset(path: Path) -> bytes:
    with closing(apsw.Connection(str(path))) as other:
        other.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x)")
        session = apsw.Session(other, "main")
        session.attach()
        other.execute("INSERT INTO t VALUES(50, 50)")
        found = session.changeset()
        session.close()
    return found


@pytest.mark.parametrize("flags", [0, apsw.SQLITE_CHANGESETAPPLY_NOSAVEPOINT])
def test_a_changeset_is_not_applied_past_the_audit(connection: AuditedConnection, tmp_path: Path, flags: int) -> None:
    with pytest.raises(apsw.Error):
        apsw.Changeset.apply(_changeset(tmp_path / "other"), connection, flags=flags)
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM t").get == 1


@pytest.mark.parametrize("link", ["same", "symlink", "hard link", "uri"])
def test_the_same_file_is_not_attached_again(connection: AuditedConnection, tmp_path: Path, link: str) -> None:
    name = str(tmp_path / "db")
    if link == "symlink":
        os.symlink(name, tmp_path / "link")
        name = str(tmp_path / "link")
    elif link == "hard link":
        os.link(name, tmp_path / "hard")
        name = str(tmp_path / "hard")
    elif link == "uri":
        name = f"file:{name}?mode=rw"
    before = len(log_of(connection))
    with pytest.raises(apsw.Error):
        connection.execute("ATTACH ? AS again", (name,))
    assert "again" not in connection.db_names()
    assert len(log_of(connection)) > before


DOORS: dict[str, Callable[[AuditedConnection], object]] = {
    "blob_open": lambda connection: connection.blob_open("main", "__audit_log", "record", 1, True),
    "deserialize": lambda connection: connection.deserialize("main", apsw.Connection(":memory:").serialize("main")),
    "backup": lambda connection: connection.backup("main", apsw.Connection(":memory:"), "main"),
    "reset database": lambda connection: connection.config(apsw.SQLITE_DBCONFIG_RESET_DATABASE, 1),
    "writable schema": lambda connection: connection.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1),
}


@pytest.mark.parametrize("door", DOORS)
def test_doors_past_sql_are_denied_and_recorded(connection: AuditedConnection, door: str) -> None:
    before = log_of(connection)
    with pytest.raises(heliosaudit.AccessDeniedError):
        DOORS[door](connection)
    after = log_of(connection)
    assert after[: len(before)] == before
    assert after[-1][2:4] == ("ACCESS DENIED", 0)
    target = connection.execute("SELECT target FROM __audit_log WHERE operation = 'ACCESS DENIED'").get
    assert target in ("__audit_log", "main", "SQLITE_DBCONFIG_RESET_DATABASE", "SQLITE_DBCONFIG_WRITABLE_SCHEMA")


@pytest.mark.parametrize("before", ["SELECT 1", "CREATE TABLE later(x)", "INSERT INTO t VALUES(5, 5)", "BEGIN; COMMIT"])
def test_what_would_be_committed_without_its_event_is_rolled_back(connection: AuditedConnection, before: str) -> None:
    """A function of the application's that gets at SQLite some other way stands for all that was not thought of.

    After DDL the first such commit once passed.
    """
    connection.execute(before).fetchall()

    def sneak() -> int:
        cursor = apsw.Cursor(connection)
        cursor.exec_trace = lambda *_: True
        cursor.execute("INSERT INTO t VALUES(77, 77)")
        return 1

    connection.create_scalar_function("sneak", sneak, 0)
    with suppress(apsw.Error, heliosaudit.AuditError):
        connection.execute("SELECT sneak()").fetchall()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        assert other.execute("SELECT count(*) FROM t WHERE i = 77").get == 0


@pytest.mark.parametrize(("end", "rolled_back"), [("COMMIT", 0), ("ROLLBACK", 1)])
@pytest.mark.parametrize(
    ("sql", "operation", "target"), [("INSERT INTO t VALUES(77, 77)", "INSERT", "t"), ("CREATE TABLE n(x)", "CREATE TABLE", "n")]
)
def test_what_a_function_changes_past_all_cursors_in_a_transaction_is_its_querys_event(
    connection: AuditedConnection, sql: str, operation: str, target: str, end: str, rolled_back: int
) -> None:
    """As functions of extensions do that run SQL (eval, SpatiaLite's)."""

    def sneak() -> int:
        cursor = apsw.Cursor(connection)
        cursor.exec_trace = lambda *_: True
        cursor.execute(sql, can_cache=False)
        return 1

    connection.create_scalar_function("sneak", sneak, 0)
    connection.execute("BEGIN")
    connection.execute("SELECT sneak()").fetchall()
    connection.execute(end)
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        found = other.execute(
            "SELECT operation, target, success, rolled_back FROM __audit_log WHERE query = 'SELECT sneak()'"
        ).fetchall()
    assert found == [(operation, target, 1, rolled_back)]


def test_the_hook_that_guards_commits_stays(connection: AuditedConnection) -> None:
    with pytest.raises(heliosaudit.AccessDeniedError):
        connection.set_commit_hook(None, id=connection.auditor)


def test_progress_handlers_limits_and_query_only_do_not_keep_events_out(connection: AuditedConnection) -> None:
    connection.set_progress_handler(lambda: connection.auditor.writer.hiding > 0, 1)
    connection.execute("INSERT INTO t VALUES(2, 2)")
    connection.set_progress_handler(None)
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT INTO t VALUES(2, 2)")
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(apsw.ReadOnlyError):
        connection.execute("INSERT INTO t VALUES(3, 3)")
    operations = [row[2:4] for row in log_of(connection)][-4:]
    assert operations == [("INSERT", 1), ("INSERT", 0), ("PRAGMA", 1), ("INSERT", 0)]


def test_a_log_that_can_not_be_written_undoes_the_statement(connection: AuditedConnection) -> None:
    """The longest text that SQLite takes is shorter than the record."""
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, 200)
    with pytest.raises(heliosaudit.AuditWriteError):
        connection.execute("INSERT INTO t VALUES(9, ?)", ("x" * 100,))
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, 1_000_000)
    assert connection.execute("SELECT count(*) FROM t").get == 1


def test_a_table_is_renamed_beside_the_tables_of_the_log_and_not_to_a_name_of_theirs(connection: AuditedConnection) -> None:
    """The log has further tables by now; none of them keeps ALTER TABLE from working (it once did)."""
    connection.auditor.writer.run("CREATE TABLE main.__audit_signers(id)")
    connection.execute("ALTER TABLE t RENAME TO u")
    assert connection.execute("SELECT count(*) FROM u").get == 1
    with pytest.raises(heliosaudit.AccessDeniedError):
        connection.execute("ALTER TABLE u RENAME TO __audit_consents")
    assert connection.execute("SELECT count(*) FROM u").get == 1
