"""No key or passphrase ends in the log, and no value that the policy keeps out, whatever way the SQL is written (A8, issue 3)."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest

import heliosaudit
from heliosaudit.connections import AuditedConnection
from heliosaudit.literals import without_secrets

SECRET = "s3cr3t"
EVERYTHING = {"log_select": True, "flush_interval": 3600.0}
REDACTED = heliosaudit.Policy(redacted_columns=frozenset({"t.x", "s.x"}), capture_rows="values", **EVERYTHING)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep databases with relative names out of the folder that tests are started in."""
    monkeypatch.chdir(tmp_path)


def content(connection: AuditedConnection) -> str:
    """Return all that the log holds."""
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        return repr(other.execute("SELECT record FROM __audit_log").fetchall()) + repr(
            other.execute("SELECT value FROM __audit_values").fetchall()
        )


def open_with(tmp_path: Path, policy: heliosaudit.Policy) -> AuditedConnection:
    return heliosaudit.connect(tmp_path / "db", policy)


KEYS = [
    "PRAGMA/**/key='{}'",
    "PRAGMA main./* of */key='{}'",
    "PRAGMA 'main'.key='{}'",
    'PRAGMA "my db".hexkey={}',
    "PRAGMA -- of\nrekey='{}'",
    "PRAGMA key='{}",
    "SELECT * FROM pragma_key('{}')",
    "ATTACH 'file:/missing/x?key={}' AS y",
    "ATTACH 'file:/missing/x?mode=rw&passphrase={}' AS y",
    "ATTACH 'file:/missing/x?key=a b {}' AS y",
    "ATTACH 'file:x?mode=memory&hex%6Bey={}' AS y",
    "ATTACH ':memory:' AS y KEY '{}'",
    "ATTACH ':memory:' AS y KEY {}",
    "VACUUM INTO 'file:/missing/y?key={}'",
]


@pytest.mark.parametrize("sql", KEYS)
def test_a_key_in_sql_is_not_recorded(tmp_path: Path, sql: str) -> None:
    with closing(open_with(tmp_path, heliosaudit.Policy(**EVERYTHING))) as connection:
        with suppress(apsw.Error):
            connection.execute(sql.format(SECRET)).fetchall()
        found = content(connection)
    assert SECRET not in found
    assert "***" in found


@pytest.mark.parametrize("capture", ["expanded", "redactable", "none"])
@pytest.mark.parametrize("sql", ["ATTACH ? AS y", "ATTACH :name AS y", "VACUUM INTO ?"])
@pytest.mark.parametrize("name", ["file:/missing/x?key=" + SECRET, "file:x?mode=memory&key=" + SECRET])
def test_a_key_in_a_bound_file_name_is_not_recorded(tmp_path: Path, capture: str, sql: str, name: str) -> None:
    with closing(open_with(tmp_path, heliosaudit.Policy(capture_parameters=capture, **EVERYTHING))) as connection:
        with suppress(apsw.Error):
            connection.execute(sql, {"name": name} if ":" in sql else (name,)).fetchall()
        assert SECRET not in content(connection)


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA foreign_keys = OFF",
        "PRAGMA main.foreign_key_check(t)",
        "SELECT 'PRAGMA x', t.key FROM t WHERE key = 1",
        "PRAGMA cache_size = 5; SELECT key FROM t",
        "ATTACH 'a.db' AS b; SELECT key FROM t",
        "ATTACH 'file:a.db?mode=ro&cache=shared' AS b",
        "SELECT * FROM t WHERE page = 'shop?item=5&size=2'",
    ],
)
def test_what_holds_no_secret_is_recorded_as_it_is(sql: str) -> None:
    assert without_secrets(sql) == sql


HIDING = {
    "none": heliosaudit.Policy(capture_parameters="none", **EVERYTHING),
    "hashed": heliosaudit.Policy(capture_parameters="hashed", hash_key=bytes(32), **EVERYTHING),
    "redacted": REDACTED,
}
QUOTING = {
    "RAISE": (
        "CREATE TRIGGER tr BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, 'bad ' || NEW.x); END",
        "INSERT INTO t(x) VALUES(?)",
    ),
    "a function": ("", "INSERT INTO t(x) VALUES(json_extract('{}', ?))"),
    "full-text search": ("CREATE VIRTUAL TABLE s USING fts5(x)", "SELECT * FROM s WHERE x MATCH '\"' || ?"),
}


@pytest.mark.parametrize("policy", HIDING)
@pytest.mark.parametrize("quoting", QUOTING)
def test_an_error_that_quotes_a_value_is_recorded_without_its_message(tmp_path: Path, policy: str, quoting: str) -> None:
    prepare, sql = QUOTING[quoting]
    with closing(open_with(tmp_path, HIDING[policy])) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x);" + prepare).fetchall()
        with pytest.raises(apsw.Error):
            connection.execute(sql, (SECRET,)).fetchall()
        found = content(connection)
    assert SECRET not in found
    assert "a message that may quote values" in found


def test_an_error_that_names_the_schema_is_recorded_in_full_whatever_is_hidden(tmp_path: Path) -> None:
    with closing(open_with(tmp_path, HIDING["none"])) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, 1)").fetchall()
        with pytest.raises(apsw.ConstraintError):
            connection.execute("INSERT INTO t VALUES(?, ?)", (1, 1))
        with pytest.raises(apsw.SQLError):
            connection.execute("INSERT INTO missing VALUES(?)", (1,))
        found = content(connection)
    assert "UNIQUE constraint failed: t.i" in found
    assert "no such table: missing" in found


@pytest.mark.parametrize(
    "sql",
    [
        f"INSERT INTO t VALUES(1, '{SECRET}', 2, 3)",
        f'INSERT INTO t(x) VALUES("{SECRET}")',
        f"SELECT * FROM t WHERE x = '{SECRET}",
        f'SELECT "t"."x", "{SECRET} . FROM t',
    ],
)
def test_literals_are_redacted_where_sql_can_not_be_prepared_and_where_quotes_are_double(tmp_path: Path, sql: str) -> None:
    with closing(open_with(tmp_path, REDACTED)) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x, y)")
        with suppress(apsw.SQLError):
            connection.execute(sql).fetchall()
        found = content(connection)
    assert SECRET not in found


@pytest.mark.parametrize("sql", ["DELETE FROM t", "UPDATE t SET y = 1", "DELETE FROM p", "REPLACE INTO t(i) VALUES(1)"])
def test_a_redacted_column_is_in_no_row_image(tmp_path: Path, sql: str) -> None:
    """The statement need not name the column: whole rows are deleted, and cascades ask nobody."""
    with closing(open_with(tmp_path, REDACTED)) as connection:
        connection.execute(
            """PRAGMA foreign_keys = ON; CREATE TABLE t(i INTEGER PRIMARY KEY, x, y); CREATE TABLE p(i INTEGER PRIMARY KEY);
            CREATE TABLE s(i REFERENCES p ON DELETE CASCADE, x, PRIMARY KEY(i, x)) WITHOUT ROWID;
            INSERT INTO p VALUES(1)"""
        ).fetchall()
        connection.execute("INSERT INTO t VALUES(1, ?, 'seen')", (SECRET,))
        connection.execute("INSERT INTO s VALUES(1, ?)", (SECRET,))
        connection.execute(sql)
        found = content(connection)
    assert SECRET not in found
    assert "/* redacted */" in found


def test_a_table_with_virtual_columns_can_be_changed_while_rows_are_captured(tmp_path: Path) -> None:
    """APSW asks SQLite for columns that it does not have in its hook, and says that they are out of range."""
    with closing(open_with(tmp_path, heliosaudit.Policy(capture_rows="values"))) as connection:
        connection.execute("CREATE TABLE g(a, b AS (a + 1), c)")
        connection.execute("INSERT INTO g(a, c) VALUES(1, 2)")
        connection.execute("UPDATE g SET c = 3")
        assert connection.execute("SELECT * FROM g").fetchall() == [(1, 2, 3)]
        assert content(connection).count("the table has virtual generated columns") == 2
