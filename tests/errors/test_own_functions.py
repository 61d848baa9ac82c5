"""Databases that need functions, collations or tokenizers of their application: they are intact, and what can be done is done."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import apsw.fts5
import pytest

import heliosvfs
from heliosvfs.backup import backup, restore
from heliosvfs.check import check
from heliosvfs.cli.app import run
from heliosvfs.convert import Content, decrypt, encrypt
from heliosvfs.salvage import salvage

KEY = bytes(range(32))
Register = Callable[[apsw.Connection], None]


def collation(connection: apsw.Connection) -> None:
    connection.create_collation("own", lambda one, other: (one < other) - (one > other))  # backwards


def function(connection: apsw.Connection) -> None:
    connection.create_scalar_function("own", lambda value: value, 1, deterministic=True)


def tokenizer(connection: apsw.Connection) -> None:
    connection.register_fts5_tokenizer("own", apsw.fts5.UnicodeWordsTokenizer)


@dataclass(frozen=True)
class Case:
    """What a database needs of its application.

    Attributes:
        register: Gives it to a connection.
        sql: Makes the database.
        lacks: What it is called; "" where integrity_check does without it.
        copied: Whether VACUUM INTO does without it.
    """

    register: Register
    sql: str
    lacks: str
    copied: bool = False


CASES = {
    "a column's collation": Case(
        collation,
        "CREATE TABLE t(a TEXT COLLATE own); CREATE INDEX i ON t(a); INSERT INTO t VALUES('x'), ('y')",
        "the collation own",
    ),
    "a key's collation": Case(
        collation,
        "CREATE TABLE t(a TEXT COLLATE own PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO t VALUES('x', 1), ('y', 2)",
        "the collation own",
    ),
    "a function in an index": Case(
        function, "CREATE TABLE t(a); CREATE INDEX i ON t(own(a)); INSERT INTO t VALUES(1), (2)", "the function own"
    ),
    "a function in a partial index": Case(
        function, "CREATE TABLE t(a); CREATE INDEX i ON t(a) WHERE own(a); INSERT INTO t VALUES(1), (2)", "the function own"
    ),
    "a function in a CHECK": Case(function, "CREATE TABLE t(a CHECK(own(a))); INSERT INTO t VALUES(1), (2)", "the function own"),
    "a function in a column": Case(function, "CREATE TABLE t(a, b AS (own(a))); INSERT INTO t VALUES(1), (2)", ""),
    "a function in a stored column": Case(function, "CREATE TABLE t(a, b AS (own(a)) STORED); INSERT INTO t VALUES(1), (2)", ""),
    "a function in a column that is not null": Case(
        function, "CREATE TABLE t(a, b NOT NULL AS (own(a))); INSERT INTO t VALUES(1), (2)", "the function own"
    ),
    "a collation in a column": Case(
        collation, "CREATE TABLE t(a, b AS (a < 'x' COLLATE own)); INSERT INTO t VALUES('w'), ('z')", ""
    ),
    "a tokenizer": Case(
        tokenizer,
        "CREATE VIRTUAL TABLE t USING fts5(a, tokenize='own'); INSERT INTO t VALUES('some words')",
        "the tokenizer own",
        copied=True,
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def database(tmp_path: Path, case: Case) -> Path:
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        case.register(connection)
        connection.execute(case.sql)
        connection.execute("CREATE TABLE other(x UNIQUE); INSERT INTO other VALUES(1)")
        assert connection.pragma("integrity_check") == "ok"
    return tmp_path / "db"


@pytest.fixture
def plain(tmp_path: Path, case: Case) -> Path:
    with closing(apsw.Connection(str(tmp_path / "plain"))) as connection:
        case.register(connection)
        connection.execute(case.sql)
    return tmp_path / "plain"


@pytest.fixture
def known(case: Case) -> Iterator[None]:
    """Do what an application does that wants what it has on every connection."""
    apsw.connection_hooks.append(case.register)
    yield
    apsw.connection_hooks.remove(case.register)


def test_an_intact_database_is_not_called_damaged(database: Path, case: Case) -> None:
    report = check(database, key=KEY)
    assert report.ok
    assert report.integrity == ()
    assert report.missing == ((case.lacks,) if case.lacks else ())
    assert len(report.notes) == len(report.missing)
    assert all(case.lacks in note for note in report.notes)


def test_the_command_names_what_is_missing_and_its_status_is_0(
    database: Path, case: Case, key_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["heliosvfs", "check", str(database), "--key-file", str(key_file)])
    with pytest.raises(SystemExit) as ended:
        run()
    output = capsys.readouterr().out
    assert not ended.value.code
    assert "damaged" not in output
    assert ("all is well" in output) == (not case.lacks)
    assert case.lacks in output
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--json"])
    with pytest.raises(SystemExit):
        run()
    assert json.loads(capsys.readouterr().out)["missing"] == ([case.lacks] if case.lacks else [])


@pytest.mark.usefixtures("known")
def test_in_its_application_everything_is_checked(database: Path) -> None:
    report = check(database, key=KEY)
    assert (report.ok, report.missing, report.notes) == (True, (), ())


def test_a_damaged_page_is_damage_all_the_same(database: Path) -> None:
    with closing(heliosvfs.connect(database, key=KEY)) as connection:
        page = int(connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'other'").get)
    with database.open("r+b") as file:
        file.seek(32768 + (page - 1) * 4096 + 100)
        file.write(b"\xaa" * 8)
    report = check(database, key=KEY)
    assert not report.ok
    assert [bad.page for bad in report.bad_pages] == [page]
    assert report.integrity


@pytest.mark.parametrize("case", [CASES["a column's collation"], CASES["a function in an index"], CASES["a tokenizer"]])
def test_an_index_of_another_table_that_lacks_a_row_is_found_all_the_same(database: Path) -> None:
    with closing(heliosvfs.connect(database, key=KEY)) as connection:
        connection.execute("CREATE TABLE u(a, b); CREATE INDEX j ON u(a); INSERT INTO u VALUES(1, 2)")
        connection.execute(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE INDEX j ON u(b)' WHERE name = 'j'"
        )
    report = check(database, key=KEY)
    assert not report.ok
    assert any("missing from index j" in text for text in report.integrity)
    assert len(report.missing) == 1


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_its_backup_is_made_compared_and_restored(tmp_path: Path, database: Path, case: Case, mode: str) -> None:
    with closing(heliosvfs.connect(database, key=KEY, journal_mode=mode)) as connection:
        case.register(connection)
        made = backup(connection, tmp_path / "copy")
        before = connection.execute("SELECT * FROM t").fetchall()
    assert made.compared == (mode == "wal")
    assert len(made.notes) == bool(case.lacks)
    assert all(case.lacks in note for note in made.notes)
    back = restore(tmp_path / "copy", tmp_path / "new", key=KEY)
    assert (back.digest, back.notes) == (made.digest, made.notes)
    with closing(heliosvfs.connect(tmp_path / "new", key=KEY)) as connection:
        case.register(connection)
        assert connection.execute("SELECT * FROM t").fetchall() == before
        assert connection.pragma("integrity_check") == "ok"


def test_the_command_backs_it_up_and_says_what_it_could_not_check(
    tmp_path: Path,
    database: Path,
    case: Case,
    key_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (["backup", str(database), str(tmp_path / "copy")], ["restore", str(tmp_path / "copy"), str(tmp_path / "new")]):
        monkeypatch.setattr(sys, "argv", ["heliosvfs", *words, "--key-file", str(key_file)])
        with pytest.raises(SystemExit) as ended:
            run()
        assert not ended.value.code
        assert case.lacks in capsys.readouterr().out


def test_the_digest_is_the_same_whether_it_is_known_or_not(tmp_path: Path, database: Path, case: Case) -> None:
    with closing(heliosvfs.connect(database, key=KEY)) as connection:
        without = backup(connection, tmp_path / "one").digest
        apsw.connection_hooks.append(case.register)
        try:
            assert backup(connection, tmp_path / "two").digest == without
        finally:
            apsw.connection_hooks.remove(case.register)


def test_a_row_that_differs_is_seen_in_a_table_that_only_its_application_can_order(tmp_path: Path) -> None:
    contents = []
    for number, value in enumerate((1, 1, 2)):
        with closing(apsw.Connection(str(tmp_path / str(number)))) as connection:
            collation(connection)
            connection.execute("CREATE TABLE t(a TEXT COLLATE own PRIMARY KEY, b) WITHOUT ROWID")
            connection.execute("INSERT INTO t VALUES('x', 1), ('y', ?)", (value,))
        with closing(apsw.Connection(str(tmp_path / str(number)))) as connection:
            contents.append(Content.of(connection))
            with pytest.raises(apsw.SQLError, match="no such collation"):  # what stood in for it has gone
                connection.execute("INSERT INTO t VALUES('z', 1)")
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]
    assert contents[0].rows == {"t": 2}


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["heliosvfs", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        run()
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("case", [case for case in CASES.values() if not case.copied])
@pytest.mark.parametrize("what", ["encrypt", "decrypt"])
def test_a_conversion_names_what_is_missing_and_who_can_do_it(
    tmp_path: Path,
    database: Path,
    plain: Path,
    case: Case,
    what: str,
    key_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = plain if what == "encrypt" else database
    before = sorted(os.listdir(tmp_path))
    lacks = "the collation own" if case.register is collation else "the function own"
    with pytest.raises(heliosvfs.UsageError, match=rf"without {lacks}, .*heliosvfs\.convert, .*apsw\.connection_hooks"):
        (encrypt if what == "encrypt" else decrypt)(source, tmp_path / "out", key=KEY)
    status, errors = command(monkeypatch, capsys, what, source, tmp_path / "out", "--key-file", key_file)
    assert (status, len(errors.splitlines())) == (2, 1)
    assert lacks in errors
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.usefixtures("known")
def test_its_application_converts_it_there_and_back(tmp_path: Path, plain: Path, case: Case) -> None:
    encrypt(plain, tmp_path / "sealed", key=KEY)
    decrypt(tmp_path / "sealed", tmp_path / "back", key=KEY)
    contents = []
    for path in (plain, tmp_path / "back"):
        with closing(apsw.Connection(str(path))) as connection:
            contents.append(connection.execute("SELECT * FROM t").fetchall())
            assert connection.pragma("integrity_check") == "ok"
    assert contents[0] == contents[1] != []
    assert case.sql


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.copied])
def test_what_sqlite_copies_without_it_is_converted_without_it(tmp_path: Path, plain: Path) -> None:
    assert encrypt(plain, tmp_path / "sealed", key=KEY).pages
    assert decrypt(tmp_path / "sealed", tmp_path / "back", key=KEY).pages


@pytest.fixture
def hiding(tmp_path: Path) -> Path:
    """A database whose tables have the names of SQLite's PRAGMA functions, which they hide."""
    with closing(sqlite3.connect(tmp_path / "hiding")) as connection:
        for name in ("table_xinfo", "table_list", "index_list", "index_xinfo", "table_info"):
            connection.execute(f"CREATE TABLE pragma_{name}(a, b UNIQUE)")
            connection.execute(f"INSERT INTO pragma_{name} VALUES(1, ?)", (name,))
        connection.execute("CREATE TABLE w(a, b, PRIMARY KEY(b, a)) WITHOUT ROWID")
        connection.execute("INSERT INTO w VALUES(1, 2)")
        connection.execute("""CREATE TABLE "a ""quoted"" 'name'"(x AS (y), y)""")
        connection.execute("""INSERT INTO "a ""quoted"" 'name'" VALUES(7)""")
        connection.commit()
    return tmp_path / "hiding"


def test_tables_named_like_functions_of_sqlite_are_copied_and_salvaged(tmp_path: Path, hiding: Path) -> None:
    names = {f"pragma_{name}" for name in ("table_xinfo", "table_list", "index_list", "index_xinfo", "table_info")}
    report = encrypt(hiding, tmp_path / "sealed", key=KEY)
    assert report.tables == dict.fromkeys([*names, "w", "a \"quoted\" 'name'"], 1)
    assert check(tmp_path / "sealed", key=KEY).ok
    with closing(heliosvfs.connect(tmp_path / "sealed", key=KEY)) as connection:
        assert backup(connection, tmp_path / "copy").pages
    saved = salvage(tmp_path / "sealed", tmp_path / "saved", key=KEY)
    assert (saved.complete, saved.tables) == (True, report.tables)
    for name in ("sealed", "copy", "saved"):
        assert decrypt(tmp_path / name, tmp_path / f"{name}.plain", key=KEY).tables == report.tables


def test_what_was_restored_is_compared_with_its_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup is in rollback mode, and was not compared: each page was opened, and no row looked at."""
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        backup(connection, tmp_path / "copy")
    original = Content.of

    def of(connection: apsw.Connection) -> Content:
        content = original(connection)
        return content if connection.db_filename("main").endswith("copy") else replace(content, rows={"t": 2})

    monkeypatch.setattr(Content, "of", of)
    with pytest.raises(heliosvfs.TamperedError, match="not equal to its source"):
        restore(tmp_path / "copy", tmp_path / "new", key=KEY)
    assert not list(tmp_path.glob("new*"))
