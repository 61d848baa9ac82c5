"""Sealed pages in an open file: the hot path of every read and write.

`PageIO` holds what one set of keys and one layout need: an opener, a sealer, and the size of the file. It is thrown away and
made anew when either changes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

import apsw
from cryptography.exceptions import InvalidTag

from heliosvfs.errors import DiskFullError, RefusedWriteError, TamperedError
from heliosvfs.layout import GAP_START, RESERVED_BYTES, Layout
from heliosvfs.pages import KIND_DATABASE, Buffer, FileKeys, NotAuthenticError, Opener, Sealer, UnknownEpochError
from heliosvfs.vfs.superblocks import BaseFile
from heliosvfs.vfs.tallies import Tally

__all__ = ["CHANGE_COUNTER", "ZEROS", "PageIO", "PageReader", "PageWriter", "has_sizes", "require_sizes"]

ZEROS = bytes(RESERVED_BYTES)
CHANGE_COUNTER = (16, 24)  # amount and offset of the read that begins a read transaction in rollback mode (pager.c)

PageReader = Callable[[int, int], Buffer]
PageWriter = Callable[[Buffer, int], None]

_UNKNOWN = -1


def has_sizes(page_one: Buffer, page_size: int) -> bool:
    """Tell whether a page 1 states this page size, and room for the seals (SQLite file format, 1.3)."""
    return int.from_bytes(page_one[16:18], "big") == (page_size & 0xFFFF or 1) and page_one[20] == RESERVED_BYTES


def require_sizes(page_one: Buffer, page_size: int, path: str) -> None:
    """Refuse a page 1 that states another page size than the file has, or no room for the seals.

    SQLite writes one at the end of a VACUUM or backup, and the pages after it: what was there would be lost. It rolls back now.

    Raises:
        RefusedWriteError: It does.
    """
    if has_sizes(page_one, page_size):
        return
    msg = (
        f"{path} has pages of {page_size} bytes with {RESERVED_BYTES} for the seal, and pages of another kind would take their "
        "place: that is fixed when an encrypted database is created. VACUUM goes by the last PRAGMA page_size of the connection, "
        "whichever of its databases that was for: say PRAGMA page_size = 0 and try again. A backup into this file needs a source "
        f"with the same page size and Connection.reserve_bytes(..., {RESERVED_BYTES})"
    )
    raise RefusedWriteError(msg)


class PageIO:
    """The pages of one file under one set of keys.

    Attributes:
        layout: Where the pages lie.
    """

    def __init__(self, base: BaseFile, path: str, keys: FileKeys, page_size: int, tally: Tally) -> None:
        """Work on ``base`` with ``keys``, and count pages in ``tally``."""
        self.layout = Layout(page_size)
        self._base = base
        self._path = path
        self._tally = tally
        self._opener = Opener(keys, KIND_DATABASE, page_size)
        self._sealer = Sealer(keys, KIND_DATABASE, page_size, os.urandom)
        self._end = _UNKNOWN  # pages in the file; unknown where another process may have changed it
        self._header = (b"", b"")  # trailer of the page 1 that was opened last, and its first 100 bytes

    def size(self) -> int:
        """Return the bytes of pages in the file, as SQLite counts them."""
        return self.layout.logical_size(self._base.size())

    def page_count(self) -> int:
        """Return the number of whole pages in the file."""
        return self.size() // self.layout.page_size

    def forget_size(self) -> None:
        """Ask the file for its size before the next write: another process may have changed it."""
        self._end = _UNKNOWN

    @property
    def is_unwritten(self) -> bool:
        """Whether nothing was written since another process may have written: the file is as the last commit left it."""
        return self._end == _UNKNOWN

    def read_sealed(self, page: int) -> bytes:
        """Return a page as it is on disk, shorter where the file ends within it."""
        return self._base.read(self.layout.page_size, self.layout.offset(page))

    def open_page(self, page: int) -> Buffer:
        """Return a plain page, valid until the next is opened.

        Raises:
            NotAuthenticError: It fails authentication, or the file ends before its end.
            UnknownEpochError: It names an epoch that the superblock does not list.
        """
        sealed = self.read_sealed(page)
        if len(sealed) < self.layout.page_size:
            msg = "reaches beyond the end of the file"
            raise NotAuthenticError(msg)
        plain = self._opener.open(sealed, page.to_bytes(4, "big"))
        self._tally.opened += 1
        return plain

    def header(self) -> bytes:
        """Return the first 100 bytes of page 1, from memory if the page on disk is the one that was opened last.

        Raises:
            NotAuthenticError: Page 1 fails authentication.
            UnknownEpochError: It names an epoch that the superblock does not list.
        """
        trailer = self._base.read(RESERVED_BYTES, self.layout.offset(1) + self.layout.page_size - RESERVED_BYTES)
        if trailer != self._header[0] or len(trailer) < RESERVED_BYTES:
            page = bytes(self.open_page(1)[:100])
            self._header = (trailer, page)
        return self._header[1]

    def damaged(self, page: int, why: str) -> TamperedError:
        """Return the error for a page that does not open."""
        offset = self.layout.offset(page)
        msg = f"{self._path}: page {page} at offset {offset} {why}: it is damaged or was tampered with"
        return TamperedError(msg, file=self._path, page=page, offset=offset)

    def reader(self, slow: PageReader) -> PageReader:
        """Return an xRead for whole pages and the change counter that turns to ``slow`` for anything else.

        The budget is 2.5 µs a page above plain SQLite, so constants are bound as locals and nothing is allocated but what the
        base VFS returns.
        """
        page_size, start = self.layout.page_size, self.layout.start
        gap = GAP_START - start  # SQLite's offset of the first page behind the gap
        read, opener = self._base.read, self._opener
        unpack, contexts, plain, buffer = opener.unpack, opener.contexts, opener.plain, opener.buffer
        pack = struct.Struct(">I").pack
        tally, (counter_size, counter) = self._tally, CHANGE_COUNTER
        first_trailer = start + page_size - RESERVED_BYTES

        def read_page(amount: int, offset: int) -> Buffer:
            if amount == page_size and offset < gap:  # what straddles pages fails authentication, and `slow` says why
                try:
                    body, nonce, selector = unpack(read(amount, offset + start))
                    decrypt_into, prefix = contexts[selector]
                    decrypt_into(nonce, body, prefix + pack(offset // amount + 1), plain)
                except (InvalidTag, UnknownEpochError, struct.error):
                    return slow(amount, offset)  # finds out why
                tally.opened += 1
                return buffer
            if amount == counter_size and offset == counter and read(RESERVED_BYTES, first_trailer) == self._header[0]:
                return self._header[1][counter : counter + counter_size]
            return slow(amount, offset)

        return read_page

    def sizer(self, slow: Callable[[], int]) -> Callable[[], int]:
        """Return an xFileSize that turns to ``slow`` where the file is cut short or reaches the lock-byte gap.

        SQLite asks at the start of each read transaction while the WAL is empty.
        """
        size, start = self._base.size, self.layout.start

        def file_size() -> int:
            there = size()
            return there - start if start < there <= GAP_START else slow()

        return file_size

    def writer(self) -> PageWriter:
        """Return an xWrite for whole pages; anything else it refuses."""
        layout = self.layout
        page_size, start, first_after_gap = layout.page_size, layout.start, layout.first_after_gap
        write, seal, tally, path = self._base.write, self._sealer.seal, self._tally, self._path
        split = struct.Struct(f"{page_size - RESERVED_BYTES}s{RESERVED_BYTES}s").unpack

        def write_page(data: Buffer, offset: int) -> None:
            number, odd = divmod(offset, page_size)
            number += 1
            if odd or len(data) != page_size:
                raise self._refused(data, offset)
            if number == 1:
                require_sizes(data, page_size, path)
            plain, reserved = split(data)
            if reserved != ZEROS:
                raise self._refused(data, offset)
            try:
                if number > self._end:
                    self._extend(number)
                place = offset + start if number < first_after_gap else layout.offset(number)
                write(seal(plain, number.to_bytes(4, "big")), place)
                tally.sealed += 1
            except apsw.FullError as error:
                raise DiskFullError.of(self._path) from error

        return write_page

    def _refused(self, data: Buffer, offset: int) -> RefusedWriteError:
        page_size = self.layout.page_size
        if len(data) != page_size or offset % page_size:
            msg = (
                f"{self._path} has pages of {page_size} bytes, and a write of {len(data)} bytes at offset {offset} came: "
                "the page size of an encrypted database is fixed when it is created; to change it, copy the database "
                "(heliosvfs.convert, or `heliosvfs decrypt` and `heliosvfs encrypt --page-size`)"
            )
        else:
            msg = (
                f"{self._path}: page {offset // page_size + 1} uses the last {RESERVED_BYTES} bytes, which hold the seal: "
                "open the database with heliosvfs.connect() or Connection.attach(), which reserve them; in VACUUM or a backup, "
                "the pages it makes are of another size: say PRAGMA page_size = 0 before VACUUM"
            )
        return RefusedWriteError(msg)

    def _extend(self, number: int) -> None:
        """Note that page ``number`` is about to be written, and seal zeros into any page that the write would skip.

        SQLite skips free pages when it extends a file, and a hole would fail authentication for ever.
        """
        if self._end == _UNKNOWN:
            self._end = self.page_count()
        if number > self._end + 1:
            self.fill(self._end + 1, number - 1)
        self._end = max(self._end, number)

    def fill(self, first: int, last: int) -> None:
        """Write sealed zero pages from ``first`` to ``last``."""
        plain = bytes(self.layout.page_size - RESERVED_BYTES)
        for page in range(first, last + 1):
            self._base.write(self._sealer.seal(plain, page.to_bytes(4, "big")), self.layout.offset(page))
            self._tally.sealed += 1

    def resized(self, logical: int) -> None:
        """Seal zeros into the pages by which a truncation to ``logical`` bytes would extend the file.

        Raises:
            RefusedWriteError: It would cut through a page.
        """
        if logical % self.layout.page_size:
            msg = f"{self._path} has pages of {self.layout.page_size} bytes, and would be cut to {logical} bytes, within a page"
            raise RefusedWriteError(msg)
        pages = logical // self.layout.page_size
        self._end = self.page_count()
        if pages > self._end:
            self.fill(self._end + 1, pages)
        self._end = pages
