"""The reads of a database file that the fast path gives up: parts of pages, and pages that are not there or do not open."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import apsw

from heliosvfs.errors import RefusedWriteError
from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.pages import Buffer, NotAuthenticError, UnknownEpochError
from heliosvfs.vfs import reserving
from heliosvfs.vfs.freelists import free_leaves
from heliosvfs.vfs.page_io import CHANGE_COUNTER

if TYPE_CHECKING:
    from heliosvfs.vfs.database import DatabaseFile

__all__ = ["read", "torn_but_free"]

_HEADER = (100, 0)  # amount and offset of the read of SQLite's header (file format 1.3)
_ANY_NUMBER = 1 << 32  # of pages: more than there can be


def read(file: DatabaseFile, amount: int, offset: int) -> Buffer:
    """Return plain bytes; see `apsw.VFSFile.xRead`.

    Raises:
        KeyUnavailableError: The file is locked, and more than its header is asked for.
        TamperedError: The page fails authentication, or it was committed and is not there.
    """
    if file.access.is_empty:
        wanted = (amount, offset) == _HEADER and not reserving.is_installed()
        return reserving.header_that_reserves(file.page_size_at_hand()) if wanted else b""
    if (amount, offset) == _HEADER:
        return _first_header(file)
    pages = file.pages
    if (amount, offset) == CHANGE_COUNTER:
        return _opened(file, 1, lambda: file.pages.header()[24:40]) if pages.page_count() else b""
    page_size = pages.layout.page_size
    number, start = divmod(offset, page_size)
    if start + amount > page_size:
        msg = f"{file.path}: a read of {amount} bytes at offset {offset} straddles pages"
        raise RefusedWriteError(msg)
    if number >= pages.page_count() and number >= _committed_pages(file):
        return b""  # a page that SQLite is just adding; one that was committed and is not there is damage
    plain = _opened(file, number + 1, lambda: file.pages.open_page(number + 1))
    return plain[start : start + amount]


def torn_but_free(file: DatabaseFile) -> set[int]:
    """Return the leaf pages of the freelist as the file has it; they may fail authentication without harm."""
    pages = file.pages
    return free_leaves(pages.open_page, pages.page_count(), pages.layout.page_size - RESERVED_BYTES)


def _committed_pages(file: DatabaseFile) -> int:
    """Return the number of pages after the last commit: what the WAL says, else page 1 (SQLite file format 1.3.7)."""
    if file.access.superblock.populated and not file.pages.page_count():
        return _ANY_NUMBER
    committed = 0 if file.wal is None else file.wal.committed_pages()
    if not committed and file.pages.page_count():
        header = _opened(file, 1, lambda: file.pages.header())  # noqa: PLW0108 - a refresh may replace the pages
        committed = int.from_bytes(header[28:32], "big")
    return committed


def _first_header(file: DatabaseFile) -> Buffer:
    """Answer the read that comes before recovery: a torn page 1 must not keep SQLite from its hot journal."""
    if not file.is_locked:
        if not file.pages.size():
            return b""
        try:
            return file.pages.header()
        except (NotAuthenticError, UnknownEpochError):
            pass
    return reserving.header_that_reserves(file.access.superblock.page_size)


def _opened(file: DatabaseFile, page: int, attempt: Callable[[], Buffer]) -> Buffer:
    """Return what ``attempt`` opens, after reading the superblock again if it names an epoch that is not known.

    Raises:
        TamperedError: The page fails authentication.
    """
    try:
        try:
            return attempt()
        except UnknownEpochError:
            file.refresh(begun=True)
            return attempt()
    except (NotAuthenticError, UnknownEpochError) as error:
        pages = file.pages
        # A free page may be torn (freelists.py). Only who has written nothing may take zeros for it: what such a reader finds
        # on the freelist in the file is free in its snapshot, or else has its content in the WAL and is not read from here.
        quiet = file.lock_level <= apsw.SQLITE_LOCK_SHARED or pages.is_unwritten
        if quiet and page in torn_but_free(file):
            return bytes(pages.layout.page_size)
        raise pages.damaged(page, str(error)) from None
