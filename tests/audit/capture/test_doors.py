"""What leads past SQL has its event, or is refused: databases that are replaced, functions, extensions, strange cursors (A1, A4)."""

from __future__ import annotations

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
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        return other.execute("SELECT operation, target, success FROM __audit_log ORDER BY id").fetchall()


def other_database() -> apsw.Connection:
    other = apsw.Connection(":memory:")
    other.execute("CREATE TABLE o(x)")
    return other


def back_up_onto(connection: AuditedConnection, schema: str) -> None:
    with connection.backup(schema, other_database(), "main") as backup:
        backup.step()


DOORS: dict[str, tuple[Callable[[AuditedConnection], object], tuple[str, str, int]]] = {
    "backup": (lambda connection: back_up_onto(connection, "aux"), ("RESTORE", "aux", 1)),
    "backup onto nothing": (lambda connection: back_up_onto(connection, "missing"), ("RESTORE", "missing", 0)),
    "deserialize": (
        lambda connection: connection.deserialize("aux", other_database().serialize("main")),
        ("DESERIALIZE", "aux", 1),
    ),
    "serialize": (lambda connection: connection.serialize("aux"), ("SERIALIZE", "aux", 1)),
    "file": (lambda connection: connection.read("main", 0, 0, 16), ("READ FILE", "main", 1)),
    "no file": (lambda connection: connection.read("missing", 0, 0, 16), ("READ FILE", "missing", 0)),
    "config": (
        lambda connection: connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0),
        ("CONFIG", "SQLITE_DBCONFIG_ENABLE_TRIGGER", 1),
    ),
    "extensions": (lambda connection: connection.enable_load_extension(True), ("CONFIG", "enable_load_extension", 1)),
    "extension": (lambda connection: connection.load_extension("missing"), ("LOAD EXTENSION", "missing", 0)),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_door_past_sql_has_its_event_with_its_outcome(connection: AuditedConnection, door: str) -> None:
    connection.execute("ATTACH ':memory:' AS aux; CREATE TABLE aux.a(x)").fetchall()
    call, due = DOORS[door]
    if due[2]:
        call(connection)
    else:
        with pytest.raises(apsw.Error):
            call(connection)
    assert events(connection)[-1] == due


def test_an_extension_that_sql_loads_is_administration(connection: AuditedConnection) -> None:
    connection.enable_load_extension(True)
    with pytest.raises(apsw.SQLError):
        connection.execute("SELECT load_extension('missing')").fetchall()
    assert events(connection)[-1] == ("LOAD EXTENSION", "", 0)


@pytest.mark.parametrize("sql", ["SELECT * FROM t", "DELETE FROM t"])
def test_a_cursor_that_is_not_ours_is_recorded_as_denied(connection: AuditedConnection, sql: str) -> None:
    with pytest.raises((heliosaudit.AuditPolicyError, apsw.AuthError)):
        apsw.Cursor(connection).execute(sql)
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT INTO t VALUES(1, 1)")
    assert events(connection)[-2:] == [("ACCESS DENIED", "t", 0), ("INSERT", "t", 0)]


@pytest.mark.parametrize("mode", ["o", "of", "M", "'mem'", "memor"])
def test_a_journal_mode_may_not_be_shortened_to_what_is_denied(connection: AuditedConnection, mode: str) -> None:
    """SQLite compares as many letters as there are."""
    connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    with pytest.raises(heliosaudit.AccessDeniedError):
        connection.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    assert connection.pragma("journal_mode") == "delete"


@pytest.mark.parametrize("sql", ["PRAGMA schema_version = 99", "PRAGMA user_version = 99", "PRAGMA application_id = 99"])
def test_a_pragma_that_writes_shares_its_transaction_with_its_event(connection: AuditedConnection, sql: str) -> None:
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        connection.execute(sql).fetchall()  # nothing is flushed here
        seen = other.execute("SELECT query FROM __audit_log WHERE operation = 'PRAGMA'").fetchall()
    assert seen == [(sql,)]


@pytest.mark.parametrize("make", ["create_scalar_function", "create_aggregate_function", "create_window_function"])
def test_a_function_may_not_change_what_the_log_shows(connection: AuditedConnection, make: str) -> None:
    with pytest.raises(heliosaudit.AccessDeniedError):
        getattr(connection, make)("->>", lambda *_: "nobody", 2)
    assert events(connection)[-1] == ("ACCESS DENIED", "->>", 0)
    assert connection.execute("SELECT '[7]' ->> 0").get == 7


@pytest.mark.parametrize("name", ["lower", "substr", "max", "coalesce", "count"])
def test_functions_of_the_applications_under_sqlites_names_do_not_mislead_the_log(
    connection: AuditedConnection, name: str
) -> None:
    connection.create_scalar_function(name, lambda *_: 7)
    connection.execute("INSERT INTO t(x) VALUES(1), (2), (3)")
    connection.execute("DELETE FROM t WHERE i > 1")
    assert connection.changes() == 3
    with pytest.raises(heliosaudit.AccessDeniedError):
        connection.execute("ALTER TABLE t RENAME TO __audit_mine")
    assert heliosaudit.verify(connection).ok


def test_a_strict_blob_is_recorded_before_it_is_read(tmp_path: Path) -> None:
    policy = heliosaudit.Policy(log_select=True, read_durability="strict", flush_interval=3600)
    with (
        closing(heliosaudit.connect(tmp_path / "db", policy)) as connection,
        closing(apsw.Connection(str(tmp_path / "db"))) as other,
    ):
        connection.execute("PRAGMA journal_mode = wal").fetchall()  # or the open handle would keep the log from being written
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, x'00'), (2, x'00')").fetchall()
        sql = "SELECT query FROM __audit_log WHERE operation IN ('BLOB READ', 'SERIALIZE', 'SELECT') ORDER BY id"
        blob = connection.blob_open("main", "t", "x", 1, False)
        assert len(other.execute(sql).fetchall()) == 1
        blob.reopen(2)
        assert len(other.execute(sql).fetchall()) == 2
        blob.close()
        connection.serialize("main")
        assert len(other.execute(sql).fetchall()) == 3
        cursor = connection.execute("SELECT * FROM __audit_log")
        assert len(other.execute(sql).fetchall()) == 4
        cursor.close()
        connection.execute("BEGIN IMMEDIATE")
        with suppress(heliosaudit.AuditWriteError):
            connection.blob_open("main", "t", "x", 1, False)
            pytest.fail("a strict read was answered though the log is locked")
        connection.execute("ROLLBACK")
