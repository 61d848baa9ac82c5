"""Rule 6: a file is created whole or not at all, once, under a lock."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.superblock import COPY_SIZE, MAGIC
from heliosvfs.vfs import files_of
from tests.rules.conftest import KEY


def make(path: Path, **options: object) -> bytes:
    with closing(heliosvfs.connect(path, key=KEY, **options)) as connection:  # type: ignore[arg-type]
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    return path.read_bytes()


@pytest.mark.parametrize(
    "left", [b"", MAGIC, MAGIC[:7], b"\0" * 16384, b"\0" * 32768, "copy A alone", "torn copies", "sector 0 lost"]
)
def test_an_interrupted_creation_may_be_created_anew(tmp_path: Path, left: bytes | str) -> None:
    whole = make(tmp_path / "other")
    if left == "copy A alone":
        # a whole copy under another key is a database that never had a page; under the same key it is taken over
        left = whole[:100] + bytes(COPY_SIZE - 100)
    elif left == "torn copies":
        left = whole[:3000] + bytes(COPY_SIZE - 3000) + whole[COPY_SIZE : COPY_SIZE + 512]
    elif left == "sector 0 lost":
        left = bytes(512) + whole[512 : COPY_SIZE - 512] + bytes(512)
    path = tmp_path / "db"
    path.write_bytes(left if isinstance(left, bytes) else left.encode())
    make(path)
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert connection.execute("SELECT x FROM t").get == 1


@pytest.mark.parametrize(
    "foreign", [b"SQLite format 3\0" + bytes(4080), b"xy", b"hello world" * 4000, b"\0" * 15 + b"!", b"\0" * 40000], ids=range(5)
)
def test_a_foreign_file_is_never_created_over(tmp_path: Path, foreign: bytes) -> None:
    path = tmp_path / "db"
    path.write_bytes(foreign)
    with pytest.raises(heliosvfs.FormatError):
        heliosvfs.connect(path, key=KEY)
    assert path.read_bytes() == foreign


def test_both_copies_are_on_disk_before_the_first_page(tmp_path: Path) -> None:
    writes: list[tuple[int, int]] = []

    class File(apsw.VFSFile):
        def xWrite(self, data: bytes, offset: int) -> None:
            writes.append((offset, len(data)))
            super().xWrite(data, offset)

        def xSync(self, flags: int) -> None:
            writes.append((-1, 0))
            super().xSync(flags)

    class Base(apsw.VFS):
        def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
            if isinstance(name, apsw.URIFilename):
                return File("unix", name, flags)
            return apsw.VFSFile("unix", name, flags)

    base = Base("watched", "unix")
    vfs = heliosvfs.HeliosVFS("over-watched", base="watched")
    try:
        heliosvfs.connect(tmp_path / "db", key=KEY, vfs=vfs.name, journal_mode="delete").close()
    finally:
        vfs.unregister()
        base.unregister()
    assert writes[:5] == [(0, COPY_SIZE), (-1, 0), (COPY_SIZE, COPY_SIZE), (-1, 0), (32768, 4096)]


def test_an_empty_file_is_no_database_unless_one_may_be_created(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.touch()
    with pytest.raises(heliosvfs.FormatError, match="empty"):
        heliosvfs.connect(path, key=KEY, create=False)
    with pytest.raises(heliosvfs.FormatError, match="empty"):
        heliosvfs.connect(path, key=KEY, readonly=True)
    assert path.read_bytes() == b""


def test_a_database_is_not_created_without_locks(tmp_path: Path) -> None:
    with pytest.raises(heliosvfs.RefusedWriteError, match="nolock"):
        heliosvfs.connect(f"file:{tmp_path}/db?nolock=1", key=KEY, journal_mode="delete")


def test_a_database_is_not_created_without_a_key(tmp_path: Path) -> None:
    with (
        closing(apsw.Connection(str(tmp_path / "db"), vfs="heliosvfs")) as connection,
        pytest.raises(heliosvfs.KeyUnavailableError),
    ):
        connection.execute("CREATE TABLE t(x)")
    assert (tmp_path / "db").read_bytes() == b""


def test_a_connection_that_lost_the_race_adopts_the_winners_database(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    ring = heliosvfs.Keyring(default=KEY)
    vfs = heliosvfs.HeliosVFS("with-keyring", keyring=ring)
    try:
        with closing(apsw.Connection(path, vfs=vfs.name)) as slow, closing(apsw.Connection(path, vfs=vfs.name)) as fast:
            fast.execute("CREATE TABLE t(x); INSERT INTO t VALUES('fast')")
            slow.execute("INSERT INTO t VALUES('slow')")
            assert [x for (x,) in fast.execute("SELECT x FROM t")] == ["fast", "slow"]
            assert files_of(slow)[0].access.superblock.uuid == files_of(fast)[0].access.superblock.uuid
    finally:
        vfs.unregister()


def test_the_first_transaction_rolled_back_leaves_a_file_that_can_change_its_page_size(tmp_path: Path) -> None:
    vfs = heliosvfs.HeliosVFS("with-keyring", keyring=heliosvfs.Keyring(default=KEY))
    path = str(tmp_path / "db")
    try:
        with closing(apsw.Connection(path, vfs=vfs.name)) as connection:
            connection.pragma("cache_size", 2)
            connection.execute("BEGIN; CREATE TABLE t(x)")
            connection.execute("INSERT INTO t SELECT zeroblob(4000) FROM (VALUES(1),(2),(3),(4),(5),(6),(7),(8)); ROLLBACK")
        assert 0 < Path(path).stat().st_size <= 32768
        with closing(apsw.Connection(path, vfs=vfs.name)) as connection:
            connection.pragma("page_size", 65536)
            connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(2)")
        with closing(apsw.Connection(path, vfs=vfs.name)) as connection:
            assert (connection.pragma("page_size"), connection.execute("SELECT x FROM t").get) == (65536, 2)
    finally:
        vfs.unregister()


def test_page_size_of_an_existing_database_is_refused_with_the_way_out(tmp_path: Path) -> None:
    make(tmp_path / "db")
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        connection.pragma("page_size", 4096)
        with pytest.raises(heliosvfs.UsageError, match="encrypt --page-size"):
            connection.pragma("page_size", 8192)
