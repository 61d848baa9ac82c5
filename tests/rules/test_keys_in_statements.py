"""Rule 14: PRAGMA key acts while a statement is prepared, and may be prepared more than once.

Its text stays in APSW's statement cache, unless it comes through `heliosvfs.dbapi2` (docs/COMPATIBILITY.md).
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.vfs import files_of
from tests.rules.conftest import KEY

RAW = f"\"x'{KEY.hex()}'\""
OTHER = f"\"x'{bytes(32).hex()}'\""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    return tmp_path / "db"


@pytest.mark.parametrize(
    "pragma",
    [
        f"PRAGMA key = {RAW}",
        f"PRAGMA key({RAW})",
        f"pragma KEY = {RAW}",
        f"PRAGMA main.key = {RAW}",
        f"EXPLAIN PRAGMA key = {RAW}",
        f"EXPLAIN QUERY PLAN PRAGMA key = {RAW}",
        f"/* first */ PRAGMA key = {RAW} -- last",
        f"PRAGMA key = {RAW}; PRAGMA key = {RAW}",
    ],
)
def test_a_key_is_taken_however_the_pragma_is_written(path: Path, pragma: str) -> None:
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection:
        connection.execute(pragma).fetchall()
        assert connection.execute("SELECT x FROM t").get == 1


def test_a_wrong_key_locks_nobody_out_and_lets_nobody_in(path: Path) -> None:
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection:
        with pytest.raises(heliosvfs.WrongKeyError):
            connection.execute(f"PRAGMA key = {OTHER}")
        with pytest.raises((heliosvfs.KeyUnavailableError, heliosvfs.WrongKeyError)):
            connection.execute("SELECT x FROM t")
        connection.execute(f"PRAGMA key = {RAW}")
        assert connection.execute("SELECT x FROM t").get == 1
        with pytest.raises(heliosvfs.WrongKeyError):
            connection.execute(f"PRAGMA key = {OTHER}")
        assert connection.execute("SELECT x FROM t").get == 1


def test_rekey_twice_changes_the_key_once(path: Path) -> None:
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection:
        connection.execute(f"PRAGMA key = {RAW}")
        connection.execute(f"EXPLAIN PRAGMA rekey = {OTHER}").fetchall()
        after = path.read_bytes()
        connection.execute(f"PRAGMA rekey = {OTHER}").fetchall()
        assert path.read_bytes() == after
    with closing(heliosvfs.connect(path, key=bytes(32))) as connection:
        assert len(connection.list_keys()) == 1
    with pytest.raises(heliosvfs.WrongKeyError):
        heliosvfs.connect(path, key=KEY)


def test_rekey_without_the_key_changes_nothing(path: Path) -> None:
    before = path.read_bytes()
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection, pytest.raises(heliosvfs.KeyUnavailableError):
        connection.execute(f"PRAGMA rekey = {OTHER}")
    assert path.read_bytes() == before


def test_a_key_in_the_middle_of_a_first_transaction_does_not_mix_two(tmp_path: Path) -> None:
    """Journal and first pages belong together; whichever key holds in the end, it opens all."""
    path = tmp_path / "new"
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection:
        connection.execute(f"PRAGMA key = {RAW}")
        connection.pragma("cache_size", 2)
        try:
            connection.execute("BEGIN; CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(20000))")
            connection.execute(f"PRAGMA key = {OTHER}")
        except heliosvfs.HeliosError:
            pass
        connection.execute("INSERT INTO t VALUES(zeroblob(20000)); COMMIT")
        assert connection.execute("SELECT sum(length(x)) FROM t").get == 40000
    opened = 0
    for key in (KEY, bytes(32)):
        try:
            with closing(heliosvfs.connect(path, key=key, create=False)) as connection:
                assert connection.execute("SELECT sum(length(x)) FROM t").get == 40000
                opened += 1
        except heliosvfs.WrongKeyError:
            continue
    assert opened == 1


def test_an_error_about_a_key_does_not_repeat_the_statement(path: Path) -> None:
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection:
        for pragma in ("PRAGMA key = 'a secret phrase'", "PRAGMA key = \"x'deadbeef'\"", "PRAGMA rekey = 'a secret phrase'"):
            with pytest.raises(heliosvfs.HeliosError) as caught:
                connection.execute(pragma)
            assert "secret" not in str(caught.value)
            assert "deadbeef" not in str(caught.value)


@pytest.mark.parametrize("size", ["²", "'4096 '", "0x1000", "abc", "-1", "4097"])
def test_a_page_size_that_is_no_number_is_no_crash(path: Path, size: str) -> None:
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        try:
            connection.execute(f'PRAGMA page_size = "{size}"').fetchall()
        except (heliosvfs.UsageError, apsw.SQLError):
            return
        connection.execute("INSERT INTO t VALUES(2)")
        assert connection.pragma("page_size") == 4096


def test_a_locked_file_can_not_be_locked(path: Path) -> None:
    """Without a key SQLite gets no lock, and so never comes to look for a journal or a WAL."""
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection:
        file = files_of(connection)[0]
        for level in (apsw.SQLITE_LOCK_SHARED, apsw.SQLITE_LOCK_EXCLUSIVE):
            with pytest.raises(heliosvfs.KeyUnavailableError):
                file.xLock(level)
        for look in (lambda: file.xRead(4096, 0), file.xFileSize, lambda: file.xWrite(bytes(4096), 0), lambda: file.xTruncate(0)):
            with pytest.raises(heliosvfs.KeyUnavailableError):
                look()
        for suffix in ("-wal", "-journal"):
            path.with_name(f"db{suffix}").write_bytes(b"recovery data")
            with pytest.raises(heliosvfs.KeyUnavailableError):
                heliosvfs._default_vfs.xDelete(f"{path}{suffix}", False)
            assert path.with_name(f"db{suffix}").exists()
