"""Files that end within a page: what was cut off is damage and is told, what a writer began and did not end is none."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import closing
from pathlib import Path

import msgspec.structs
import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.cli.app import run
from heliosvfs.salvage import salvage
from heliosvfs.vfs import files_of
from heliosvfs.write_locks import write_lock

KEY = bytes(range(32))
START, PAGE = 32768, 4096


def made(path: Path, mode: str = "delete", rows: int = 40) -> Path:
    with closing(heliosvfs.connect(path, key=KEY, journal_mode=mode)) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.executemany("INSERT INTO t VALUES(?)", (("x" * 1000,) for _ in range(rows)))
    return path


def in_the_middle(path: Path, mode: str, work: str, to: Path) -> Path:
    """Copy a database as it is on disk after some statements, without closing it."""
    with closing(heliosvfs.connect(path, key=KEY, journal_mode=mode)) as connection:
        connection.execute("PRAGMA cache_size = 2; PRAGMA wal_autocheckpoint = 0")
        connection.execute(work)
        for suffix in ("", "-wal", "-journal"):
            if os.path.exists(f"{path}{suffix}"):
                shutil.copy(f"{path}{suffix}", f"{to}{suffix}")
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return to


def longer(path: Path, by: int = 1000) -> None:
    with path.open("ab") as file:
        file.write(os.urandom(by))


@pytest.mark.parametrize("size", [START + 1, START + 1024, START + PAGE - 1])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_cut_within_its_first_page_is_damaged(tmp_path: Path, mode: str, size: int) -> None:
    path = made(tmp_path / "db", mode)
    os.truncate(path, size)
    report = check(path, key=KEY)
    assert not report.ok
    assert report.problems == (
        f"the file ends within page 1, {size - START} bytes after its beginning, and pages have been committed: it was truncated",
    )
    with pytest.raises(heliosvfs.FormatError, match="nothing to salvage"):
        salvage(path, tmp_path / "out", key=KEY)


def test_the_command_says_so_and_its_status_is_1(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(tmp_path / "db")
    os.truncate(path, START + 1024)
    monkeypatch.setattr(sys, "argv", ["heliosvfs", "check", str(path), "--key-file", str(key_file)])
    with pytest.raises(SystemExit) as ended:
        run()
    output = capsys.readouterr().out
    assert ended.value.code == 1
    assert "it was truncated" in output
    assert "all is well" not in output


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_cut_within_another_page_is_damaged(tmp_path: Path, mode: str) -> None:
    path = made(tmp_path / "db", mode)
    os.truncate(path, path.stat().st_size - 1000)
    report = check(path, key=KEY)
    assert not report.ok
    assert "pages: it was truncated" in report.problems[0]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_page_that_a_writer_began_behind_the_end_is_no_damage(tmp_path: Path, mode: str) -> None:
    path = made(tmp_path / "db", mode)
    longer(path)
    report = check(path, key=KEY)
    assert report.ok
    assert len(report.notes) == 1
    assert "1000 bytes after its beginning: a writer was interrupted there, and nothing is lost" in report.notes[0]
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("INSERT INTO t VALUES(hex(zeroblob(20000)))")
    report = check(path, key=KEY)
    assert (report.ok, report.notes) == (True, ()), "the next writer writes over it"


def test_a_writer_that_is_killed_while_its_transaction_makes_the_file_longer_leaves_no_damage(tmp_path: Path) -> None:
    made(tmp_path / "source")
    path = in_the_middle(
        tmp_path / "source", "delete", "BEGIN; INSERT INTO t SELECT zeroblob(90000); INSERT INTO t VALUES(1)", tmp_path / "db"
    )
    assert path.stat().st_size > (tmp_path / "source").stat().st_size
    os.truncate(path, path.stat().st_size - 1000)
    report = check(path, key=KEY)
    assert report.hot_journal
    assert (report.ok, len(report.notes)) == (True, 1)
    assert check(path, key=KEY).notes == (), "the check has rolled it back, as any opening does"


def test_a_checkpoint_that_is_killed_while_it_makes_the_file_longer_leaves_no_damage(tmp_path: Path) -> None:
    made(tmp_path / "source", "wal")
    path = in_the_middle(tmp_path / "source", "wal", "INSERT INTO t VALUES(zeroblob(90000))", tmp_path / "db")
    longer(path)
    report = check(path, key=KEY)
    assert report.wal_frames
    assert (report.ok, len(report.notes)) == (True, 1)
    assert "the WAL holds its content" in report.notes[0]


def test_a_page_that_was_cut_and_that_no_wal_holds_is_damage(tmp_path: Path) -> None:
    made(tmp_path / "source", "wal")
    path = in_the_middle(tmp_path / "source", "wal", "UPDATE t SET x = 'new' WHERE rowid = 1", tmp_path / "db")
    os.truncate(path, path.stat().st_size - 1000)
    report = check(path, key=KEY)
    assert report.wal_frames
    assert not report.ok
    assert "neither WAL nor journal holds its content" in report.problems[0]


def test_a_first_page_that_was_cut_is_damage_whatever_the_wal_holds(tmp_path: Path) -> None:
    """Opened, it works: all of it is in the WAL. But somebody has cut the file."""
    made(tmp_path / "source", "wal", rows=1)
    path = in_the_middle(tmp_path / "source", "wal", "CREATE TABLE u(x); UPDATE t SET x = 'new'", tmp_path / "db")
    os.truncate(path, START + 1024)
    report = check(path, key=KEY)
    assert (report.integrity, len(report.problems)) == ((), 1)


def test_a_first_page_that_was_begun_and_never_committed_is_no_damage(tmp_path: Path) -> None:
    path, copy = made(tmp_path / "source"), tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY)) as connection, write_lock(connection):
        # as a new database's superblock is until its first transaction ends
        files_of(connection)[0].update_superblock(lambda superblock: msgspec.structs.replace(superblock, populated=False))
        shutil.copy(path, copy)
    os.truncate(copy, START + 1000)
    report = check(copy, key=KEY)
    assert (report.ok, report.pages) == (True, 0)
    assert "a writer was interrupted there" in report.notes[0]
