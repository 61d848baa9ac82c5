"""A real file that reaches over the lock bytes at 1 GiB."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.layout import GAP_END, GAP_START, Layout
from tests.tamper.samples import KEY, flip

PAGE = 65536


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["wal", "off"])
def test_a_database_grows_over_the_lock_bytes_and_shrinks_again(tmp_path: Path, mode: str) -> None:
    """About 18,000 pages of 65536 bytes: what lies before, behind and at the gap is read, checked, damaged and found."""
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("takes 3 GiB of disk")
    path, layout = tmp_path / "db", Layout(PAGE)
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
