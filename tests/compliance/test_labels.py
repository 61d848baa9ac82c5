"""Labels: what a clearance lets a session do, what leads past SQL, and what the log says of refusals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosvfs
from heliosvfs import backup, dbapi2
from heliosvfs.audit import AccessDeniedError, AuditPolicyError
from heliosvfs.audited import AuditedConnection
from heliosvfs.compliance import labels
from heliosvfs.errors import UsageError
from tests.compliance.labelled import KEY, LABELS, SEEN, WHOLE, cleared, failures, make, outcome


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[AuditedConnection]:
    connection = make(tmp_path / "whole.db", WHOLE)
    yield connection
    connection.close(True)


@pytest.mark.parametrize(
    ("clearance", "sql", "expected"),
    [
        ("SECRET", "SELECT alias FROM agents WHERE id = 7", [("HUSH-alias",)]),
        ("SECRET", "SELECT count(*) FROM agents", [(2,)]),
        ("SECRET", "SELECT * FROM patients WHERE id = 1", [(1, "Ada", "w1", "HUSH-111", "111", "HUSH-111!")]),
        ("SECRET", "SELECT ssn, tail, kept FROM patients WHERE ssn = 'HUSH-222'", [("HUSH-222", "222", "HUSH-222!")]),
        ("SECRET", "SELECT name FROM patients NATURAL JOIN known", [("Ada",)]),
        ("SECRET", "SELECT alias FROM agent_names ORDER BY 1", [("HUSH-alias",), ("HUSH-other",)]),
        ("SECRET", "SELECT name FROM all_names ORDER BY 1 LIMIT 1", [("Ada",)]),
        ("SECRET", "SELECT body FROM notes WHERE notes MATCH 'baker'", [("HUSH the baker is ours",)]),
        ("SECRET", "SELECT doc FROM note_words WHERE term = 'baker'", [(1,)]),
        ("SECRET", "SELECT rowid FROM ssn_search WHERE ssn_search MATCH '111'", [(1,)]),
        ("SECRET", "SELECT rowid FROM codes", [(77,)]),
        ("SECRET", "INSERT INTO agents(alias) VALUES('new') RETURNING alias", [("new",)]),
        (
            "SECRET",
            "INSERT INTO agents(alias) VALUES('HUSH-alias') ON CONFLICT(alias) DO UPDATE SET alias = 'b' RETURNING id",
            [(7,)],
        ),
        ("SECRET", "UPDATE agents SET alias = 'b' WHERE id = 7 RETURNING alias", [("b",)]),
        ("SECRET", "UPDATE patients SET ssn = 'new' WHERE id = 1 RETURNING ssn", [("new",)]),
        ("SECRET", "DELETE FROM agents WHERE id = 8 RETURNING alias", [("HUSH-other",)]),
        ("SECRET", "INSERT INTO notes VALUES('more'); SELECT count(*) FROM notes", [(2,)]),
        ("SECRET", "INSERT INTO seen_by VALUES(1, 7)", AccessDeniedError),
        ("TOP_SECRET", "SELECT cover FROM agents WHERE id = 7", [("HUSH-cover",)]),
        ("TOP_SECRET", "SELECT * FROM agents WHERE id = 7", [(7, "HUSH-alias", "HUSH-cover")]),
        ("TOP_SECRET", "UPDATE agents SET cover = 'new' WHERE id = 7 RETURNING cover", [("new",)]),
        ("TOP_SECRET", "SELECT count(*) > 10 FROM sqlite_schema", [(1,)]),
        ("TOP_SECRET", "SELECT name FROM pragma_table_info('codes')", [("id",), ("code",)]),
        ("TOP_SECRET", "PRAGMA quick_check", [("ok",)]),
        ("TOP_SECRET", "SELECT seq FROM sqlite_sequence WHERE name = 'agents'", [(8,)]),
        ("TOP_SECRET", "SELECT count(*) > 5 FROM sqlite_stat1", [(1,)]),
        ("TOP_SECRET", "CREATE TABLE made(x); CREATE INDEX made_x ON made(x); DROP TABLE made", []),
        ("TOP_SECRET", "CREATE VIEW made AS SELECT alias FROM agents; SELECT count(*) FROM made; DROP VIEW made", [(2,)]),
        ("TOP_SECRET", "CREATE VIRTUAL TABLE made USING fts5(a, b); DROP TABLE made", []),
        ("TOP_SECRET", "CREATE TEMP TABLE made AS SELECT cover FROM agents; SELECT count(*) FROM made", [(2,)]),
        ("TOP_SECRET", "DROP TABLE agents; ANALYZE; VACUUM", []),
        ("TOP_SECRET", "ALTER TABLE known ADD COLUMN more; SELECT more FROM known", [(None,)]),
        ("TOP_SECRET", "EXPLAIN QUERY PLAN SELECT cover FROM agents", None),
        ("TOP_SECRET", "SELECT count(*) > 0 FROM __audit_log", [(1,)]),
        ("UNCLASSIFIED", "SELECT name, ward FROM patients WHERE id = 1", [("Ada", "w1")]),
        ("UNCLASSIFIED", "INSERT INTO patients(name) VALUES('Cid') RETURNING name", [("Cid",)]),
        ("UNCLASSIFIED", "DELETE FROM patients WHERE id = 2 RETURNING name", [("Bob",)]),
        ("UNCLASSIFIED", "SELECT body FROM leaflets WHERE leaflets MATCH 'hands'", [("wash your hands",)]),
        ("UNCLASSIFIED", "INSERT INTO leaflets VALUES('rest'); SELECT count(*) FROM leaflets", [(2,)]),
        ("UNCLASSIFIED", "WITH agents AS (SELECT 1 AS x) SELECT count(*) FROM agents", [(1,)]),
        ("UNCLASSIFIED", "PRAGMA user_version = 3; PRAGMA user_version", [(3,)]),
    ],
)
def test_a_cleared_session_does_what_its_level_allows(whole: AuditedConnection, clearance: str, sql: str, expected: Any) -> None:
    with cleared(clearance):
        found = outcome(whole, sql)
    if isinstance(expected, type):
        assert found.kind is expected
    else:
        assert (found.kind, found.text) == (None, "")
        assert expected is None or found.rows == expected


@pytest.mark.parametrize(
    ("clearance", "sql"),
    [
        ("SECRET", "INSERT INTO codes(code) SELECT alias FROM agents"),
        ("SECRET", "INSERT INTO codes(code) VALUES('x')"),
        ("SECRET", "UPDATE patients SET name = ssn"),
        ("SECRET", "DELETE FROM visits WHERE patient IN (SELECT id FROM agents)"),
        ("SECRET", "INSERT INTO leaflets VALUES('x')"),
        ("SECRET", "PRAGMA user_version = 111"),
        ("TOP_SECRET", "UPDATE agents SET alias = cover"),
        ("TOP_SECRET", "INSERT INTO agents(alias) VALUES('x')"),
        ("TOP_SECRET", "CREATE TABLE stolen AS SELECT cover FROM agents"),
        ("TOP_SECRET", "CREATE TABLE notes_stolen AS SELECT body FROM notes"),
        ("TOP_SECRET", "INSERT INTO leaflets_content VALUES(9, 'x')"),
        ("TOP_SECRET", "CREATE VIRTUAL TABLE made USING fts5(a); INSERT INTO made_content VALUES(9, 'x')"),
        ("TOP_SECRET", "UPDATE sqlite_sequence SET seq = 111; UPDATE visits SET day = 'x'"),
    ],
)
def test_nothing_is_written_below_the_session(whole: AuditedConnection, clearance: str, sql: str) -> None:
    with cleared(clearance):
        found = outcome(whole, sql)
    assert found.kind is AccessDeniedError
    assert "would carry down what that may read" in found.text
    assert "HUSH" not in str(outcome(whole, "SELECT name, ward FROM patients UNION ALL SELECT 1, code FROM codes").rows)


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE agents RENAME TO open_to_all",
        "ALTER TABLE agents RENAME COLUMN cover TO alias_too",
        "ALTER TABLE patients RENAME TO open_to_all",
        "ALTER TABLE patients RENAME COLUMN ssn TO day",
    ],
)
def test_what_has_labels_can_not_be_renamed(whole: AuditedConnection, sql: str) -> None:
    with cleared("TOP_SECRET"), pytest.raises(AccessDeniedError, match="labels go by its name"):
        whole.execute(sql)


def test_the_log_says_what_was_missing_and_shows_no_value(whole: AuditedConnection) -> None:
    with cleared("CONFIDENTIAL"):
        for sql in (
            "SELECT ssn FROM patients WHERE name = 'Ada'",
            "SELECT * FROM patients",
            "DELETE FROM agents WHERE alias = 'v'",
        ):
            outcome(whole, sql)
    said = failures(whole)
    assert [operation for operation, _, _ in said] == ["ACCESS DENIED"] * 3
    assert "patients.ssn is SECRET, the session is cleared for CONFIDENTIAL" in said[0][2]
    assert "patients.ssn" in said[1][2]
    assert "agents is SECRET" in said[2][2]
    assert "Ada" not in said[0][1]
    with cleared("TOP_SECRET"):
        custom = whole.execute("SELECT DISTINCT custom FROM __audit_log WHERE NOT success").get
    assert "CONFIDENTIAL" in custom


def test_a_trigger_hands_up_and_its_errors_say_nothing(whole: AuditedConnection) -> None:
    with cleared("UNCLASSIFIED"):
        whole.execute("INSERT INTO codes(code) VALUES('handed up')")
        found = outcome(whole, "INSERT INTO codes(code) VALUES('HUSH-alias')")
    assert (found.kind, found.text) == (apsw.ConstraintError, "constraint failed")
    with cleared("SECRET"):
        assert whole.execute("SELECT alias FROM agents WHERE id > 8").get == "handed up"


def test_a_trigger_reads_nothing_up_for_a_session_below(tmp_path: Path) -> None:
    schema = (
        "CREATE TABLE agents(alias, cover); INSERT INTO agents VALUES('HUSH', 'HUSH'); CREATE TABLE t(x);"
        "CREATE TRIGGER down AFTER INSERT ON t BEGIN UPDATE t SET x = (SELECT alias FROM agents); END"
    )
    connection = make(tmp_path / "t.db", schema)
    found = outcome(connection, "INSERT INTO t VALUES(1)")
    assert (found.kind, found.text) == (apsw.AuthError, "not authorized")
    assert connection.execute("SELECT x FROM t").fetchall() == []
    connection.close()


# -- the level of the database -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql", ["SELECT 1", "SELECT x FROM t", "SELECT * FROM nowhere", "INSERT INTO t VALUES(1)", "PRAGMA user_version", "VACUUM"]
)
def test_a_session_below_the_database_may_do_nothing(tmp_path: Path, sql: str) -> None:
    connection = make(tmp_path / "t.db", "CREATE TABLE t(x)", {"t": "TOP_SECRET"}, classification_level="SECRET")
    for clearance in (None, "CONFIDENTIAL"):
        with cleared(clearance):
            found = outcome(connection, sql)
        assert found.kind in (apsw.AuthError, apsw.SQLError)
        assert found.text in ("not authorized", "no such table: nowhere")
    with cleared("SECRET"):
        connection.execute("SELECT 1")
        with pytest.raises(apsw.SQLError, match="no such table: t"):
            connection.execute("SELECT x FROM t")
    connection.close()


def test_levels_are_the_applications_own(tmp_path: Path) -> None:
    connection = make(tmp_path / "t.db", "CREATE TABLE t(x)", {"t": "red"}, levels=("white", "amber", "red"))
    with cleared("amber"), pytest.raises(apsw.SQLError, match="no such table: t"):
        connection.execute("SELECT x FROM t")
    with cleared("red"):
        connection.execute("INSERT INTO t VALUES(1)")
    connection.close()
    with pytest.raises(UsageError, match="crimson"):
        labels.enforce(connection, {"t": "crimson"}, levels=("white", "red"))


def test_a_label_that_names_nothing_is_warned_of(tmp_path: Path) -> None:
    connection = make(tmp_path / "t.db", "CREATE TABLE t(x)", {})
    with pytest.warns(labels.LabelWithoutEffectWarning, match="nothing in the database: t.y, u$"):
        labels.enforce(connection, {"t": "SECRET", "t.x": "SECRET", "T.rowid": "SECRET", "t.y": "SECRET", "u": "SECRET"})
    connection.close()


def test_labels_need_an_audited_connection(tmp_path: Path) -> None:
    connection = heliosvfs.connect(tmp_path / "t.db", key=KEY)
    with pytest.raises(AuditPolicyError):
        labels.enforce(AuditedConnection(":memory:"), LABELS)
    connection.close()


# -- caches, threads, and schemas that change ----------------------------------------------------------------------------


def test_a_cached_statement_serves_nobody_below(whole: AuditedConnection) -> None:
    for _ in range(3):
        with cleared("SECRET"):
            assert len(whole.execute("SELECT ssn FROM patients").fetchall()) == 2
        assert outcome(whole, "SELECT ssn FROM patients").text == "no such column: ssn"


def test_threads_have_the_clearance_of_their_sessions(whole: AuditedConnection) -> None:
    whole.set_busy_timeout(10_000)
    found: dict[str, set[str]] = {"SECRET": set(), "CONFIDENTIAL": set()}

    def work(clearance: str) -> None:
        with cleared(clearance):
            for _ in range(100):
                found[clearance].add(outcome(whole, "SELECT count(*) FROM agents").text)

    threads = [threading.Thread(target=work, args=(clearance,)) for clearance in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "no such table: agents" in found["CONFIDENTIAL"]
    assert "" not in found["CONFIDENTIAL"]
    assert "no such table: agents" not in found["SECRET"]


def test_what_another_connection_makes_of_the_labelled_is_hidden_at_once(whole: AuditedConnection, tmp_path: Path) -> None:
    assert outcome(whole, "SELECT name FROM patients WHERE id = 1").rows == [("Ada",)]
    other = heliosvfs.connect(tmp_path / "whole.db", key=KEY)
    other.execute("ALTER TABLE patients ADD COLUMN spelled AS (ssn || '?')")
    other.execute("CREATE VIEW fresh AS SELECT ssn FROM patients; CREATE TABLE plain(x); INSERT INTO plain VALUES(5)")
    other.execute("CREATE VIRTUAL TABLE fresh_words USING fts5vocab(notes, row)")
    other.close()
    assert outcome(whole, "SELECT spelled FROM patients").text == "no such column: spelled"
    assert outcome(whole, "SELECT count(*) FROM fresh").text == "no such table: fresh"
    assert outcome(whole, "SELECT term FROM fresh_words").text == "no such table: fresh_words"
    assert outcome(whole, "SELECT x FROM plain").rows == [(5,)]
    assert outcome(whole, "SELECT count(*) FROM plain").rows == [(1,)]


def test_what_is_made_on_this_connection_is_hidden_at_once(whole: AuditedConnection) -> None:
    with cleared("TOP_SECRET"):
        whole.execute("DROP TABLE patients; CREATE TABLE patients(id INTEGER PRIMARY KEY, ssn, turned AS (ssn || '?'))")
        whole.execute("CREATE TEMP TABLE mine(x); INSERT INTO mine VALUES('HUSH')")
        whole.execute("CREATE VIRTUAL TABLE copies USING fts5(alias, content='agents')")
    assert outcome(whole, "SELECT turned FROM patients").text == "no such column: turned"
    assert outcome(whole, "SELECT id FROM patients").rows == []
    for sql in ("SELECT x FROM mine", "SELECT count(*) FROM mine", "SELECT x FROM temp.mine", "INSERT INTO mine VALUES(1)"):
        assert outcome(whole, sql).text in ("no such table: mine", "no such table: temp.mine")
    assert outcome(whole, "SELECT count(*) FROM copies").text == "no such table: copies"


def test_a_generated_column_may_be_labelled_lower_on_purpose(tmp_path: Path) -> None:
    connection = make(tmp_path / "t.db", WHOLE, {**LABELS, "patients.tail": "UNCLASSIFIED"})
    assert outcome(connection, "SELECT tail FROM patients WHERE id = 1").rows == [("111",)]
    assert outcome(connection, "SELECT kept FROM patients").text == "no such column: kept"
    connection.close()


# -- past SQL ------------------------------------------------------------------------------------------------------------

DOORS: dict[str, Callable[[AuditedConnection], Any]] = {
    "a blob handle on a table": lambda c: c.blob_open("main", "agents", "alias", 7, False).read(),
    "one that writes": lambda c: c.blob_open("main", "agents", "alias", 7, True),
    "one on a row that is not there": lambda c: c.blob_open("main", "agents", "alias", 99, False),
    "one on a column": lambda c: c.blob_open("main", "patients", "ssn", 1, False).read(),
    "one on a column to be written": lambda c: c.blob_open("main", "patients", "ssn", 1, True),
    "one on a view": lambda c: c.blob_open("main", "agent_names", "alias", 1, False),
    "one on what keeps a virtual table's content": lambda c: c.blob_open("main", "notes_data", "block", 10, False).read(),
    "one on the schema": lambda c: c.blob_open("main", "sqlite_schema", "sql", 1, False).read(),
    "one on the log": lambda c: c.blob_open("main", "__audit_log", "record", 1, False).read(),
    "serialize": lambda c: c.serialize("main"),
    "backup onto an audited connection": lambda c: AuditedConnection(":memory:").backup("main", c, "main"),
    "the file's bytes": lambda c: c.read("main", 0, 0, 4096),
    "whether a table exists": lambda c: c.table_exists("main", "agents"),
    "whether a view exists": lambda c: c.table_exists(None, "agent_names"),
    "metadata of a table": lambda c: c.column_metadata("main", "agents", "alias"),
    "metadata of a column": lambda c: c.column_metadata(None, "patients", "ssn"),
    "metadata of a column that is seen": lambda c: c.column_metadata("main", "patients", "name")[0],
    "pragma()": lambda c: c.pragma("table_info", "agents"),
    "executemany": lambda c: c.executemany("INSERT INTO agents(alias) VALUES(?)", [("x",), ("y",)]).fetchall(),
    "a cursor's get": lambda c: c.execute("SELECT alias FROM agents").get,
    "a description": lambda c: c.execute("SELECT ssn FROM patients").description,
    "EXPLAIN by argument": lambda c: list(c.cursor().execute("SELECT name FROM patients", explain=1)),
    "a changeset": lambda c: c.apply_changeset(_changeset("agents")),
    "a changeset of what is seen": lambda c: c.apply_changeset(_changeset("visits")),
    "a session's differences": lambda c: apsw.Session(c, "main").diff("main", "agents"),
    "a backup of heliosvfs": lambda c: backup.backup(c, "backup.db"),
    "a user function": lambda c: _with_function(c).execute("SELECT f(ssn) FROM patients").get,
}


def _with_function(connection: AuditedConnection) -> AuditedConnection:
    connection.create_scalar_function("f", lambda *values: str(values))
    return connection


def _changeset(table: str) -> bytes:
    connection = apsw.Connection(":memory:")
    connection.execute(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, a, b)")
    session = apsw.Session(connection, "main")
    session.attach()
    connection.execute(f"INSERT INTO {table} VALUES(5, 'x', 'y')")
    return session.changeset()


def _through(door: Callable[[AuditedConnection], Any], connection: AuditedConnection) -> Any:
    try:
        return door(connection)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
        return type(error), str(error), repr(error.__cause__), repr(error.__context__)


@pytest.mark.parametrize("door", DOORS)
def test_no_door_past_sql_shows_more(tmp_path: Path, door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answers = []
    for name, schema in (("whole", WHOLE), ("seen", SEEN)):
        connection = make(tmp_path / f"{name}.db", schema)
        with cleared("UNCLASSIFIED"):
            answers.append(_through(DOORS[door], connection))
        connection.close(True)
    assert "HUSH" not in repr(answers[0])
    assert answers[0] == answers[1]


def test_doors_are_open_to_the_highest(whole: AuditedConnection) -> None:
    with cleared("TOP_SECRET"), whole.blob_open("main", "agents", "cover", 7, True) as blob:
        blob.write(b"hush")
    with cleared("SECRET"), pytest.raises(apsw.SQLError, match=r'^no such column: "cover"$'):
        whole.blob_open("main", "agents", "cover", 7, False)
    with cleared("TOP_SECRET"):
        assert whole.serialize("main")
        assert whole.table_exists("main", "agents")
        assert whole.column_metadata("main", "agents", "cover")
        assert whole.read("main", 0, 0, 16)[1]
        assert whole.execute("SELECT cover FROM agents WHERE id = 7").get == "hush-cover"


def test_the_dbapi_door_says_no_more(tmp_path: Path) -> None:
    make(tmp_path / "whole.db", WHOLE).close()
    config = {
        "database": {"path": str(tmp_path / "whole.db")},
        "audit": {"enabled": True},
        "security": {"access_control": "mandatory", "labels": LABELS},
    }
    connection = dbapi2.connect(str(tmp_path / "whole.db"), key=KEY, config=config)
    with pytest.raises(dbapi2.OperationalError, match=r"^no such column: ssn$"):
        connection.execute("SELECT ssn FROM patients")
    with pytest.raises(dbapi2.DatabaseError, match=r"^not authorized$"):
        connection.execute("SELECT * FROM patients")
    with cleared("SECRET"):
        assert connection.execute("SELECT ssn FROM patients WHERE id = 1").fetchone() == ("HUSH-111",)
    connection.close()


def test_reads_that_fail_are_in_the_log_as_they_were(whole: AuditedConnection) -> None:
    outcome(whole, "INSERT INTO patients VALUES(3, 'Eve', 'w3')")
    [(operation, _, error)] = failures(whole)
    assert operation != "ACCESS DENIED"
    assert "has 6 columns" in error or "4 columns" in error


# -- constraints and attached files ----------------------------------------------------------------------------------------


def test_a_foreign_key_tells_nothing_of_the_rows_above(tmp_path: Path) -> None:
    schema = (
        "CREATE TABLE agents(id INTEGER PRIMARY KEY, friend REFERENCES people(id)); CREATE TABLE people(id INTEGER PRIMARY KEY);"
        "CREATE TABLE seen_by(agent REFERENCES agents(id)); INSERT INTO people VALUES(1), (2); INSERT INTO agents VALUES(7, 1)"
    )
    connection = make(tmp_path / "t.db", schema)
    connection.execute("PRAGMA foreign_keys = ON")
    answers = {
        outcome(connection, sql)[:2]
        for sql in (
            "INSERT INTO seen_by VALUES(7)",
            "INSERT INTO seen_by VALUES(99)",
            "DELETE FROM people WHERE id = 1",
            "DELETE FROM people WHERE id = 2",
        )
    }
    assert answers == {(apsw.AuthError, "not authorized")}
    connection.close()


def test_constraints_over_hidden_columns_say_nothing_of_them(tmp_path: Path) -> None:
    schema = """CREATE TABLE patients(
        id INTEGER PRIMARY KEY, name TEXT, ssn TEXT NOT NULL DEFAULT 'none', CHECK(name <> ssn), UNIQUE(name, ssn)) STRICT"""
    connection = make(tmp_path / "t.db", schema)
    connection.execute("INSERT INTO patients(name) VALUES('a')")
    for sql in ("INSERT INTO patients(name) VALUES('none')", "INSERT INTO patients(name) VALUES('a')"):
        found = outcome(connection, sql)
        assert (found.kind, found.text) == (apsw.ConstraintError, "constraint failed")
    connection.close()


def test_attached_files_are_the_highests(whole: AuditedConnection, tmp_path: Path) -> None:
    with cleared("TOP_SECRET"):
        whole.attach(tmp_path / "away.db", "away", key=KEY)
        whole.execute("CREATE TABLE away.copy AS SELECT cover FROM agents")
        assert whole.execute("SELECT count(*) FROM copy").get == 2
    for sql, text in (
        ("SELECT cover FROM away.copy", "no such table: away.copy"),
        ("SELECT count(*) FROM away.copy", "no such table: away.copy"),
        ("SELECT count(*) FROM copy", "no such table: copy"),
        ("INSERT INTO away.copy VALUES(1)", "no such table: away.copy"),
        ("SELECT * FROM away.sqlite_schema", "no such table: away.sqlite_schema"),
    ):
        assert outcome(whole, sql).text == text


def test_a_cursor_serves_whoever_holds_it_and_the_next_statement_does_not(whole: AuditedConnection) -> None:
    with cleared("SECRET"):
        cursor = whole.cursor()
        cursor.execute("SELECT ssn FROM patients ORDER BY id")
        next(cursor)
    assert next(cursor) == ("HUSH-222",)  # a cursor is a capability: docs/ACCESS.md
    with pytest.raises(apsw.SQLError, match="no such column: ssn"):
        cursor.execute("SELECT ssn FROM patients")
