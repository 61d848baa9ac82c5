"""A full disk, and places that may not be written: a clear error, and the original intact."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.convert import decrypt, encrypt

KEY = bytes(range(32))


class SmallDisk(apsw.VFS):
    """A base VFS that is full after so many bytes."""

    def __init__(self) -> None:
        self.left = 1 << 40
        self.refused: str | None = None  # what the name of a file that can't grow ends in; "" is any
        super().__init__("small-disk", "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        disk = self
        where = name.filename() if isinstance(name, apsw.URIFilename) else name

        class File(apsw.VFSFile):
            def xWrite(self, data: bytes, offset: int) -> None:
                grown = offset + len(data) - self.xFileSize()
                full = disk.refused is not None and str(where or "").endswith(disk.refused)
                if grown > disk.left or (full and grown > 0):
                    raise apsw.FullError
                disk.left -= max(0, grown)
                super().xWrite(data, offset)

        return File("unix", name, flags)


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    base = SmallDisk()
    vfs = heliosvfs.HeliosVFS("over-small-disk", base="small-disk")
    yield base
    vfs.unregister()
    base.unregister()


MODES = ["delete", "wal", "persist"]


@pytest.mark.parametrize("mode", MODES)
def test_a_full_disk_rolls_back_and_loses_nothing(tmp_path: Path, disk: SmallDisk, mode: str) -> None:
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, vfs="over-small-disk", journal_mode=mode)) as connection:
        connection.pragma("cache_size", 5)
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES('kept')")
        disk.left = 100_000
        with pytest.raises(heliosvfs.DiskFullError, match="the disk is full") as caught:
            connection.executemany("INSERT INTO t VALUES(randomblob(3000))", [()] * 200)
        assert caught.value.file in {str(path), f"{path}-wal", f"{path}-journal"}
        assert caught.value.file in str(caught.value)
        disk.left = 1 << 40
        kept = connection.execute("SELECT count(*) FROM t").get
        assert connection.execute("SELECT x FROM t WHERE rowid = 1").get == "kept"
        connection.execute("INSERT INTO t VALUES('later')")
        assert connection.execute("SELECT count(*) FROM t").get == kept + 1
    assert check(path, key=KEY).ok


@pytest.mark.parametrize(("mode", "name"), [("wal", "a.db-wal"), ("off", "a.db"), ("delete", "a.db"), ("delete", "a.db-journal")])
def test_a_full_disk_is_reported_with_the_file_that_could_not_grow(tmp_path: Path, disk: SmallDisk, mode: str, name: str) -> None:
    path = tmp_path / "a.db"
    with closing(heliosvfs.connect(path, key=KEY, vfs="over-small-disk", journal_mode=mode)) as connection:
        connection.execute("CREATE TABLE t(x)")
        disk.refused = name
        with pytest.raises(heliosvfs.DiskFullError) as caught:
            connection.execute("INSERT INTO t VALUES(zeroblob(9000))")
        assert caught.value.file == str(tmp_path / name)
        assert caught.value.file in str(caught.value)
        disk.refused = None


def test_a_full_disk_is_reported_for_temporary_files_too(tmp_path: Path, disk: SmallDisk) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, vfs="over-small-disk")) as connection:
        connection.pragma("temp_store", 1)
        connection.pragma("cache_size", 5)
        disk.refused = ""
        with pytest.raises(heliosvfs.DiskFullError, match="temporary"):
            connection.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000) "
                "SELECT i, randomblob(500) AS b FROM n ORDER BY b"
            ).fetchall()
        disk.refused = None


def test_a_full_disk_while_a_database_is_created_leaves_none(tmp_path: Path, disk: SmallDisk) -> None:
    for room in (0, 10_000, 20_000, 33_000):
        disk.left = room
        path = tmp_path / f"db{room}"
        with pytest.raises(apsw.FullError):
            heliosvfs.connect(path, key=KEY, vfs="over-small-disk")
        disk.left = 1 << 40
        with closing(heliosvfs.connect(path, key=KEY, vfs="over-small-disk")) as connection:
            connection.execute("CREATE TABLE t(x)")


def test_a_conversion_onto_a_full_disk_leaves_nothing_behind(tmp_path: Path, disk: SmallDisk) -> None:
    source = tmp_path / "plain.db"
    with closing(apsw.Connection(str(source))) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.executemany("INSERT INTO t VALUES(randomblob(3000))", [()] * 100)
    before = source.read_bytes()
    disk.left = 150_000
    with pytest.raises(heliosvfs.DiskFullError, match="disk is full"):
        encrypt(source, tmp_path / "out.db", key=KEY, vfs="over-small-disk")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["plain.db"]
    assert source.read_bytes() == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs to become another user")
def test_places_that_may_not_be_written_are_named() -> None:
    """Run as nobody, because root may write anywhere."""
    public = Path("/tmp") / f"heliosvfs-forbidden-{os.getpid()}"  # noqa: S108 - pytest's own folders are closed to others
    public.mkdir(mode=0o755)
    try:
        heliosvfs.connect(public / "db", key=KEY, journal_mode="delete").close()
        (public / "db").chmod(0o644)
        script = f"""
import os, sys
import heliosvfs, apsw, apsw.shell
os.setuid(65534)
folder = {str(public)!r}
connection = heliosvfs.connect(folder + "/db", key=bytes(range(32)), readonly=True)
assert connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
connection = heliosvfs.connect(folder + "/db", key=bytes(range(32)))
try:
    connection.execute("CREATE TABLE t(x)")
    sys.exit("written")
except apsw.ReadOnlyError:
    pass
try:
    heliosvfs.connect(folder + "/new", key=bytes(range(32)))
    sys.exit("created")
except heliosvfs.UsageError as error:
    assert "may not be written" in str(error), error
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(public)


def test_a_killed_conversion_leaves_no_file_under_the_final_name_and_does_not_stop_the_next(tmp_path: Path) -> None:
    source = tmp_path / "plain.db"
    with closing(apsw.Connection(str(source))) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    script = """
import os, sys, heliosvfs.convert as convert
convert.Content.of = lambda connection: os._exit(9)
convert.encrypt(sys.argv[1], sys.argv[2], key=bytes(range(32)))
"""
    done = subprocess.run([sys.executable, "-c", script, source, tmp_path / "out.db"], check=False)
    assert done.returncode == 9
    assert not (tmp_path / "out.db").exists()
    assert (tmp_path / "out.db.partial").exists()
    encrypt(source, tmp_path / "out.db", key=KEY)
    assert not (tmp_path / "out.db.partial").exists()
    decrypt(tmp_path / "out.db", tmp_path / "back.db", key=KEY)


def test_a_plain_source_that_needs_recovery_is_refused_and_left(tmp_path: Path) -> None:
    with closing(apsw.Connection(str(tmp_path / "live.db"))) as connection:
        connection.pragma("cache_size", 2)
        connection.execute("CREATE TABLE t(x)")
        connection.executemany("INSERT INTO t VALUES(zeroblob(3000))", [()] * 20)
        connection.execute("BEGIN; UPDATE t SET x = zeroblob(3100)")
        for suffix in ("", "-journal"):
            shutil.copy(f"{tmp_path}/live.db{suffix}", f"{tmp_path}/source.db{suffix}")
    before = {name: (tmp_path / name).read_bytes() for name in ("source.db", "source.db-journal")}
    with pytest.raises(heliosvfs.UsageError, match="not closed properly"):
        encrypt(tmp_path / "source.db", tmp_path / "out.db", key=KEY)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_no_error_holds_a_key(tmp_path: Path) -> None:
    passphrase = "the secret passphrase of this test"
    path = tmp_path / "db"
    heliosvfs.connect(path, key=passphrase).close()
    for wrong in ("another secret passphrase", b"\x01secret" * 4 + b"1234"):
        with pytest.raises(heliosvfs.WrongKeyError) as caught:
            heliosvfs.connect(path, key=wrong)
        assert "secret" not in str(caught.value)
    for thing in (heliosvfs.Secret.passphrase(passphrase), heliosvfs.Keyring(default=passphrase)):
        assert "secret passphrase" not in repr(thing)
