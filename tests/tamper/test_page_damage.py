"""Pages of the database file: nothing of one that was altered, moved or brought from elsewhere reaches the caller."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.check import check
from tests.tamper.samples import (
    FRAME,
    KEY,
    OTHER_KEY,
    PAGE,
    Sample,
    flip,
    make,
    outcome,
    page_count,
    page_offset,
    piece,
    put,
)

PAGES = [1, 2, 3, 9, 20]
PARTS = {
    "first byte": 0,
    "body": 200,
    "end of the body": 479,
    "tag": 480,
    "end of the tag": 495,
    "nonce": 496,
    "end of the nonce": 507,
    "epoch": 510,
    "high byte of the epoch": 508,
    "sub-key": 511,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make(tmp_path_factory.mktemp("original"), "closed")


@pytest.fixture
def sample(original: Sample, tmp_path: Path) -> Sample:
    return original.copy(tmp_path / "sample")


def refused(sample: Sample, page: int) -> None:
    """Require the error that names the page, by reading and by check."""
    altered = sample.path.read_bytes()
    error = outcome(sample)
    assert isinstance(error, heliosvfs.TamperedError)
    assert isinstance(error, apsw.IOError)
    assert (error.file, error.page, error.offset) == (str(sample.path), page, page_offset(page))
    assert f"page {page} " in str(error)
    assert page in [bad.page for bad in check(sample.path, key=KEY).bad_pages]
    assert sample.path.read_bytes() == altered


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("page", PAGES)
def test_a_flipped_bit_in_a_page_is_refused(sample: Sample, page: int, part: str) -> None:
    flip(sample.path, page_offset(page) + PARTS[part])
    refused(sample, page)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_zeros_is_refused(sample: Sample, page: int) -> None:
    put(sample.path, page_offset(page), bytes(PAGE))
    refused(sample, page)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_in_the_clear_is_refused(sample: Sample, page: int) -> None:
    """Nobody is given plain bytes because they look plain."""
    put(sample.path, page_offset(page), (b"SQLite format 3\0" if page == 1 else b"\x0d").ljust(PAGE, b"\0"))
    refused(sample, page)


@pytest.mark.parametrize(("page", "other"), [(1, 2), (2, 3), (9, 10), (20, 4)])
def test_a_page_moved_to_another_slot_is_refused(sample: Sample, page: int, other: int) -> None:
    put(sample.path, page_offset(page), piece(sample.path, page_offset(other), PAGE))
    refused(sample, page)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("key", [KEY, OTHER_KEY], ids=["same key", "other key"])
def test_a_page_of_another_file_is_refused(sample: Sample, tmp_path: Path, page: int, key: bytes) -> None:
    """Files made with the same key have keys of their own for their pages."""
    other = make(tmp_path / "other", "closed", key=key)
    put(sample.path, page_offset(page), piece(other.path, page_offset(page), PAGE))
    refused(sample, page)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_a_copy_made_by_vacuum_into_is_refused(sample: Sample, tmp_path: Path, page: int) -> None:
    """The copy opens with the same key, and is another file all the same."""
    with closing(heliosvfs.connect(sample.path, key=KEY)) as connection:
        connection.vacuum_into(tmp_path / "copy")
    put(sample.path, page_offset(page), piece(tmp_path / "copy", page_offset(page), PAGE))
    refused(sample, page)


def test_a_page_from_the_wal_is_refused_in_the_database(tmp_path: Path) -> None:
    """A frame's page is sealed with its header, and a journal's image as a journal's."""
    sample = make(tmp_path / "wal", "wal")
    frames = (sample.beside("-wal").stat().st_size - 32) // FRAME
    for frame in range(frames):
        copy = sample.copy(tmp_path / "copy")
        body = piece(copy.beside("-wal"), 32 + frame * FRAME + 24, PAGE)
        copy.beside("-wal").unlink()
        for page in range(1, page_count(copy.path) + 1):
            put(copy.path, page_offset(page), body)
        assert isinstance(outcome(copy), heliosvfs.TamperedError)


@pytest.mark.parametrize("record", range(6))
def test_an_image_from_the_journal_is_refused_in_the_database(tmp_path: Path, record: int) -> None:
    sample = make(tmp_path / "delete", "delete")
    start = 512 + record * (PAGE + 8)
    if record >= int.from_bytes(piece(sample.beside("-journal"), 8, 4), "big"):
        start = 512  # of another segment: the first record again
    number = int.from_bytes(piece(sample.beside("-journal"), start, 4), "big")
    put(sample.path, page_offset(number), piece(sample.beside("-journal"), start + 4, PAGE))
    sample.beside("-journal").unlink()
    error = outcome(sample)
    assert isinstance(error, heliosvfs.TamperedError)
    assert error.page == number


@pytest.mark.parametrize("tail", [b"x", bytes(100), bytes(PAGE), b"\xff" * 5 * PAGE])
def test_bytes_behind_the_last_page_change_nothing(sample: Sample, tail: bytes) -> None:
    """The database says how many pages it has, on a page that authenticates."""
    with sample.path.open("ab") as file:
        file.write(tail)
    assert outcome(sample) == sample.states[-1]
    with closing(heliosvfs.connect(sample.path, key=KEY)) as connection:
        connection.execute("INSERT INTO t SELECT 100 + i, x FROM t")
        connection.pragma("wal_checkpoint", "TRUNCATE")
        assert connection.pragma("integrity_check") == "ok"
    assert check(sample.path, key=KEY).ok


@pytest.mark.parametrize("part", PARTS)
def test_damage_that_comes_while_a_connection_reads_is_refused(sample: Sample, part: str) -> None:
    """The first page is answered from memory only as long as its seal on disk is the one that was opened."""
    with closing(heliosvfs.connect(sample.path, key=KEY, cache_mb=0.001)) as connection:
        assert connection.execute("SELECT count(*) FROM t").get == 60
        for page in range(2, page_count(sample.path) + 1):
            flip(sample.path, page_offset(page) + PARTS[part])
        connection.release_memory()
        with pytest.raises(heliosvfs.TamperedError):
            connection.execute("SELECT max(x) FROM t").fetchall()
        for page in range(2, page_count(sample.path) + 1):
            flip(sample.path, page_offset(page) + PARTS[part])
        assert dict(connection.execute("SELECT i, x FROM t").fetchall()) == sample.states[-1]


def test_a_plain_apsw_connection_and_blob_reads_are_refused_too(sample: Sample) -> None:
    for page in range(2, page_count(sample.path) + 1):
        flip(sample.path, page_offset(page))
    with closing(apsw.Connection(str(sample.path), vfs="heliosvfs")) as connection:
        connection.execute(f"PRAGMA key = \"x'{KEY.hex()}'\"")
        with pytest.raises(heliosvfs.TamperedError):
            connection.execute("SELECT * FROM t").fetchall()
        with pytest.raises(heliosvfs.TamperedError):
            connection.blob_open("main", "t", "x", 20, False)
        with closing(apsw.Connection(":memory:")) as plain:
            backup = plain.backup("main", connection, "main")
            with pytest.raises(apsw.IOError):  # SQLite's own: APSW's backup hands on the result code alone
                backup.step(-1)
            backup.close(True)


OPEN_ALL = """
import sys
from contextlib import closing
import apsw, heliosvfs
for path in sys.argv[1:]:
    try:
        with closing(heliosvfs.connect(path, key=bytes(range(32)), create=False)) as connection:
            rows = connection.execute("SELECT * FROM t").fetchall()
            connection.pragma("integrity_check")
            connection.execute("UPDATE t SET x = x")
        print(len(rows))
    except (heliosvfs.HeliosError, apsw.CorruptError) as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize("mode", ["closed", "wal", "delete", "persist"])
def test_no_damage_ends_the_process(tmp_path: Path, mode: str) -> None:
    """Reading and writing files with a flipped byte every so often: each ends in rows or an error, in a process of its own."""
    original = make(tmp_path / "original", mode)
    paths = []
    for suffix in ("", "-wal", "-journal"):
        if original.beside(suffix).exists():
            size = original.beside(suffix).stat().st_size
            for number in range(12):
                copy = original.copy(tmp_path / f"{suffix}{number}")
                flip(copy.beside(suffix), (size * number // 12 + 37 * number) % size, 1 << number % 8)
                paths.append(str(copy.path))
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", OPEN_ALL, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(paths)
