"""Look at a database's files without letting SQLite recover them: WAL, journal, and each page as a reader would see it.

Reads go through the same file objects that SQLite uses, in the order in which it recovers (walIndexRecover, pager_playback), so
that what is reported is what recovery would find. Nothing is written, and the database is held under a SHARED lock.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import apsw

from heliosvfs.errors import HeliosError
from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.pages import NotAuthenticError, UnknownEpochError
from heliosvfs.vfs.database import DatabaseFile
from heliosvfs.vfs.frame_batches import FRAME_HEADER
from heliosvfs.vfs.journal import JournalFile, record_checksum
from heliosvfs.vfs.wal import WalFile
from heliosvfs.vfs.wal_header import WAL_HEADER, wal_checksum

__all__ = ["JournalScan", "PageView", "WalScan", "view_of"]

_NO_COUNT = 0xFFFFFFFF  # record count of a journal that is written without syncs


@dataclass
class WalScan:
    """What a WAL holds.

    Attributes:
        frames: Number of frames that recovery would accept, up to the last commit.
        leftover: Number of whole frames behind them: torn, rolled back, or of an earlier log.
        page_count: Pages of the database after the last commit, 0 if there is none.
        latest: Offset of the newest committed frame of each page.
    """

    frames: int = 0
    leftover: int = 0
    page_count: int = 0
    latest: dict[int, int] = field(default_factory=dict)


@dataclass
class JournalScan:
    """What a rollback journal holds.

    Attributes:
        hot: Whether recovery would roll it back.
        records: Number of records that recovery would accept.
        page_count: Pages of the database before the transaction.
        images: Offset of each page's image.
        problem: Why recovery would stop before the journal's own record count, or "".
    """

    hot: bool = False
    records: int = 0
    page_count: int = 0
    images: dict[int, int] = field(default_factory=dict)
    problem: str = ""


def _scan_wal(wal: WalFile, page_size: int) -> WalScan:
    scan, frame_size = WalScan(), FRAME_HEADER + page_size
    header = bytes(wal.xRead(WAL_HEADER, 0))
    if len(header) < WAL_HEADER:
        return scan
    order = ">" if header[3] & 1 else "<"
    sums = wal_checksum(header[:24], order, 0, 0)
    whole = (wal.xFileSize() - WAL_HEADER) // frame_size
    pending: dict[int, int] = {}
    for number in range(whole if struct.pack(">II", *sums) == header[24:] else 0):
        offset = WAL_HEADER + number * frame_size
        frame = bytes(wal.xRead(frame_size, offset))
        sums = wal_checksum(frame[:8] + frame[FRAME_HEADER:], order, *sums)
        if frame[8:16] != header[16:24] or struct.pack(">II", *sums) != frame[16:24]:
            break
        page, commit = struct.unpack(">II", frame[:8])
        pending[page] = offset
        if commit:
            scan.latest.update(pending)
            pending.clear()
            scan.frames, scan.page_count = number + 1, commit
    scan.leftover = max(0, whole - scan.frames)
    return scan


def _scan_journal(journal: JournalFile, page_size: int) -> JournalScan:
    scan = JournalScan()
    size, start = journal.xFileSize(), 0

    def word(offset: int) -> int:
        return int.from_bytes(bytes(journal.xRead(4, offset)).ljust(4, b"\0"), "big")

    if size < 512 or not bytes(journal.xRead(1, 0)).strip(b"\0"):  # noqa: PLR2004 - no header is smaller
        return scan
    while start + 28 <= size and bytes(journal.xRead(8, start)) == bytes.fromhex("d9d505f920a163d7"):
        count, nonce, pages, sector = (word(start + 8 + 4 * i) for i in range(4))
        if not scan.hot:
            scan.hot, scan.page_count = True, pages
        offset = start + sector
        if count == _NO_COUNT:
            count = (size - offset) // (page_size + 8)
        for _ in range(count):
            number = word(offset)
            page = bytes(journal.xRead(page_size, offset + 4))
            if word(offset + 4 + page_size) != record_checksum(nonce, page):
                scan.problem = f"the record at offset {offset} is torn or damaged: recovery stops there"
                return scan
            scan.images.setdefault(number, offset + 4)
            scan.records += 1
            offset += page_size + 8
        start = -(-offset // sector) * sector
    return scan


class PageView:
    """The pages of a database as a reader sees them: a WAL's newest commit, a hot journal's images, else the file.

    Attributes:
        page_size: Bytes of a page.
        usable_size: Bytes of it that SQLite uses.
        page_count: Pages of the database.
        file_pages: Whole pages in the database file.
        wal: What the WAL holds.
        journal: What the journal holds.
        notes: What could not be looked at, and why.
        has_stale_superblock: Whether the two copies of the superblock differ, or one is damaged.
    """

    def __init__(self, file: DatabaseFile, wal: WalFile | None, journal: JournalFile | None) -> None:
        """Scan WAL and journal."""
        superblock = file.access.superblock
        self.page_size = superblock.page_size
        self.usable_size = superblock.page_size - RESERVED_BYTES
        self.layout = superblock.layout
        self.has_stale_superblock = file.access.is_stale
        self._file, self._wal, self._journal = file, wal, journal
        self.wal, self.journal, self.notes = WalScan(), JournalScan(), list[str]()
        self.file_pages = file.xFileSize() // self.page_size
        try:
            if wal is not None:
                self.wal = _scan_wal(wal, self.page_size)
            if journal is not None and not file.xCheckReservedLock():
                self.journal = _scan_journal(journal, self.page_size)
        except HeliosError as error:
            self.notes.append(str(error))
        self.page_count = self.wal.page_count or (self.journal.page_count if self.journal.hot else 0) or self.file_pages

    def read(self, number: int) -> bytes | None:
        """Return a plain page, or None where it does not authenticate or is not there."""
        try:
            if number in self.wal.latest and self._wal is not None:
                return bytes(self._wal.xRead(self.page_size, self.wal.latest[number] + FRAME_HEADER))
            if self.journal.hot and number in self.journal.images and self._journal is not None:
                return bytes(self._journal.xRead(self.page_size, self.journal.images[number]))
        except HeliosError:
            return None
        return None if self.failure(number) else bytes(self._file.pages.open_page(number))

    def failure(self, number: int) -> str:
        """Return why a page in the database file does not open, "" if it does."""
        for _ in range(2):  # another process's checkpoint may be writing it at this moment
            try:
                self._file.pages.open_page(number)
            except UnknownEpochError as error:
                self._file.refresh()
                why = str(error)
            except NotAuthenticError as error:
                why = str(error)
            else:
                return ""
        return why


@contextmanager
def view_of(file: DatabaseFile) -> Iterator[PageView]:
    """View an unlocked database file that its connection is not using; SQLite must not touch it meanwhile.

    Raises:
        KeyUnavailableError: The file is locked.
        apsw.BusyError: Another process holds it exclusively.
    """
    opened: list[apsw.VFSFile] = []

    def beside(suffix: str, kind: int, cls: type[WalFile | JournalFile]) -> WalFile | JournalFile | None:
        try:
            found = cls(file.base_name, file.path + suffix, [kind | apsw.SQLITE_OPEN_READONLY, 0], file)
        except apsw.CantOpenError:
            return None
        opened.append(found)
        return found

    file.xLock(apsw.SQLITE_LOCK_SHARED)
    try:
        wal = beside("-wal", apsw.SQLITE_OPEN_WAL, WalFile)
        journal = beside("-journal", apsw.SQLITE_OPEN_MAIN_JOURNAL, JournalFile)
        assert wal is None or isinstance(wal, WalFile)  # noqa: S101 - for the type checker
        assert journal is None or isinstance(journal, JournalFile)  # noqa: S101 - for the type checker
        yield PageView(file, wal, journal)
    finally:
        for found in opened:
            found.xClose()
        file.xUnlock(apsw.SQLITE_LOCK_NONE)
