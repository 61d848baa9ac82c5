"""A copy that is not equal to its source never gets its name.

Each copy here is altered for real, when SQLite has written all of it and before it is proven: there the progress callback is
called.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.convert import ConvertReport, decrypt, encrypt

KEY = bytes(range(32))
PAGE = 4096
FIRST_PAGE = 32768
CONTENT = """
CREATE TABLE t(id INTEGER PRIMARY KEY, x, y AS (x || 'y') STORED);
CREATE INDEX t_x ON t(x);
CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE free(x);
INSERT INTO t(x) VALUES('one'), (2), (3.5), (x'04'), (NULL);
INSERT INTO w VALUES('a', 1), ('b', 2);
INSERT INTO free VALUES('a'), ('b');
"""
ALTERATIONS = {
    "a value": ("UPDATE t SET x = 'two' WHERE id = 1", "tables differ: t;"),
    "the type of a value": ("UPDATE t SET x = '2' WHERE id = 2", "tables differ: t;"),
    "a blob that was text": ("UPDATE t SET x = CAST(x AS BLOB) WHERE id = 1", "tables differ: t;"),
    "a row that is gone": ("DELETE FROM t WHERE id = 5", "tables differ: t;"),
    "a row too many": ("INSERT INTO t(x) VALUES('six')", "tables differ: t;"),
    "a rowid": ("UPDATE free SET rowid = 7 WHERE x = 'b'", "tables differ: free;"),
    "a table without rowids": ("UPDATE w SET v = 3 WHERE k = 'b'", "tables differ: w;"),
    "an index": ("DROP INDEX t_x", "the schema differs;"),
    "a table": ("CREATE TABLE another(x)", "the schema differs;"),
    "the user version": ("PRAGMA user_version = 5", "settings .* became .*'user_version': 5"),
    "the application id": ("PRAGMA application_id = 5", "settings .* became .*'application_id': 5"),
}


class Altering:
    """A progress callback that alters the copy: so little is copied that it is called but once, when all of it is there."""

    def __init__(self, alter: Callable[[], None]) -> None:
        self.calls: list[tuple[int, int]] = []
        self._alter = alter

    def __call__(self, pages: int, expected: int) -> None:
        self.calls.append((pages, expected))
        self._alter()


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "plain.db")) as connection:
        connection.executescript(f"PRAGMA page_size = {PAGE}; {CONTENT}")
    return tmp_path / "plain.db"


@pytest.fixture
def sealed(plain: Path, tmp_path: Path) -> Path:
    encrypt(plain, tmp_path / "sealed.db", key=KEY)
    return tmp_path / "sealed.db"


@pytest.mark.parametrize("what", ALTERATIONS)
@pytest.mark.parametrize("direction", ["encrypt", "decrypt"])
def test_a_copy_that_differs_is_refused_and_removed(plain: Path, sealed: Path, tmp_path: Path, direction: str, what: str) -> None:
    sql, message = ALTERATIONS[what]

    def alter() -> None:
        partial = tmp_path / "copy.db.partial"
        with closing(apsw.Connection(str(partial)) if direction == "decrypt" else heliosvfs.connect(partial, key=KEY)) as copy:
            copy.execute(sql)

    altering = Altering(alter)
    convert, source = (encrypt, plain) if direction == "encrypt" else (decrypt, sealed)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(heliosvfs.TamperedError, match=f"is not equal to it: {message}.* it was removed"):
        convert(source, tmp_path / "copy.db", key=KEY, progress=altering)
    assert len(altering.calls) == 1
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert convert(source, tmp_path / "copy.db", key=KEY).pages


def test_an_encrypted_copy_with_a_page_that_does_not_open_is_refused_and_removed(plain: Path, tmp_path: Path) -> None:
    """No row is in that page: it is of an index, which a comparison of rows never reads."""
    partial = tmp_path / "copy.db.partial"

    def alter() -> None:
        with closing(heliosvfs.connect(partial, key=KEY)) as copy:
            root = copy.execute("SELECT rootpage FROM sqlite_schema WHERE name = 't_x'").get
        sealed = bytearray(partial.read_bytes())
        sealed[FIRST_PAGE + (root - 1) * PAGE + 100] ^= 1
        partial.write_bytes(sealed)

    before, altering = plain.read_bytes(), Altering(alter)
    with pytest.raises(heliosvfs.TamperedError, match=r"does not pass its check: .*index t_x"):
        encrypt(plain, tmp_path / "copy.db", key=KEY, progress=altering)
    assert len(altering.calls) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["plain.db"]
    assert plain.read_bytes() == before


@pytest.mark.parametrize("convert", [encrypt, decrypt])
def test_a_copy_whose_index_lacks_an_entry_is_refused_and_removed(
    plain: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    """Each of its pages opens, and each row is there: only integrity_check tells."""
    source = plain
    if convert is decrypt:
        source = tmp_path / "sealed.db"
        encrypt(plain, source, key=KEY)
    partial = tmp_path / "copy.db.partial"

    def alter() -> None:
        opened = apsw.Connection(str(partial)) if convert is decrypt else heliosvfs.connect(partial, key=KEY)
        with closing(opened) as copy:
            sql = copy.execute("SELECT sql FROM sqlite_schema WHERE name = 't_x'").get
            copy.execute("PRAGMA writable_schema = on")
            copy.execute("UPDATE sqlite_schema SET sql = sql || ' WHERE x > 2' WHERE name = 't_x'")
            copy.execute("PRAGMA writable_schema = reset; REINDEX t_x; PRAGMA writable_schema = on")
            copy.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 't_x'", (sql,))

    before, altering = {file.name: file.read_bytes() for file in tmp_path.iterdir()}, Altering(alter)
    with pytest.raises(heliosvfs.TamperedError, match=r"does not pass its check: .*missing from index t_x"):
        convert(source, tmp_path / "copy.db", key=KEY, progress=altering)
    assert len(altering.calls) == 1
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
