"""Look at a database's files without letting SQLite recover them: WAL, journal, and each page as a reader would see it.

Reads go through the same file objects that SQLite uses, in the order in which it recovers (walIndexRecover, pager_playback), so
that what is reported is what recovery would find. Nothing is written, and the database is held under a SHARED lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from heliosvfs.errors import HeliosError
from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.pages import NotAuthenticError, UnknownEpochError
from heliosvfs.vfs.database import DatabaseFile
from heliosvfs.vfs.frame_batches import FRAME_HEADER
from heliosvfs.vfs.journal import JournalFile
from heliosvfs.vfs.journal_scans import JournalScan, scan_journal
from heliosvfs.vfs.wal import WalFile
from heliosvfs.vfs.wal_scans import WalScan, scan_wal

__all__ = ["JournalScan", "PageView", "WalScan", "view_of"]


class PageView:
    """The pages of a database as a reader sees them: a WAL's newest commit, a hot journal's images, else the file.

    Attributes:
        page_size: Bytes of a page.
        usable_size: Bytes of it that SQLite uses.
        page_count: Pages of the database.
        file_pages: Whole pages in the database file.
        wal: What the WAL holds.
        journal: What the journal holds.
        problems: What makes it uncertain that these are the pages of the last commit.
        notes: What else is good to know of WAL and journal.
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
        self.wal, self.journal, self.problems, self.notes = WalScan(), JournalScan(), list[str](), list[str]()
        self.file_pages = file.xFileSize() // self.page_size
        try:
            if wal is not None:
                self.wal = scan_wal(wal, self.page_size)
            if journal is not None and not file.xCheckReservedLock():
                self.journal = scan_journal(journal, self.page_size, os.path.dirname(os.path.realpath(file.path)))
                if file.xCheckReservedLock():  # another process has begun to write it meanwhile
                    self.journal = JournalScan()
        except HeliosError as error:
            self.problems.append(str(error))
        self._note_what_the_scans_found()
        self.page_count = self.wal.page_count or (self.journal.page_count if self.journal.hot else 0) or self.file_pages

    def _note_what_the_scans_found(self) -> None:
        """Say what WAL and journal leave uncertain, and what recovery will make of the rest."""
        if not self.wal.problem and (why := self._newer_than_the_wal()):
            self.wal.doubt(why)
        self.problems += filter(None, (self.journal.problem, self.wal.problem))
        self.notes += filter(None, (self.journal.note,))
        if self.wal.leftover and not self.wal.problem:
            self.notes.append(
                f"{self.wal.leftover} frames of the WAL were not used, as SQLite would not use them: they are of an earlier log, "
                "or of a transaction that did not end"
            )

    def read_beyond_damage(self) -> None:
        """Go by all frames of the WAL that open, up to the last that commits: a page may be older then than the others."""
        if self.wal.pages_beyond:
            self.wal.latest, self.page_count = self.wal.beyond, self.wal.pages_beyond
            self.notes.append(
                "frames of the WAL behind damage were used: a page that a damaged one held is as it was at an earlier commit"
            )

    def _newer_than_the_wal(self) -> str:
        """Say so if a checkpoint has copied what is left over in the WAL: then it had been committed (walCheckpoint)."""
        for page, offset in self.wal.unused:
            latest, copied = self.wal.latest.get(page), self._in_file(page)
            if latest is None or copied is None or self._wal is None:
                continue
            unused, used = (bytes(self._wal.xRead(self.page_size, at + FRAME_HEADER)) for at in (offset, latest))
            if copied == unused != used:
                return f"page {page} is in the database already as one of them has it, and so it was committed"
        return ""

    def _in_file(self, number: int) -> bytes | None:
        return None if self.failure(number) else bytes(self._file.pages.open_page(number))

    def read(self, number: int) -> bytes | None:
        """Return a plain page, or None where it does not authenticate or is not there."""
        try:
            if number in self.wal.latest and self._wal is not None:
                return bytes(self._wal.xRead(self.page_size, self.wal.latest[number] + FRAME_HEADER))
            if self.journal.hot and number in self.journal.images and self._journal is not None:
                return bytes(self._journal.xRead(self.page_size, self.journal.images[number]))
        except HeliosError:
            return None
        return self._in_file(number)

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
