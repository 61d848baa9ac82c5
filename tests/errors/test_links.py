"""Databases behind symbolic links: their WAL and journal lie beside the file itself, and no command passes over them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs import convert
from heliosvfs.backup import backup, restore
from heliosvfs.check import check
from heliosvfs.convert import decrypt, encrypt
from heliosvfs.salvage import salvage

KEY = bytes(range(32))
NOBODY = 65534

# what a writer leaves that is killed: rows that were not committed in the file, and those they replaced in the journal
HOT = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("CREATE TABLE t(x)")
connection.execute("WITH RECURSIVE g(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < 300) INSERT INTO t SELECT 'x' || hex(zeroblob(200)) FROM g")
connection.execute("PRAGMA cache_size = 2")
connection.execute("BEGIN")
connection.execute("UPDATE t SET x = 'UNCOMMITTED' || substr(x, 12)")
os._exit(0)
"""  # noqa: E501 - a statement
# a committed row that only the WAL has
WAL = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = wal")
connection.execute("CREATE TABLE t(x)")
connection.execute("INSERT INTO t VALUES('old')")
connection.execute("PRAGMA wal_checkpoint(truncate)")
connection.execute("INSERT INTO t VALUES('new')")
os._exit(0)
"""


@pytest.fixture
def real(tmp_path: Path) -> Path:
    (tmp_path / "real").mkdir()
    return tmp_path / "real"


def linked(real: Path, what: str) -> Path:
    """Return a way to the database through a link: to the file, to a link to it, or to its folder."""
    top = real.parent
    if what == "folder":
        (top / "folder").symlink_to("real")
        return top / "folder" / "db"
    (top / "link").symlink_to("real/db")
    if what == "file":
        return top / "link"
    (top / "second").symlink_to("link")
    return top / "second"


def left_by(program: str, path: Path) -> None:
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


@pytest.mark.parametrize("what", ["file", "link", "folder"])
def test_a_plain_database_with_a_hot_journal_is_refused_through_a_link_too(tmp_path: Path, real: Path, what: str) -> None:
    left_by(HOT, real / "db")
    assert b"UNCOMMITTED" in (real / "db").read_bytes()
    before = {path.name: path.read_bytes() for path in real.iterdir()}
    with pytest.raises(heliosvfs.UsageError, match="was not closed properly"):
        encrypt(linked(real, what), tmp_path / "out", key=KEY)
    assert {path.name: path.read_bytes() for path in real.iterdir()} == before
    assert not list(tmp_path.glob("out*"))


def test_a_plain_database_that_asks_for_recovery_is_never_taken_as_it_is(
    tmp_path: Path, real: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if its journal is not found: what SQLite says is reason enough."""
    left_by(HOT, real / "db")
    monkeypatch.setattr(convert, "_BESIDE", ())
    with pytest.raises(heliosvfs.UsageError, match="was not closed properly"):
        encrypt(real / "db", tmp_path / "out", key=KEY)


def test_a_plain_database_is_encrypted_with_what_its_wal_holds_through_a_link_too(tmp_path: Path, real: Path) -> None:
    left_by(WAL, real / "db")
    encrypt(linked(real, "file"), tmp_path / "out", key=KEY)
    with closing(heliosvfs.connect(tmp_path / "out", key=KEY)) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [("old",), ("new",)]


@pytest.fixture
def medium() -> Iterator[Path]:
    """A folder that others may read and not write, in one that they may write; pytest's own are closed to other users."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        for folder, rights in (("real", 0o755), ("link", 0o755), ("out", 0o777)):
            (top / folder).mkdir()
            (top / folder).chmod(rights)
        (top / "link" / "db").symlink_to("../real/db")
        yield top / "real"
        (top / "real").chmod(0o755)


def encrypted_by_nobody(medium: Path, source: Path) -> subprocess.CompletedProcess[str]:
    """Encrypt a database as a user without any rights."""
    medium.chmod(0o555)
    out = medium.parent / "out" / "new"
    program = f"""
import os, heliosvfs, _strptime
from heliosvfs.convert import encrypt
if os.getuid() == 0:
    os.setuid({NOBODY})
try:
    report = encrypt({str(source)!r}, {str(out)!r}, key=bytes(range(32)))
except heliosvfs.UsageError as error:
    print(error)
else:
    print(report.tables)
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="permissions of POSIX")
@pytest.mark.parametrize("way", ["real", "link"])
def test_a_wal_that_can_not_be_recovered_is_never_passed_over(medium: Path, way: str) -> None:
    left_by(WAL, medium / "db")
    (medium / "db-shm").unlink()
    done = encrypted_by_nobody(medium, medium.parent / way / "db")
    assert "was not closed properly" in done.stdout, done.stderr
    assert not list((medium.parent / "out").iterdir())


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="permissions of POSIX")
@pytest.mark.parametrize("way", ["real", "link"])
def test_a_wal_database_that_was_closed_is_read_from_a_medium_that_can_not_be_written(medium: Path, way: str) -> None:
    left_by(WAL, medium / "db")
    with closing(sqlite3.connect(medium / "db")) as connection:
        connection.execute("SELECT * FROM t").fetchall()
    assert [path.name for path in medium.iterdir()] == ["db"]
    done = encrypted_by_nobody(medium, medium.parent / way / "db")
    assert done.stdout == "{'t': 2}\n", done.stderr


def unfinished(folder: Path, mode: str) -> None:
    """Leave an encrypted database as a crash leaves it: a row committed in the WAL, or a journal to be rolled back."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "db"
        with closing(heliosvfs.connect(path, key=KEY, journal_mode=mode)) as connection:
            connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES('one')")
            connection.pragma("wal_checkpoint", "TRUNCATE")
            if mode == "wal":
                connection.execute("INSERT INTO t VALUES('two')")
            else:
                connection.execute("INSERT INTO t VALUES('two'); PRAGMA cache_size = 2; BEGIN; UPDATE t SET x = 'not committed'")
                connection.execute("INSERT INTO t SELECT zeroblob(60000)")
            for file in Path(name).iterdir():
                if not file.name.endswith("-shm"):
                    shutil.copy(file, folder)
            if mode != "wal":
                connection.execute("ROLLBACK")


def rows(path: Path) -> list[object]:
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        return [x for (x,) in connection.execute("SELECT x FROM t")]


def backed_up(source: Path, dest: Path) -> None:
    with closing(heliosvfs.connect(source, key=KEY, create=False)) as connection:
        backup(connection, dest)


def decrypted(source: Path, dest: Path) -> None:
    decrypt(source, dest.with_name("plain"), key=KEY)
    encrypt(dest.with_name("plain"), dest, key=KEY)


COPIES: dict[str, Callable[[Path, Path], object]] = {
    "decrypt": decrypted,
    "backup": backed_up,
    "restore": lambda source, dest: restore(source, dest, key=KEY),
    "salvage": lambda source, dest: salvage(source, dest, key=KEY),
}


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_made_through_a_link_has_what_wal_and_journal_say(
    tmp_path: Path, real: Path, copy: str, mode: str, what: str
) -> None:
    unfinished(real, mode)
    COPIES[copy](linked(real, what), tmp_path / "out")
    assert rows(tmp_path / "out") == ["one", "two"]


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_check_finds_wal_and_journal_through_a_link(real: Path, mode: str, what: str) -> None:
    unfinished(real, mode)
    report = check(linked(real, what), key=KEY)
    assert (report.ok, report.wal_frames > 0, report.hot_journal) == (True, mode == "wal", mode == "delete")


def test_info_reads_the_database_that_a_link_leads_to(real: Path, key_file: Path) -> None:
    unfinished(real, "delete")
    command = [sys.executable, "-m", "heliosvfs", "info", "--key-file", str(key_file), "--json"]
    direct, through = (
        json.loads(subprocess.run([*command, str(path)], capture_output=True, check=True).stdout)
        for path in (real / "db", linked(real, "file"))
    )
    assert direct | {"file": ""} == through | {"file": ""}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_lands_where_the_system_says_that_its_name_leads(tmp_path: Path, real: Path, copy: str) -> None:
    """`link/../out` is beside what the link leads to."""
    (real / "deep").mkdir()
    (tmp_path / "link").symlink_to("real/deep")
    unfinished(real, "wal")
    COPIES[copy](real / "db", tmp_path / "link" / ".." / "out")
    assert rows(real / "out") == ["one", "two"]
    assert not [path.name for path in (*tmp_path.iterdir(), *real.iterdir()) if path.suffix == ".partial"]
    assert not (tmp_path / "out").exists()
