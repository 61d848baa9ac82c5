"""`heliosvfs demo --from`: whatever a plain database holds, what the demonstration claims holds."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs.cli.demo import _forms, _texts

SOURCES = {
    "text that is not UTF-8": "CREATE TABLE t(x); INSERT INTO t VALUES(CAST(x'ff61626364656667' AS TEXT)), (CAST(x'c3' AS TEXT))",
    "UTF-16, half a surrogate pair, large pages": (
        "PRAGMA page_size = 65536; PRAGMA encoding = 'UTF-16le'; CREATE TABLE t(x);"
        "INSERT INTO t VALUES('sixteen bits'), (CAST(x'00d861006200630064006500' AS TEXT))"
    ),
    "names that the demonstration would take": (
        "CREATE TABLE HeliosVFS_demo(text UNIQUE); INSERT INTO HeliosVFS_demo VALUES('what was here before');"
        "CREATE VIEW heliosvfs_demo_2 AS SELECT 1 AS text; CREATE INDEX heliosvfs_demo_3 ON HeliosVFS_demo(text)"
    ),
    "views alone, one by that name": "CREATE VIEW heliosvfs_demo AS SELECT 1; CREATE VIEW broken AS SELECT * FROM nowhere",
    "tables of every kind, small pages": (
        "PRAGMA page_size = 512; PRAGMA auto_vacuum = FULL; CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID;"
        "INSERT INTO w VALUES('a key of text', 1); CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES('words to find');"
        "CREATE VIRTUAL TABLE r USING rtree(i, a, b); INSERT INTO r VALUES(1, 2, 3);"
        "CREATE TABLE g(a, virtual AS (a || '!'), stored AS (a || '?') STORED); INSERT INTO g(a) VALUES('generated from this');"
        """CREATE TABLE "odd ""one'; --"("a ""column"); INSERT INTO "odd ""one'; --" VALUES('text in an odd table')"""
    ),
    "a large blob, text of nothing but zeros": (
        "CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(20000000)), (CAST(zeroblob(99) AS TEXT)), ('heliosvfs'), ('SQLite 3')"
    ),
}


def demo(source: Path, *options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "heliosvfs", "demo", "--from", source, *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", SOURCES.values(), ids=SOURCES)
def test_the_demonstration_holds_for(tmp_path: Path, script: str) -> None:
    source = tmp_path / "source.db"
    with closing(sqlite3.connect(source)) as connection:
        connection.executescript(script)
    before = source.read_bytes()
    source.chmod(0o444)
    done = demo(source)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "All of that held" in done.stdout
    assert source.read_bytes() == before


def test_what_is_in_the_wal_alone_is_copied_and_looked_for(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "source.db")) as connection:
        connection.executescript("PRAGMA journal_mode = wal; CREATE TABLE t(x); INSERT INTO t VALUES('in the WAL alone')")
        done = demo(tmp_path / "source.db")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "None of 2 text values" in done.stdout


def test_of_very_much_text_some_is_looked_for(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "source.db")) as connection:
        connection.execute("CREATE TABLE t(x, y)")
        connection.executemany("INSERT INTO t VALUES(?, zeroblob(400))", ((f"the text number {n}",) for n in range(30_000)))
        connection.commit()
    done = demo(tmp_path / "source.db")
    assert done.returncode == 0, done.stdout + done.stderr
    looked, of = map(int, re.findall(r"None of (\d+) text values \(one in (\d+)\)", done.stdout)[0])
    assert looked * of >= 30_000
    assert looked > 300


@pytest.mark.parametrize(("old", "new"), [(b"a default", b"a \xffefault"), (b"nameless", b"name\xffess")])
def test_a_schema_that_is_not_utf_8_is_one_line_and_leaves_no_folder(tmp_path: Path, old: bytes, new: bytes) -> None:
    with closing(sqlite3.connect(tmp_path / "source.db")) as connection:
        connection.execute("CREATE TABLE nameless(x DEFAULT 'a default')")
    (tmp_path / "source.db").write_bytes((tmp_path / "source.db").read_bytes().replace(old, new))
    done = demo(tmp_path / "source.db", "--keep", tmp_path / "kept")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "not valid UTF-8" in done.stderr
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_text_is_looked_for_as_it_is_stored_and_in_utf_8(tmp_path: Path, encoding: str) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=bytes(32), encoding=encoding)) as connection:
        connection.execute("CREATE TABLE t(x, g AS (x || ' that is computed')); CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID")
        connection.execute("INSERT INTO t VALUES('Grüße aus Köln'), ('ab'), (1234567890), (zeroblob(50)), (?)", ("long" * 5000,))
        connection.execute("INSERT INTO t VALUES(CAST(x'ff6162636465666768' AS TEXT)); INSERT INTO w VALUES('a key of text')")
        forms = {form for text in _texts(connection) for form in _forms(text, encoding)}
    codec = encoding.lower()
    assert {text.encode(codec) for text in ("Grüße aus Köln", "a key of text")} <= forms
    assert {text.encode() for text in ("Grüße aus Köln", "a key of text")} <= forms
    assert ("long" * 16).encode(codec)[:64] in forms
    assert encoding != "UTF-8" or b"\xffabcdefgh" in forms
    assert not any(b"1234567890" in form or "comp".encode(codec) in form for form in forms)
