"""What `.dump` writes, here or in another shell, `heliosvfs shell --create` takes: equal content, and an exit status of 0."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs

KEY = bytes(range(32))
SCRIPT = """
CREATE TABLE p(id INTEGER PRIMARY KEY AUTOINCREMENT, x, g AS (quote(x))); CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p);
CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID; CREATE INDEX i ON p(x); CREATE VIEW v AS SELECT x FROM p;
CREATE TABLE "odd ""one'"("a ""column" TEXT); CREATE VIRTUAL TABLE f USING fts5(a);
CREATE TRIGGER t AFTER INSERT ON c BEGIN INSERT INTO w VALUES(new.id, 'by the trigger'); END;
INSERT INTO p(x) VALUES('it''s'), ('two
lines; -- and'), (x'00ff'), (0.1), (9223372036854775807), (NULL), ('ünï€😀'), ('');
INSERT INTO c VALUES(1, 2); INSERT INTO "odd ""one'" VALUES('a'); INSERT INTO f VALUES('hello world'); DELETE FROM p WHERE id = 8;
"""


def run(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def content(connection: object) -> list[object]:
    """Return all rows and the schema, through sqlite3 or APSW."""
    execute = connection.execute
    names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name"
    tables = [name for (name,) in execute(names).fetchall()]
    quoted = ['"' + name.replace('"', '""') + '"' for name in tables]
    return [
        sorted(map(repr, execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall())),
        {name: sorted(map(repr, execute(f"SELECT * FROM {name}").fetchall())) for name in quoted},
        execute("SELECT * FROM f WHERE f MATCH 'hello'").fetchall(),
        execute("PRAGMA integrity_check").fetchall(),
    ]


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("shell", ["heliosvfs", "apsw", "sqlite3"])
def test_a_dump_is_taken(tmp_path: Path, key_file: Path, shell: str, page_size: int) -> None:
    plain, sealed, new = tmp_path / "plain.db", tmp_path / "sealed.db", tmp_path / "new.db"
    with closing(sqlite3.connect(plain)) as connection:
        connection.executescript(f"PRAGMA page_size = {page_size}; {SCRIPT}")
        expected = content(connection)
    if shell == "heliosvfs":
        assert run("heliosvfs", "encrypt", plain, sealed, "--key-file", key_file).returncode == 0
        dump = run("heliosvfs", "shell", sealed, ".dump", "--key-file", key_file)
    elif shell == "apsw":
        dump = run("apsw", plain, ".dump")
    elif shutil.which("sqlite3") is None:
        pytest.skip("SQLite's own shell is not installed")
    else:
        dump = subprocess.run(["sqlite3", str(plain), ".dump"], capture_output=True, text=True, check=False)
    assert dump.returncode == 0, dump.stderr
    done = run("heliosvfs", "shell", "--create", new, "--key-file", key_file, stdin=dump.stdout)
    assert done.returncode == 0, done.stderr
    told = shell != "sqlite3" and page_size != 4096
    assert done.stderr == (f"-- pages of {page_size} bytes are not made: this database has pages of 4096 bytes\n" if told else "")
    with closing(heliosvfs.connect(new, key=KEY)) as connection:
        assert content(connection) == expected


def test_a_dump_is_taken_by_read_and_into_a_database_with_an_audit_log(tmp_path: Path, key_file: Path) -> None:
    (tmp_path / "dump.sql").write_text("PRAGMA page_size=512;\nBEGIN TRANSACTION;\nCREATE TABLE t(x);\nCOMMIT TRANSACTION;\n")
    heliosvfs.connect(tmp_path / "db", key=KEY, audit=heliosvfs.audit.Policy()).close()
    done = run(
        "heliosvfs", "shell", tmp_path / "db", f".read {tmp_path / 'dump.sql'}", "SELECT count(*) FROM t", "--key-file", key_file
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_the_page_size_of_a_database_with_content_is_refused_as_ever(tmp_path: Path, key_file: Path) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x)")
    done = run("heliosvfs", "shell", tmp_path / "db", "--key-file", key_file, stdin="PRAGMA page_size = 512;\nVACUUM;\n")
    assert done.returncode == 1
    assert "fixed when an encrypted database is created" in done.stderr
