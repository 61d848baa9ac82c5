"""What the base VFS says of its device holds for its own bytes, and sizes that SQLite speaks of are not those of its files."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.vfs import files_of
from heliosvfs.vfs.journal import JournalFile
from tests.rules.conftest import KEY

PSOW = apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE
EVERYTHING = 0xFFFF  # SQLITE_IOCAP_ATOMIC, _SAFE_APPEND, _SEQUENTIAL, _UNDELETABLE_WHEN_OPEN, _BATCH_ATOMIC and all others
SIZES = {apsw.SQLITE_FCNTL_SIZE_HINT, apsw.SQLITE_FCNTL_CHUNK_SIZE}
JOURNAL = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE


class _PromisingFile(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], vfs: Promising) -> None:
        self._vfs = vfs
        super().__init__("unix", name, flags)

    def xDeviceCharacteristics(self) -> int:
        return self._vfs.promises

    def xFileControl(self, op: int, ptr: int) -> bool:
        self._vfs.controls.append(op)
        return super().xFileControl(op, ptr)


class Promising(apsw.VFS):
    """A base VFS that reports what it is told to, and notes the controls that reach it."""

    def __init__(self) -> None:
        self.promises = EVERYTHING
        self.controls: list[int] = []
        super().__init__("promising", "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _PromisingFile(name, flags, self)


@pytest.fixture
def base() -> Iterator[Promising]:
    below = Promising()
    vfs = heliosvfs.HeliosVFS("over-promising", base="promising")
    yield below
    vfs.unregister()
    below.unregister()


def opened(path: Path, mode: str) -> heliosvfs.Connection:
    return heliosvfs.connect(path, key=KEY, journal_mode=mode, page_size=512, vfs="over-promising")


PROMISES = pytest.mark.parametrize("promises", [EVERYTHING, EVERYTHING & ~PSOW, PSOW, 0])


@PROMISES
def test_a_database_promises_powersafe_overwrite_at_most(tmp_path: Path, base: Promising, promises: int) -> None:
    """A page is not written atomically, nor is it where SQLite has it, whatever the disk does with sectors."""
    base.promises = promises
    with closing(opened(tmp_path / "db", "delete")) as connection:
        file = files_of(connection)[0]
        assert file.xDeviceCharacteristics() == promises & PSOW
        ask = ctypes.c_int(-1)
        connection.file_control("main", apsw.SQLITE_FCNTL_POWERSAFE_OVERWRITE, ctypes.addressof(ask))
        assert file.xDeviceCharacteristics() == promises & PSOW


@PROMISES
def test_a_wal_promises_powersafe_overwrite_at_most(tmp_path: Path, base: Promising, promises: int) -> None:
    base.promises = promises
    with closing(opened(tmp_path / "db", "wal")) as connection:
        connection.execute("CREATE TABLE t(x)")
        wal = files_of(connection)[0].wal
        assert wal is not None
        assert wal.xDeviceCharacteristics() == promises & PSOW


@PROMISES
def test_a_journal_promises_powersafe_overwrite_at_most(tmp_path: Path, base: Promising, promises: int) -> None:
    base.promises = promises
    with closing(opened(tmp_path / "db", "delete")) as connection:
        connection.execute("CREATE TABLE t(x); BEGIN IMMEDIATE")
        journal = JournalFile("promising", f"{tmp_path}/db-journal", [JOURNAL, 0], files_of(connection)[0])
        try:
            assert journal.xDeviceCharacteristics() == promises & PSOW
        finally:
            journal.xClose()


@pytest.mark.usefixtures("base")
def test_a_journal_is_written_and_counted_though_the_base_promises_that_none_is_needed(tmp_path: Path) -> None:
    """With SAFE_APPEND SQLite would not count its records, and with an atomic page of one page it would make no journal."""
    with closing(opened(tmp_path / "db", "delete")) as connection:
        connection.pragma("synchronous", "full")
        connection.pragma("cache_size", 2)
        connection.execute("CREATE TABLE t(x)")
        connection.executemany("INSERT INTO t VALUES(randomblob(300))", [()] * 50)
        connection.execute("BEGIN; UPDATE t SET x = randomblob(310)")
        header = (tmp_path / "db-journal").read_bytes()[:12]
        assert header[:8] == b"\0HELIOSJ"
        assert 0 < int.from_bytes(header[8:], "big") < 0xFFFFFFFF
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sizes_that_sqlite_speaks_of_do_not_reach_the_base(tmp_path: Path, base: Promising, mode: str) -> None:
    """A file that the base would extend to whole chunks would end in pages that were never sealed."""
    path = tmp_path / "db"
    with closing(opened(path, mode)) as connection:
        for op, size in (
            (apsw.SQLITE_FCNTL_CHUNK_SIZE, ctypes.c_int(1 << 20)),
            (apsw.SQLITE_FCNTL_SIZE_HINT, ctypes.c_int64(1 << 22)),
        ):
            assert connection.file_control("main", op, ctypes.addressof(size))
        connection.execute("CREATE TABLE t(x)")
        connection.executemany("INSERT INTO t VALUES(randomblob(300))", [()] * 50)  # SQLite gives a hint of its own
        connection.execute("DELETE FROM t WHERE rowid % 2; VACUUM; PRAGMA wal_checkpoint").fetchall()
        pages = connection.pragma("page_count")
    assert base.controls
    assert not SIZES & set(base.controls)
    assert path.stat().st_size == 32768 + pages * 512
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        assert connection.pragma("integrity_check") == "ok"
