"""Rule 6: a file becomes a database in one order only, and nobody makes it twice."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.superblock import COPY_SIZE, MAGIC
from heliosvfs.vfs import files_of
from tests.rules.conftest import KEY
from tests.rules.observing import observed

OTHER_KEY = bytes(range(1, 33))
SUPERBLOCK = 2 * COPY_SIZE


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "memory", "off", "wal"])
@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_both_copies_are_durable_before_the_first_page(tmp_path: Path, mode: str, page_size: int) -> None:
    with observed() as (base, vfs):
        heliosvfs.connect(tmp_path / "db", key=KEY, vfs=vfs, journal_mode=mode, page_size=page_size).close()
        steps = [(event.what, event.offset) for event in base.writes()]
    first_page = next(n for n, (what, offset) in enumerate(steps) if what == "write" and offset >= SUPERBLOCK)
    assert steps[:first_page] == [("write", 0), ("sync", 0), ("write", COPY_SIZE), ("sync", 0)]
    assert steps[first_page][1] == max(SUPERBLOCK, page_size)


@pytest.mark.parametrize("page_size", [512, 4096])
def test_the_first_page_written_may_be_another_than_page_1(tmp_path: Path, page_size: int) -> None:
    """A small cache spills the first transaction before it commits; the pages before it are filled with sealed zeros."""
    keyring = heliosvfs.Keyring(default=KEY)
    with observed(keyring) as (base, vfs):
        with closing(apsw.Connection(str(tmp_path / "db"), vfs=vfs)) as connection:
            connection.pragma("page_size", page_size)
            connection.pragma("cache_size", 1)
            connection.execute("BEGIN; CREATE TABLE t(x); INSERT INTO t SELECT zeroblob(100000); COMMIT")
            assert connection.execute("SELECT sum(length(x)) FROM t").get == 100000
        pages = [event.offset for event in base.writes() if event.what == "write" and event.offset >= SUPERBLOCK]
    assert pages[:3] == [SUPERBLOCK + n * page_size for n in range(3)]
    assert pages.count(SUPERBLOCK) == 2
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        assert connection.pragma("page_size") == page_size
        assert connection.pragma("integrity_check") == "ok"


def interrupted(size: int, whole: bytes) -> dict[str, bytes]:
    """Return what a creation can have left when it was cut off: never a whole copy, never more than both copies."""
    return {
        "the beginning": whole[:size],
        "zeros": bytes(size),
        "the beginning, then zeros": whole[: size // 2].ljust(size, b"\0"),
    }


@pytest.mark.parametrize("size", [1, 20, 600, COPY_SIZE - 1])
@pytest.mark.parametrize("what", ["the beginning", "zeros", "the beginning, then zeros"])
def test_an_interrupted_creation_is_begun_again(tmp_path: Path, size: int, what: str) -> None:
    heliosvfs.connect(tmp_path / "whole", key=OTHER_KEY).close()
    path = tmp_path / "db"
    path.write_bytes(interrupted(size, (tmp_path / "whole").read_bytes())[what])
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x)")
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert connection.pragma("integrity_check") == "ok"


@pytest.mark.parametrize("size", [0, 1, 600, COPY_SIZE - 1, SUPERBLOCK])
def test_without_create_an_empty_file_is_an_error_and_stays_as_it_is(tmp_path: Path, size: int) -> None:
    heliosvfs.connect(tmp_path / "whole", key=KEY).close()
    path = tmp_path / "db"
    content = bytearray((tmp_path / "whole").read_bytes()[:size])
    if size == SUPERBLOCK:
        content[100] ^= 1
        content[COPY_SIZE + 100] ^= 1
    path.write_bytes(content)
    for readonly in (False, True):
        with pytest.raises(heliosvfs.FormatError, match="empty"):
            heliosvfs.connect(path, key=KEY, create=False, readonly=readonly)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.glob("db*")] == ["db"]


def test_without_create_a_missing_file_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(heliosvfs.UsageError, match="does not exist"):
        heliosvfs.connect(tmp_path / "db", key=KEY, create=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"SQLite format 3\0".ljust(4096, b"\0"), heliosvfs.FormatError),
        (b"\x7fELF".ljust(5000, b"x"), heliosvfs.FormatError),
        (b"xy", heliosvfs.FormatError),  # one byte alone is an empty file to SQLite (os_unix.c, unixFileSize)
        (bytes(SUPERBLOCK + 1), heliosvfs.FormatError),
        (MAGIC.ljust(SUPERBLOCK + 1, b"\0"), heliosvfs.TamperedError),
        (MAGIC.ljust(SUPERBLOCK * 2, b"\0"), heliosvfs.TamperedError),
    ],
)
def test_a_file_that_may_hold_something_is_not_created_anew(tmp_path: Path, content: bytes, error: type[Exception]) -> None:
    path = tmp_path / "db"
    path.write_bytes(content)
    with pytest.raises(error):
        heliosvfs.connect(path, key=KEY)
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", ["delete", "memory", "off"])
def test_without_locks_nothing_is_created(tmp_path: Path, mode: str) -> None:
    """With nolock=1 two processes could each make a superblock, and one would lose every page."""
    path = tmp_path / "db"
    with pytest.raises(heliosvfs.UsageError, match="nolock"):
        heliosvfs.connect(f"file:{path}?nolock=1", key=KEY, journal_mode=mode)
    assert not path.exists() or not path.stat().st_size


def test_without_locks_an_existing_database_may_be_used(tmp_path: Path) -> None:
    path = tmp_path / "db"
    heliosvfs.connect(path, key=KEY, journal_mode="delete").close()
    with closing(heliosvfs.connect(f"file:{path}?nolock=1", key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        assert connection.execute("SELECT x FROM t").get == 1


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_who_loses_the_race_adopts_the_winners_superblock(tmp_path: Path, mode: str) -> None:
    """Both opened an empty file, and both have made keys for it."""
    path = tmp_path / "db"
    keyring = heliosvfs.Keyring(default=KEY)
    with observed(keyring) as (_, vfs):
        with closing(apsw.Connection(str(path), vfs=vfs)) as loser:
            files_of(loser)[0].access.require_keys()
            with closing(heliosvfs.connect(path, key=KEY, vfs=vfs, journal_mode=mode)) as winner:
                winner.execute("CREATE TABLE t(x); INSERT INTO t VALUES('winner')")
                superblock = path.read_bytes()[:COPY_SIZE]
                loser.execute("INSERT INTO t VALUES('loser')")
                assert loser.execute("SELECT x FROM t").fetchall() == [("winner",), ("loser",)]
                assert files_of(loser)[0].access.superblock.uuid == files_of(winner)[0].access.superblock.uuid
        assert path.read_bytes()[:COPY_SIZE] == superblock
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert connection.execute("SELECT count(*) FROM t").get == 2


def test_who_loses_the_race_with_another_key_destroys_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db"
    keyring = heliosvfs.Keyring(default=OTHER_KEY)
    with observed(keyring) as (_, vfs), closing(apsw.Connection(str(path), vfs=vfs)) as loser:
        files_of(loser)[0].access.require_keys()
        with closing(heliosvfs.connect(path, key=KEY, journal_mode="delete")) as winner:
            winner.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        before = path.read_bytes()
        with pytest.raises(heliosvfs.WrongKeyError):
            loser.execute("CREATE TABLE u(x)")
        assert path.read_bytes() == before


def test_who_comes_late_without_a_key_gets_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as late:
        with closing(heliosvfs.connect(path, key=KEY, journal_mode="delete")) as winner:
            winner.execute("CREATE TABLE t(x)")
        before = path.read_bytes()
        for statement in ("SELECT * FROM sqlite_schema", "CREATE TABLE u(x)"):
            with pytest.raises(heliosvfs.KeyUnavailableError):
                late.execute(statement).fetchall()
        assert path.read_bytes() == before


def test_the_page_size_may_change_until_there_are_pages(tmp_path: Path) -> None:
    """A superblock without pages is left by a creation that was cut off just before its first page."""
    whole, path = tmp_path / "whole", tmp_path / "db"
    with observed() as (base, vfs):
        snapshots: list[bytes] = []
        base.before = lambda event: (
            snapshots.append(whole.read_bytes()) if event.what == "write" and event.offset >= SUPERBLOCK else None
        )
        heliosvfs.connect(whole, key=KEY, vfs=vfs, page_size=4096).close()
    path.write_bytes(snapshots[0])
    assert len(snapshots[0]) == SUPERBLOCK
    with closing(heliosvfs.connect(path, key=KEY, page_size=1024)) as connection:
        connection.execute("CREATE TABLE t(x)")
        assert connection.pragma("page_size") == 1024
    with closing(heliosvfs.connect(path, key=KEY, page_size=8192)) as connection:
        connection.execute("CREATE TABLE u(x)")
        connection.execute("VACUUM")
        assert connection.pragma("page_size") == 1024
    with closing(heliosvfs.connect(path, key=KEY)) as connection, pytest.raises(heliosvfs.UsageError, match="page"):
        connection.execute("PRAGMA journal_mode = delete; PRAGMA page_size = 2048; VACUUM").fetchall()


def test_nothing_is_created_without_a_key(tmp_path: Path) -> None:
    with closing(apsw.Connection(str(tmp_path / "db"), vfs="heliosvfs")) as connection:
        for statement in ("CREATE TABLE t(x)", "PRAGMA journal_mode = wal", "VACUUM"):
            with pytest.raises(heliosvfs.KeyUnavailableError):
                connection.execute(statement)
    assert all(not file.stat().st_size for file in tmp_path.iterdir())


CREATE = """
import sys, heliosvfs
sys.stdin.readline()
connection = heliosvfs.connect(sys.argv[1], key=bytes(range(32)), journal_mode=sys.argv[2])
connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
connection.execute("INSERT INTO t VALUES(?)", (sys.argv[3],))
"""


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_processes_that_create_one_file_at_once_share_it(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "db"
    workers = [
        subprocess.Popen([sys.executable, "-c", CREATE, str(path), mode, str(n)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for n in range(4)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"\n")
        worker.stdin.flush()
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors.decode()
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert sorted(connection.execute("SELECT x FROM t").fetchall()) == [(str(n),) for n in range(4)]
        assert connection.pragma("integrity_check") == "ok"


def test_a_plain_copy_of_the_file_alone_opens(tmp_path: Path) -> None:
    """All that a closed database is lies in its one file."""
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(7)")
    assert [file.name for file in tmp_path.iterdir()] == ["db"]
    shutil.copy(tmp_path / "db", tmp_path / "elsewhere")
    with closing(heliosvfs.connect(tmp_path / "elsewhere", key=KEY, create=False)) as connection:
        assert connection.execute("SELECT x FROM t").get == 7
