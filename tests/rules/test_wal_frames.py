"""Rules 3 and 4: salts come from the frame being written, and nothing is held back once a commit has returned."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from tests.rules.conftest import KEY


def copy_files(path: Path, folder: Path) -> Path:
    folder.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", folder / f"{path.name}{suffix}")
    return folder / path.name


@pytest.mark.parametrize("synchronous", ["off", "normal", "full"])
@pytest.mark.parametrize("page_size", [512, 4096])
def test_a_spilled_commit_is_in_the_files_when_it_returns(tmp_path: Path, synchronous: str, page_size: int) -> None:
    """A transaction that spilled ends with header writes of their own: a copy of the files made right away must hold it."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, page_size=page_size)) as connection:
        connection.pragma("synchronous", synchronous)
        connection.pragma("cache_size", 3)
        connection.execute("CREATE TABLE t(x, y)")
        for round_ in range(5):
            with connection:
                connection.executemany("INSERT INTO t VALUES(?, randomblob(300))", ((round_,) for _ in range(200)))
                connection.execute("UPDATE t SET y = randomblob(310) WHERE rowid % 3 = 0")
            copied = copy_files(path, tmp_path / f"copy{round_}")
            with closing(heliosvfs.connect(copied, key=KEY, create=False)) as copy:
                assert copy.execute("SELECT count(*) FROM t").get == 200 * (round_ + 1)
                assert copy.pragma("integrity_check") == "ok"


def test_frames_after_another_process_restarted_the_log_are_read_and_recovered(tmp_path: Path) -> None:
    """A connection that joins a WAL never reads its header, so the salts that it knows may be old."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY)) as first, closing(heliosvfs.connect(path, key=KEY)) as second:
        first.execute("CREATE TABLE t(x)")
        second.execute("INSERT INTO t VALUES('before')")
        for round_ in range(3):
            assert first.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0] == 0
            first.execute("INSERT INTO t VALUES(?)", (f"first {round_}",))
            second.execute("INSERT INTO t VALUES(?)", (f"second {round_}",))
            expected = first.execute("SELECT x FROM t ORDER BY rowid").fetchall()
            assert second.execute("SELECT x FROM t ORDER BY rowid").fetchall() == expected
            assert len(expected) == 1 + 2 * (round_ + 1)
            copied = copy_files(path, tmp_path / f"copy{round_}")
            with closing(heliosvfs.connect(copied, key=KEY, create=False)) as copy:
                assert copy.execute("SELECT x FROM t ORDER BY rowid").fetchall() == expected


def test_frames_of_an_earlier_log_are_not_replayed(tmp_path: Path) -> None:
    """Behind the end of a restarted log lie frames that authenticate under their own salts only."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t SELECT randomblob(3000) FROM (VALUES(1),(2),(3),(4),(5),(6),(7),(8))")
        assert connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()[0][0] == 0
        connection.execute("DELETE FROM t")
        copied = copy_files(path, tmp_path / "copy")
    with closing(heliosvfs.connect(copied, key=KEY, create=False)) as copy:
        assert copy.execute("SELECT count(*) FROM t").get == 0


class _NoPowersafeFile(apsw.VFSFile):
    def xDeviceCharacteristics(self) -> int:
        return 0


class _NoPowersafe(apsw.VFS):
    """A base VFS that promises nothing, so that SQLite pads commits to sectors and syncs in the middle of frames."""

    def __init__(self) -> None:
        super().__init__("no-powersafe", "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _NoPowersafeFile("unix", name, flags)


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_frames_that_come_in_pieces_are_sealed_and_recovered(tmp_path: Path, page_size: int) -> None:
    base = _NoPowersafe()
    vfs = heliosvfs.HeliosVFS("over-no-powersafe", base="no-powersafe")
    path = tmp_path / "db"
    try:
        with closing(heliosvfs.connect(path, key=KEY, page_size=page_size, vfs=vfs.name)) as connection:
            connection.pragma("synchronous", "full")
            connection.execute("CREATE TABLE t(x, y)")
            for number in range(400):
                connection.execute("INSERT INTO t VALUES(?, randomblob(50))", (number,))
            copied = copy_files(path, tmp_path / "copy")
        with closing(heliosvfs.connect(copied, key=KEY, create=False)) as copy:
            assert copy.execute("SELECT count(*), max(x) FROM t").fetchall() == [(400, 399)]
            assert copy.pragma("integrity_check") == "ok"
    finally:
        vfs.unregister()
        base.unregister()
