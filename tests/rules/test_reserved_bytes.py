"""The last bytes of a page hold its seal: a page that uses them is refused, or what it holds there would be lost in silence."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.vfs import files_of
from heliosvfs.vfs.journal import JournalFile
from tests.rules.conftest import KEY

PAGE = 512
SECTOR = 512
JOURNAL = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
HEADER = bytes.fromhex("d9d505f920a163d7") + b"".join(n.to_bytes(4, "big") for n in (0, 7, 3, SECTOR, PAGE))
FIRST_RECORD = SECTOR
RESERVED = pytest.mark.parametrize("at", [-32, -17, -1])


@RESERVED
@pytest.mark.parametrize("number", [1, 2])
def test_a_page_of_the_database_that_uses_its_reserved_bytes_is_refused(tmp_path: Path, number: int, at: int) -> None:
    path, place = tmp_path / "db", (number - 1) * PAGE
    with closing(heliosvfs.connect(path, key=KEY, journal_mode="delete", page_size=PAGE)) as connection:
        connection.execute("CREATE TABLE t(x)")
        before = path.read_bytes()
        file = files_of(connection)[0]
        page = bytearray(file.xRead(PAGE, place))
        page[at] = 1
        with pytest.raises(heliosvfs.RefusedWriteError, match=f"page {number} uses the last 32 bytes"):
            file.xWrite(bytes(page), place)
        assert path.read_bytes() == before
        page[at] = 0
        file.xWrite(bytes(page), place)
        assert path.read_bytes() != before


@RESERVED
def test_a_page_of_the_journal_that_uses_its_reserved_bytes_is_refused(tmp_path: Path, at: int) -> None:
    """What it held there could not be rolled back."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, journal_mode="delete", page_size=PAGE)) as connection:
        connection.execute("CREATE TABLE t(x); BEGIN IMMEDIATE")
        journal = JournalFile("unix", f"{path}-journal", [JOURNAL, 0], files_of(connection)[0])
        try:
            page = bytearray(b"x" * (PAGE - 32) + bytes(32))
            page[at] = 1
            journal.xWrite(HEADER.ljust(SECTOR, b"\0"), 0)
            journal.xWrite((2).to_bytes(4, "big"), FIRST_RECORD)
            before = Path(f"{path}-journal").read_bytes()
            with pytest.raises(heliosvfs.RefusedWriteError, match="page 2 uses the last 32 bytes"):
                journal.xWrite(bytes(page), FIRST_RECORD + 4)
            assert Path(f"{path}-journal").read_bytes() == before
            page[at] = 0
            journal.xWrite((2).to_bytes(4, "big"), FIRST_RECORD)
            journal.xWrite(bytes(page), FIRST_RECORD + 4)
            assert Path(f"{path}-journal").stat().st_size == FIRST_RECORD + 4 + PAGE
        finally:
            journal.xClose()
        connection.execute("ROLLBACK")
