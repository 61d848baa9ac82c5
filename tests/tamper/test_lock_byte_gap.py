"""A real file that reaches over the lock bytes at 1 GiB; in the short form most of it is a hole of free pages."""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.layout import GAP_END, GAP_START, Layout
from heliosvfs.vfs import files_of
from tests.tamper.samples import KEY, flip

PAGE = 65536
LAYOUT = Layout(PAGE)
TRUNK = 3  # the page of the sparse database that lists its free pages


def alter_page(path: Path, number: int, change: Callable[[bytearray], None]) -> None:
    """Change a plain page behind SQLite's back."""
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        (file,) = files_of(connection)
        page = bytearray(PAGE) if number == TRUNK else bytearray(file.xRead(PAGE, (number - 1) * PAGE))
        change(page)
        file.xWrite(bytes(page), (number - 1) * PAGE)
        connection.execute("ROLLBACK")


def body(row: int, state: int) -> bytes:
    """Return what a row holds: it fills a page of its own."""
    return random.Random(row * 10 + state).randbytes(60000)


def make_sparse(path: Path, mode: str) -> int:
    """Make a database with rows on both sides of the gap, and a hole of free pages before them; return its page count.

    SQLite goes on behind the pages that page 1 counts. The hole becomes the leaves of one freelist trunk, which nothing
    reads (SQLite file format 1.3 and 1.5).
    """
    with closing(heliosvfs.connect(path, key=KEY, page_size=PAGE, journal_mode="delete")) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x BLOB)")
        assert connection.pragma("page_count") < TRUNK
    last = LAYOUT.first_after_gap - 8
    os.truncate(path, LAYOUT.file_size(last * PAGE))
    alter_page(path, 1, lambda page: struct.pack_into(">I", page, 28, last))
    with closing(heliosvfs.connect(path, key=KEY, journal_mode=mode)) as connection:
        assert connection.pragma("journal_mode") == mode
        connection.executemany("INSERT INTO t VALUES(?, ?)", ((row, body(row, 0)) for row in range(16)))
        pages = connection.pragma("page_count")
        connection.pragma("cache_size", 3)
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t VALUES(?, ?)", ((row, body(row, 0)) for row in range(100, 116)))
        connection.execute("ROLLBACK")  # which cuts the file behind the gap
        assert connection.pragma("page_count") == pages
    leaves = range(TRUNK + 1, last + 1)
    alter_page(path, TRUNK, lambda page: struct.pack_into(f">{2 + len(leaves)}I", page, 0, 0, len(leaves), *leaves))
    alter_page(path, 1, lambda page: struct.pack_into(">II", page, 32, TRUNK, 1 + len(leaves)))
    return pages


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_pages_on_both_sides_of_the_lock_bytes_are_read_written_and_rolled_back(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "db"
    pages = make_sparse(path, mode)
    assert pages > LAYOUT.first_after_gap + 5
    assert path.stat().st_size == LAYOUT.file_size(pages * PAGE) > GAP_END
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert connection.pragma("page_count") == pages
        assert connection.pragma("integrity_check") == "ok"
        assert connection.execute("SELECT i, x FROM t").fetchall() == [(row, body(row, 0)) for row in range(16)]
        connection.pragma("cache_size", 3)
        for end, state in (("ROLLBACK", 0), ("COMMIT", 1)):
            connection.execute("BEGIN")
            connection.executemany("UPDATE t SET x = ? WHERE i = ?", [(body(row, 1), row) for row in range(16)])
            connection.execute(end)
            assert connection.execute("SELECT i, x FROM t").fetchall() == [(row, body(row, state)) for row in range(16)]
    assert path.stat().st_size == LAYOUT.file_size(pages * PAGE)
    assert not piece_of(path, GAP_START, GAP_END - GAP_START).strip(b"\0")
    behind = LAYOUT.first_after_gap + 3
    flip(path, LAYOUT.offset(behind) + 100)
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        with pytest.raises(heliosvfs.TamperedError) as caught:
            connection.execute("SELECT i, x FROM t").fetchall()
        assert (caught.value.page, caught.value.offset) == (behind, GAP_END + 3 * PAGE)
    flip(path, LAYOUT.offset(behind) + 100)
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("DELETE FROM t WHERE i >= 4")
        connection.execute("VACUUM")
        if mode == "wal":
            connection.pragma("wal_checkpoint", "TRUNCATE")
        assert path.stat().st_size < 20 * PAGE
        assert connection.pragma("integrity_check") == "ok"
        assert connection.execute("SELECT i, x FROM t").fetchall() == [(row, body(row, 1)) for row in range(4)]


def test_the_check_finds_what_is_bad_behind_the_lock_bytes(tmp_path: Path) -> None:
    path = tmp_path / "db"
    pages = make_sparse(path, "delete")
    flip(path, LAYOUT.offset(pages) + 100)
    report = check(path, key=KEY)
    assert [bad.page for bad in report.bad_pages if not bad.harmless] == [pages]
    assert report.pages == pages
    assert not report.ok


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["wal", "off"])
def test_a_database_grows_over_the_lock_bytes_and_shrinks_again(tmp_path: Path, mode: str) -> None:
    """About 18,000 pages of 65536 bytes: what lies before, behind and at the gap is read, checked, damaged and found."""
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("takes 3 GiB of disk")
    path, layout = tmp_path / "db", LAYOUT
    with closing(heliosvfs.connect(path, key=KEY, page_size=PAGE, journal_mode=mode, auto_vacuum="incremental")) as connection:
        connection.pragma("synchronous", "off")
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x BLOB)")
        for number in range(36):
            connection.execute("INSERT INTO t VALUES(?, zeroblob(31000000))", (number,))
            if mode == "wal" and number % 6 == 5:
                connection.pragma("wal_checkpoint", "TRUNCATE")
        connection.execute("INSERT INTO t VALUES(100, ?)", (b"marker" * 100,))
        if mode == "wal":
            connection.pragma("wal_checkpoint", "TRUNCATE")
        pages = connection.pragma("page_count")
        assert pages > layout.first_after_gap + 50
        assert path.stat().st_size == layout.file_size(pages * PAGE) > GAP_END
        assert connection.execute("SELECT sum(length(x)), count(*) FROM t WHERE i < 100").fetchall() == [(36 * 31000000, 36)]
        assert connection.execute("SELECT x FROM t WHERE i = 100").get == b"marker" * 100
    assert not piece_of(path, GAP_START, GAP_END - GAP_START).strip(b"\0")
    report = check(path, key=KEY)
    assert report.ok
    behind = layout.first_after_gap + 3
    flip(path, layout.offset(behind) + 100)
    assert [bad.page for bad in check(path, key=KEY).bad_pages] == [behind]
    flip(path, layout.offset(behind) + 100)
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("DELETE FROM t WHERE i BETWEEN 5 AND 50")
        connection.execute("PRAGMA incremental_vacuum").fetchall()
        if mode == "wal":
            connection.pragma("wal_checkpoint", "TRUNCATE")
        assert path.stat().st_size < GAP_START
        assert connection.pragma("integrity_check") == "ok"
        assert connection.execute("SELECT x FROM t WHERE i = 100").get == b"marker" * 100


def piece_of(path: Path, offset: int, size: int) -> bytes:
    """Return bytes of a file that is too large to be read whole."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)
