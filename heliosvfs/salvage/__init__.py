"""Save from a damaged database everything that still authenticates, into a new one.

A page is whole and authentic, or it is lost. Rows on pages that can still be reached from their table's root go back into
their table, rowids included. Below a lost page the way is gone, but its pages are still there: their rows go back where they
certainly belong (the pointer map says so, or only one place is left), and else to a table named lost_and_found, as SQLite's
own .recover does it. Indexes, views, triggers and virtual tables are made anew. The damaged database is only read.

What a hot journal holds is undone, and what a WAL holds is read: whatever of them opens, behind a damaged place too. Then pages
may be of different times: whatever leaves that open is a problem of the report, and so is an index that is of other rows than its
table, or a page that belongs to nothing. A journal that is gone, or cut off exactly where a synced part ends, is told by these
alone; of a WAL that is cut, nothing is left to tell: what it committed before is taken for all.
"""

from __future__ import annotations

import os
from dataclasses import replace

from heliosvfs.check import open_pages
from heliosvfs.errors import FormatError
from heliosvfs.keyring import Key
from heliosvfs.opening import connect
from heliosvfs.partials import named_when_done, require_free
from heliosvfs.salvage.comparisons import contradictions
from heliosvfs.salvage.rebuilding import Progress, beginnings, salvage_pages
from heliosvfs.salvage.reports import DamagedPage, SalvageReport
from heliosvfs.vfs import files_of, view_of

__all__ = ["DamagedPage", "SalvageReport", "beginnings", "salvage", "salvage_pages"]


def salvage(  # noqa: PLR0913 - two databases and how to open them
    source_path: str | os.PathLike[str],
    dest_path: str | os.PathLike[str],
    *,
    key: Key | None = None,
    dest_key: Key | None = None,
    vfs: str = "heliosvfs",
    progress: Progress | None = None,
) -> SalvageReport:
    """Save everything of a damaged database that still authenticates into a new one.

    WAL and hot journal of the damaged database are taken into account, and nothing of it is changed.

    Args:
        source_path: The damaged database.
        dest_path: The path of the new one; it must not exist. It gets its name when it is whole.
        key: Key of the damaged database; None: the VFS's keyring has it.
        dest_key: Key of the new one; None: the same.
        vfs: Name of a registered `heliosvfs.HeliosVFS`.
        progress: Called with steps done and steps in all, two for each page.

    Raises:
        UsageError: The new database exists already, or the damaged one can't be read at all.
        KeyUnavailableError, WrongKeyError, FormatError: As `heliosvfs.connect`, for either of them.
        TamperedError: The superblock of the damaged one is damaged: without it no page can be opened.
    """
    where = os.fspath(dest_path)
    require_free(where)
    with open_pages(source_path, key=key, vfs=vfs) as pages:
        pages.read_beyond_damage()
        if not pages.page_count:
            msg = f"{os.fspath(source_path)} has no pages: there is nothing to salvage"
            raise FormatError(msg)
        start = beginnings(pages)
        with named_when_done(where) as partial:
            connection = connect(
                partial,
                key=key if dest_key is None else dest_key,
                page_size=pages.page_size,
                auto_vacuum=start["auto_vacuum"],
                encoding=start["encoding"],
                journal_mode="delete",
                vfs=vfs,
            )
            try:
                connection.pragma("synchronous", "off")  # the file has no name yet; it is made durable as a whole
                report = salvage_pages(pages, connection, progress=progress)
                with view_of(files_of(connection)[0]) as rebuilt:
                    doubts = contradictions(pages, rebuilt, report.missing, unreadable=bool(report.damaged_pages))
                    problems = (*pages.problems, *report.problems, *doubts)
            finally:
                connection.close()
        return replace(report, problems=problems, notes=(*pages.notes, *report.notes))
