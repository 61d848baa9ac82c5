"""Check a database: does every page authenticate, what do WAL and journal hold, and is SQLite content with it?

First the files are looked at as they are, without letting SQLite recover anything. Then the database is opened, which does what
any next open would do (roll a hot journal back, say), and SQLite's integrity_check runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import apsw

from heliosvfs import btrees
from heliosvfs.errors import DiskFullError, HeliosError, UsageError
from heliosvfs.keyring import Key
from heliosvfs.opening import connect, open_untouched
from heliosvfs.vfs import PageView, files_of, view_of

__all__ = ["BadPage", "CheckReport", "check", "open_pages"]

Progress = Callable[[int, int], None]
_BATCH = 256  # pages between two calls of a progress function


@dataclass(frozen=True)
class BadPage:
    """A page of the database file that fails authentication.

    Attributes:
        page: Its number.
        offset: Its offset in the file, in bytes.
        owner: The table or index that it belongs to, or what else it is.
        why: What was found.
        harmless: Why nothing depends on it, or "" if it is damage.
    """

    page: int
    offset: int
    owner: str
    why: str
    harmless: str = ""


_OF_THE_MOMENT = (UsageError, DiskFullError, apsw.FullError, apsw.BusyError, apsw.NoMemError, apsw.InterruptError)
_ONE_COPY = "one copy of the superblock is damaged or older than the other, which is in force: the next write makes both equal"


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        path: The database.
        pages: Pages in the database file, each of which was opened.
        bad_pages: Those that fail authentication.
        wal_frames: Committed frames in the WAL.
        wal_leftover: Whole frames behind them that no reader uses.
        hot_journal: Whether a journal was waiting to be rolled back.
        journal_records: Records in it.
        problems: What else is wrong with the files.
        integrity: What SQLite's integrity_check reported; empty if it found nothing.
        notes: What else is good to know: nothing is lost by it.
    """

    path: str
    pages: int
    bad_pages: tuple[BadPage, ...]
    wal_frames: int
    wal_leftover: int
    hot_journal: bool
    journal_records: int
    problems: tuple[str, ...]
    integrity: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems and not self.integrity and all(page.harmless for page in self.bad_pages)


@contextmanager
def open_pages(path: str | os.PathLike[str], *, key: Key | None = None, vfs: str = "heliosvfs") -> Iterator[PageView]:
    """View the pages of a database as its files are now, without recovering anything.

    Raises:
        KeyUnavailableError, WrongKeyError, FormatError, TamperedError, UsageError: As `heliosvfs.connect`.
    """
    connection = open_untouched(path, key=key, vfs=vfs)
    try:
        with view_of(files_of(connection)[0]) as view:
            yield view
    finally:
        connection.close()


def check(
    path: str | os.PathLike[str], *, key: Key | None = None, vfs: str = "heliosvfs", progress: Progress | None = None
) -> CheckReport:
    """Check every page of a database, its WAL and its journal, then run SQLite's integrity_check.

    Args:
        path: The database.
        key: Its key; None: the VFS's keyring has it.
        vfs: Name of a registered `heliosvfs.HeliosVFS`.
        progress: Called with pages done and pages in all.

    Raises:
        KeyUnavailableError, WrongKeyError, FormatError, UsageError: It can't be opened at all.
        TamperedError: The superblock is damaged or was altered: without it no page can be opened.
        UsageError, DiskFullError, apsw.BusyError: integrity_check could not run now: nothing is known of the database.
    """
    with open_pages(path, key=key, vfs=vfs) as view:
        bad = _bad_pages(view, progress)
        notes = [_ONE_COPY] if view.has_stale_superblock else []
        problems = [*view.notes, *([view.journal.problem] if view.journal.problem else [])]
        if view.journal.hot is False and not view.wal.frames and view.file_pages < _header_pages(view):
            problems.append(f"the file ends after {view.file_pages} of {_header_pages(view)} pages: it was truncated")
    return CheckReport(
        path=os.fspath(path),
        pages=view.file_pages,
        bad_pages=bad,
        wal_frames=view.wal.frames,
        wal_leftover=view.wal.leftover,
        hot_journal=view.journal.hot,
        journal_records=view.journal.records,
        problems=tuple(problems),
        integrity=_integrity(path, key, vfs) if view.page_count else (),  # a database may not have had its first page yet
        notes=tuple(notes),
    )


def _header_pages(view: PageView) -> int:
    """Return the number of pages that page 1 speaks of, 0 where it is not to be relied on (SQLite file format 1.3.7)."""
    header = view.read(1) or bytes(100)
    return int.from_bytes(header[28:32], "big") if header[24:28] == header[92:96] else 0


def _bad_pages(view: PageView, progress: Progress | None) -> tuple[BadPage, ...]:
    failures: dict[int, str] = {}
    for number in range(1, view.file_pages + 1):
        why = view.failure(number)
        if why:
            failures[number] = why
        if progress is not None and (number % _BATCH == 0 or number == view.file_pages):
            progress(number, view.file_pages)
    if not failures:
        return ()
    owners = btrees.owners(view.read, view.page_size, view.usable_size, view.page_count)
    return tuple(
        BadPage(number, view.layout.offset(number), str(owners.get(number, "unknown")), why, _harmless(view, number, owners))
        for number, why in failures.items()
    )


def _harmless(view: PageView, number: int, owners: dict[int, btrees.Owner]) -> str:
    if number in view.wal.latest:
        return "the WAL holds its content"
    if view.journal.hot and number in view.journal.images:
        return "the hot journal holds its content"
    if number > view.page_count:
        return "it lies behind the end of the database"
    owner = owners.get(number)
    if owner is not None and owner.kind == "freelist leaf":
        return "it is unused: SQLite does not protect free pages from a power cut, and nothing reads them"
    if number == view.layout.lock_page:
        return "SQLite never uses the lock-byte page"
    return ""


def _integrity(path: str | os.PathLike[str], key: Key | None, vfs: str) -> tuple[str, ...]:
    try:
        connection = connect(path, key=key, create=False, vfs=vfs)
    except _OF_THE_MOMENT:
        raise
    except (HeliosError, apsw.Error) as error:
        return (f"it can't be opened: {error}",)
    try:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
    except _OF_THE_MOMENT:
        raise
    except (HeliosError, apsw.Error) as error:
        return (f"integrity_check stopped: {error}",)
    finally:
        connection.close()
    return () if found == ["ok"] else tuple(found)
