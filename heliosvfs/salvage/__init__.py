"""Save from a damaged database everything that still authenticates, into a new one.

A page is whole and authentic, or it is lost. Rows on pages that can still be reached from their table's root go back into
their table, rowids included. Below a lost page the way is gone, but its pages are still there: their rows go back where they
certainly belong (the pointer map says so, or only one place is left), and else to a table named lost_and_found, as SQLite's
own .recover does it. Indexes, views, triggers and virtual tables are made anew. The damaged database is only read.
"""

from __future__ import annotations

import os

from heliosvfs.check import open_pages
from heliosvfs.connection import connect
from heliosvfs.errors import FormatError
from heliosvfs.keyring import Key
from heliosvfs.partials import named_when_done
from heliosvfs.salvage.rebuilding import Progress, beginnings, salvage_pages
from heliosvfs.salvage.reports import DamagedPage, SalvageReport

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
        dest_path: The new one; it must not exist. It is removed again if this does not come to its end.
        key: Key of the damaged database; None: the VFS's keyring has it.
        dest_key: Key of the new one; None: the same.
        vfs: Name of a registered `heliosvfs.HeliosVFS`.
        progress: Called with steps done and steps in all, two for each page.

    Raises:
        UsageError: The new database exists already, or the damaged one can't be read at all.
        KeyUnavailableError, WrongKeyError, FormatError: As `heliosvfs.connect`, for either of them.
        TamperedError: The superblock of the damaged one is damaged: without it no page can be opened.
    """
    with open_pages(source_path, key=key, vfs=vfs) as pages:
        if not pages.page_count:
            msg = f"{os.fspath(source_path)} has no pages: there is nothing to salvage"
            raise FormatError(msg)
        start = beginnings(pages)
        with named_when_done(os.fspath(dest_path)) as partial:
            connection = connect(
                partial,
                key=key if dest_key is None else dest_key,
                page_size=pages.page_size,
                auto_vacuum=start["auto_vacuum"],
                encoding=start["encoding"],
                vfs=vfs,
            )
            try:
                return salvage_pages(pages, connection, progress=progress)
            finally:
                connection.close()
