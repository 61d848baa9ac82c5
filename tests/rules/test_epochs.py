"""Rule 7: whoever writes learns of a new epoch first, and nothing is sealed under one that the superblock does not list."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import msgspec.structs
import pytest

import heliosvfs
from heliosvfs.keys import wrap_epoch
from heliosvfs.superblock import Superblock
from heliosvfs.vfs import files_of
from tests.rules.conftest import KEY
from tests.tamper.samples import page_offset, piece

PAGE = 1024
FRAME = 24 + PAGE


def publish(connection: heliosvfs.Connection) -> int:
    """Add an epoch to a database's superblock, durably, and return its number."""
    file = files_of(connection)[0]
    master = file.access.master.key

    def add(superblock: Superblock) -> Superblock:
        number = superblock.epoch.id + 1
        epoch = wrap_epoch(superblock.uuid_bytes, number, "2030-01-01T00:00:00Z", os.urandom(32), master, os.urandom)
        return msgspec.structs.replace(superblock, epochs=(*superblock.epochs, epoch))

    connection.execute("BEGIN IMMEDIATE")
    try:
        file.update_superblock(add)
    finally:
        connection.execute("ROLLBACK")
    return file.access.superblock.epoch.id


def drop_oldest(connection: heliosvfs.Connection) -> None:
    """Remove the oldest epoch, as a rotation does when no page is left under it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        files_of(connection)[0].update_superblock(
            lambda superblock: msgspec.structs.replace(superblock, epochs=superblock.epochs[1:])
        )
    finally:
        connection.execute("ROLLBACK")


def epochs_in_wal(path: Path) -> list[int]:
    wal = Path(f"{path}-wal").read_bytes()
    return [int.from_bytes(wal[at + FRAME - 4 : at + FRAME - 1], "big") for at in range(32, len(wal) - FRAME + 1, FRAME)]


def epochs_in_pages(path: Path) -> list[int]:
    count = (path.stat().st_size - page_offset(1, PAGE)) // PAGE
    return [int.from_bytes(piece(path, page_offset(page, PAGE) + PAGE - 4, 3), "big") for page in range(1, count + 1)]


def database(path: Path, mode: str) -> heliosvfs.Connection:
    connection = heliosvfs.connect(path, key=KEY, page_size=PAGE, journal_mode=mode)
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(5000))")
    if mode == "wal":
        connection.pragma("wal_checkpoint", "TRUNCATE")
    return connection


def test_each_transaction_in_a_wal_is_sealed_under_the_epoch_in_force(tmp_path: Path) -> None:
    """The other connection holds SHARED for its whole life, so no lock tells it of the new epoch."""
    path = tmp_path / "db"
    with closing(database(path, "wal")) as publisher, closing(heliosvfs.connect(path, key=KEY)) as writer:
        writer.execute("INSERT INTO t VALUES(randomblob(3000))")
        assert set(epochs_in_wal(path)) == {1}
        for epoch in (2, 3):
            assert publish(publisher) == epoch
            before = len(epochs_in_wal(path))
            writer.execute("INSERT INTO t VALUES(randomblob(3000))")
            assert set(epochs_in_wal(path)[before:]) == {epoch}
        assert publisher.execute("SELECT count(*) FROM t").get == 4


def test_a_transaction_is_not_torn_over_two_epochs_unreadably(tmp_path: Path) -> None:
    """A spilled transaction that began before the epoch was published: all that it wrote opens, for all."""
    path = tmp_path / "db"
    with closing(database(path, "wal")) as publisher, closing(heliosvfs.connect(path, key=KEY, cache_mb=0.01)) as writer:
        writer.execute("BEGIN; INSERT INTO t VALUES(randomblob(100000))")
        publisher.set_busy_timeout(0)
        with pytest.raises(apsw.BusyError):
            publish(publisher)
        writer.execute("INSERT INTO t VALUES(randomblob(100000)); COMMIT")
        assert publish(publisher) == 2
        assert publisher.execute("SELECT sum(length(x)) FROM t").get == 205000


def test_a_checkpoint_seals_under_the_epoch_in_force(tmp_path: Path) -> None:
    """The frames may be older: what is written into the database is sealed anew."""
    path = tmp_path / "db"
    with closing(database(path, "wal")) as publisher, closing(heliosvfs.connect(path, key=KEY)) as checkpointer:
        checkpointer.execute("UPDATE t SET x = randomblob(5000)")
        assert publish(publisher) == 2
        checkpointer.pragma("wal_checkpoint", "TRUNCATE")
        assert 2 in epochs_in_pages(path)
        assert publisher.execute("SELECT count(*) FROM t").get == 1


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "memory", "off"])
def test_each_page_in_rollback_mode_is_sealed_under_the_epoch_in_force(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "db"
    with closing(database(path, mode)) as publisher, closing(heliosvfs.connect(path, key=KEY)) as writer:
        writer.pragma("journal_mode", mode)
        assert writer.execute("SELECT count(*) FROM t").get == 1
        assert publish(publisher) == 2
        writer.execute("UPDATE t SET x = randomblob(5000)")
        assert epochs_in_pages(path).count(2) >= 6
        assert publisher.execute("SELECT count(*) FROM t").get == 1


def test_a_journal_is_sealed_under_the_epoch_in_force(tmp_path: Path) -> None:
    """After a crash the next process rolls it back with the keys of the superblock that it finds."""
    path = tmp_path / "db"
    with closing(database(path, "delete")) as publisher, closing(heliosvfs.connect(path, key=KEY, cache_mb=0.002)) as writer:
        publish(publisher)
        writer.execute("BEGIN; UPDATE t SET x = randomblob(5000)")
        (tmp_path / "left").mkdir()
        for suffix in ("", "-journal"):
            shutil.copy(f"{path}{suffix}", tmp_path / "left" / f"db{suffix}")
        writer.execute("ROLLBACK")
        expected = writer.execute("SELECT x FROM t").fetchall()
    journal = (tmp_path / "left" / "db-journal").read_bytes()
    assert journal[512 + 4 + PAGE - 4 : 512 + 4 + PAGE - 1] == (2).to_bytes(3, "big")
    with closing(heliosvfs.connect(tmp_path / "left" / "db", key=KEY)) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == expected


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_reader_that_meets_an_unknown_epoch_reads_the_superblock_again(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "db"
    with closing(database(path, mode)) as publisher, closing(heliosvfs.connect(path, key=KEY)) as reader:
        assert reader.execute("SELECT count(*) FROM t").get == 1
        publish(publisher)
        publisher.execute("UPDATE t SET x = randomblob(7000)")
        if mode == "wal":
            assert reader.execute("SELECT length(x) FROM t").get == 7000
            publisher.pragma("wal_checkpoint", "TRUNCATE")
        assert reader.execute("SELECT length(x) FROM t").get == 7000


REWRITE = "UPDATE t SET x = randomblob(5000); PRAGMA user_version = 1; CREATE TABLE IF NOT EXISTS u(x); DROP TABLE u; VACUUM"


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_nothing_is_written_under_an_epoch_that_was_dropped(tmp_path: Path, mode: str) -> None:
    """A whole rotation passes beneath an idle connection, which then writes."""
    path = tmp_path / "db"
    with closing(database(path, mode)) as rotator, closing(heliosvfs.connect(path, key=KEY)) as idle:
        idle.execute("INSERT INTO t VALUES(randomblob(100)); DELETE FROM t WHERE length(x) = 100")
        if mode == "wal":
            rotator.pragma("wal_checkpoint", "TRUNCATE")
        publish(rotator)
        rotator.execute(REWRITE).fetchall()
        if mode == "wal":
            rotator.pragma("wal_checkpoint", "TRUNCATE")
        assert set(epochs_in_pages(path)) == {2}
        drop_oldest(rotator)
        idle.execute("INSERT INTO t VALUES(randomblob(3000))")
        assert rotator.execute("SELECT count(*) FROM t").get == 2
        if mode == "wal":
            assert set(epochs_in_wal(path)) == {2}
            idle.pragma("wal_checkpoint", "TRUNCATE")
        assert set(epochs_in_pages(path)) == {2}
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert connection.execute("SELECT count(*) FROM t").get == 2
        assert connection.pragma("integrity_check") == "ok"


WRITE = """
import sys, heliosvfs
from contextlib import closing
with closing(heliosvfs.connect(sys.argv[1], key=bytes(range(32)), create=False)) as connection:
    connection.execute("SELECT count(*) FROM t").fetchall()
    print("open", flush=True)
    sys.stdin.readline()
    connection.execute("INSERT INTO t VALUES(randomblob(3000))")
    print("written", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_another_process_learns_of_an_epoch_before_it_writes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "db"
    with closing(database(path, mode)) as publisher:
        with subprocess.Popen(
            [sys.executable, "-c", WRITE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            assert other.stdout.readline() == "open\n"
            assert publish(publisher) == 2
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.stdout.readline() == "written\n"
            found = epochs_in_wal(path) if mode == "wal" else epochs_in_pages(path)
            other.communicate("\n", timeout=60)
        assert found[-1] == 2
        assert publisher.execute("SELECT count(*) FROM t").get == 2


def test_an_epoch_in_one_copy_only_is_put_into_both_before_it_is_used(tmp_path: Path) -> None:
    """The publisher died between its two writes: what is sealed under the epoch must not hang on one copy."""
    path = tmp_path / "db"
    with closing(database(path, "wal")) as connection:
        before = path.read_bytes()
        publish(connection)
    after = bytearray(path.read_bytes())
    after[16384:32768] = before[16384:32768]
    path.write_bytes(after)
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("INSERT INTO t VALUES(randomblob(3000))")
        assert epochs_in_wal(path)[-1] == 2
        copies = path.read_bytes()
        assert copies[16384 + 32 : 16384 + 40] == copies[32:40]
