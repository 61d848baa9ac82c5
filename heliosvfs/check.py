"""Check a database: does every page authenticate, what do WAL and journal hold, and is SQLite content with it?

First the files are looked at as they are, without letting SQLite recover anything. Then the database is opened, which rolls a hot
journal back as any next open would do, and SQLite's integrity_check runs; the WAL stays. Where it is in doubt what WAL or journal
hold, the database is not opened: SQLite would take the damaged place for their end, and remove the rest. What it lacks of the
application's own functions and collations is no damage: it is named, and whatever does not need it is checked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import apsw

from heliosvfs import btrees
from heliosvfs.errors import DiskFullError, HeliosError, UsageError
from heliosvfs.keyring import Key
from heliosvfs.opening import connect, open_untouched
from heliosvfs.vfs import DatabaseFile, PageView, files_of, view_of

__all__ = ["BadPage", "CheckReport", "check", "findings", "missing_here", "open_pages"]

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
_MISSING = re.compile(  # how SQLite says that it lacks what an application defines
    r"(?:no such|unknown|wrong number of arguments to) "
    r"(?P<kind>function|collation sequence|tokenizer|module):? (?P<name>.*?)(?:\(\))?",
    re.DOTALL,
)
_IN_DOUBT = "SQLite would recover the database first and remove what is in doubt: `heliosvfs salvage` takes all that is there"
_NO_PAGE = "there is no whole page"
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
        missing: Functions, collations and tokenizers of the application's own that SQLite lacks here, for which integrity_check
            could not look at everything. In the application it can, if `apsw.connection_hooks` gives them to each connection.
        unchecked: Why integrity_check did not run, "" if it did.
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
    missing: tuple[str, ...] = ()
    unchecked: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems and not self.integrity and all(page.harmless for page in self.bad_pages)


def missing_here(error: apsw.Error) -> str:
    """Return what of the database's application SQLite lacks here, in words; "" if the error is of another kind."""
    found = _MISSING.fullmatch(str(error)) if isinstance(error, apsw.SQLError) else None
    return f"the {found['kind'].removesuffix(' sequence')} {found['name']}" if found else ""


@contextmanager
def open_pages(path: str | os.PathLike[str], *, key: Key | None = None, vfs: str = "heliosvfs") -> Iterator[PageView]:
    """View the pages of a database as its files are now, without recovering anything.

    Raises:
        KeyUnavailableError, WrongKeyError, FormatError, TamperedError, UsageError: As `heliosvfs.connect`.
    """
    with _opened(path, key, vfs) as (_, view):
        yield view


@contextmanager
def _opened(path: str | os.PathLike[str], key: Key | None, vfs: str) -> Iterator[tuple[DatabaseFile, PageView]]:
    with closing(open_untouched(path, key=key, vfs=vfs)) as connection:
        file = files_of(connection)[0]
        with view_of(file) as view:
            yield file, view


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
    with _opened(path, key, vfs) as (file, view):
        bad = _bad_pages(view, progress)
        problems = list(view.problems)
        notes = [*view.notes, *([_ONE_COPY] if view.has_stale_superblock else [])]
        _look_at_the_end(file, view, problems, notes)
    unchecked = _IN_DOUBT if view.problems else "" if view.page_count else _NO_PAGE
    integrity, missing = ((), ()) if unchecked else _integrity(path, key, vfs, keeps_wal=bool(view.wal.frames))
    if missing:
        notes.append(
            f"integrity_check could not look at everything, which is no damage: it lacks {', '.join(missing)}, which the "
            "application that made the database has"
        )
    return CheckReport(
        path=os.fspath(path),
        pages=view.file_pages,
        bad_pages=bad,
        wal_frames=view.wal.frames,
        wal_leftover=view.wal.leftover,
        hot_journal=view.journal.hot,
        journal_records=view.journal.records,
        problems=tuple(problems),
        integrity=integrity,
        notes=tuple(notes),
        missing=missing,
        unchecked=unchecked,
    )


def _look_at_the_end(file: DatabaseFile, view: PageView, problems: list[str], notes: list[str]) -> None:
    """Say whether the file ends too early, and whether within a page.

    What a writer adds behind the committed end is torn if it is killed or the disk is full, and nothing depends on it. No writer
    takes page 1 away and leaves the superblock saying that pages have been committed (docs/FORMAT.md, "Superblock").
    """
    committed = _header_pages(view)
    pages, torn = divmod(file.xFileSize(), view.page_size)
    where = f"the file ends within page {pages + 1}, {torn} bytes after its beginning"
    if not pages and file.access.superblock.populated:
        problems.append(f"{where}, and pages have been committed: it was truncated")
    elif view.journal.hot is False and not view.wal.frames and pages < committed:
        problems.append(f"the file ends after {pages} of {committed} pages: it was truncated")
    elif torn:
        owners = btrees.owners(view.read, view.page_size, view.usable_size, view.page_count)
        harmless = _harmless(view, pages + 1, owners)
        if harmless:
            notes.append(f"{where}: a writer was interrupted there, and nothing is lost: {harmless}")
        else:
            problems.append(f"{where}, and neither WAL nor journal holds its content: it was truncated")


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


def _integrity(
    path: str | os.PathLike[str], key: Key | None, vfs: str, *, keeps_wal: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Run integrity_check; return what it found, and what it lacked of the database's application."""
    try:
        connection = connect(path, key=key, create=False, vfs=vfs)
    except _OF_THE_MOMENT:
        raise
    except (HeliosError, apsw.Error) as error:
        return (f"it can't be opened: {error}",), ()
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(keeps_wal))
    try:
        return findings(connection)
    finally:
        connection.close()


def findings(connection: apsw.Connection) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Run integrity_check on a connection; return what it found, and what it lacked of the database's application.

    Raises:
        UsageError, DiskFullError, apsw.BusyError: It could not run now.
    """
    try:
        return _found_by(connection, "integrity_check"), ()
    except apsw.SQLError as error:  # SQLite could not even begin
        return _in_pieces(connection, error)
    except _OF_THE_MOMENT:
        raise
    except (HeliosError, apsw.Error) as error:
        return (f"integrity_check stopped: {error}",), ()


def _found_by(connection: apsw.Connection, check: str) -> tuple[str, ...]:
    return tuple(str(text) for (text,) in connection.execute(f"PRAGMA main.{check}") if text != "ok")


def _in_pieces(connection: apsw.Connection, why: apsw.SQLError) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check each table for itself, then the whole as far as no expression is evaluated; return findings, and what is lacking.

    Args:
        connection: The database.
        why: Why that could not be done at once.
    """
    found, missing = list[str](), [missing_here(why)]
    tables = """SELECT name, format('("%w")', name), format('SELECT 1 FROM main."%w" WHERE "%w" MATCH ''x''', name, name)
        FROM main.sqlite_schema WHERE type = 'table'"""
    try:
        for table, quoted, match in connection.execute(tables).fetchall():
            try:
                found += _found_by(connection, f"integrity_check{quoted}")
            except apsw.SQLError as error:
                lacks = missing_here(error) or _lacks_for(connection, str(match))
                if lacks:
                    missing.append(lacks)
                else:
                    found.append(f"integrity_check of {table} stopped: {error}")
        connection.pragma("ignore_check_constraints", True)  # noqa: FBT003 - a PRAGMA's value
        with suppress(apsw.SQLError):  # what it lacks is known by now
            found += _found_by(connection, "quick_check")
    except _OF_THE_MOMENT:
        raise
    except (HeliosError, apsw.Error) as error:
        found.append(f"integrity_check stopped: {error}")
    known = tuple(dict.fromkeys(filter(None, missing)))
    if not known and not found:
        found.append(f"integrity_check stopped: {why}")
    return tuple(dict.fromkeys(found)), known


def _lacks_for(connection: apsw.Connection, query: str) -> str:
    """Return what a query lacks: integrity_check does not say which tokenizer an index for full-text search would have needed."""
    try:
        connection.execute(query).fetchall()
    except apsw.SQLError as error:
        return missing_here(error)
    return ""
