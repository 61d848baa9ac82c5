"""The rollback journal: page images sealed in place, all else where SQLite puts it (FORMAT.md, "Rollback journal").

Layout, sector size and order of writes stay SQLite's own (pager.c, "Journal file format"), because its crash safety rests on
them. What differs on disk:

- A header begins with a byte 0 and a magic of ours. Stock SQLite takes a journal whose first byte is 0 for one that is not hot
  and leaves it alone; with SQLite's magic it would roll "back" sealed bytes into the database.
- A header's padding holds an HMAC of its 28 bytes: record count, nonce, initial size, sector and page size.
- A record's page is sealed, its page number bound. Its checksum, a sum of plaintext bytes, is masked by an HMAC of tag, page
  number, offset and header nonce, so that no record can be moved or made.

A record that GCM rejects in a journal that another process left behind reads as zeros with a checksum that can't match: SQLite
ends the rollback there, as at a torn record. In a journal that this process is writing it is an error.
"""

from __future__ import annotations

import hmac
import os
from bisect import bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING

import apsw

from heliosvfs.errors import DiskFullError, FormatError, RefusedWriteError, TamperedError
from heliosvfs.keys import expand
from heliosvfs.layout import RESERVED_BYTES, Layout
from heliosvfs.pages import KIND_JOURNAL, Buffer, NotAuthenticError, Opener, Sealer, UnknownEpochError
from heliosvfs.vfs.characteristics import reporting
from heliosvfs.vfs.journal_header import COUNT_END, DURABLE, FIELDS, HEADER_END, MAC_END, NO_COUNT, OUR_MAGIC, SQLITE_MAGIC
from heliosvfs.vfs.page_io import ZEROS

if TYPE_CHECKING:
    from heliosvfs.vfs.database import DatabaseFile

__all__ = ["JournalFile", "record_checksum"]

_NONCE = slice(12, 16)
_WORD = 4
_SMALLEST_PAGE = 512
_LARGEST_PAGE = 65536
_NOTHING = (-FIELDS, b"")
_TAG = slice(-RESERVED_BYTES, -RESERVED_BYTES + 16)


def _is_header(fields: bytes) -> bool:
    """Tell whether the first bytes of a block are a journal header's; its magic may still be due (writeJournalHdr)."""
    return (
        len(fields) == FIELDS
        and (fields.startswith(SQLITE_MAGIC) or not fields[:COUNT_END].strip(b"\0"))
        and _SMALLEST_PAGE <= int.from_bytes(fields[24:28], "big") <= _LARGEST_PAGE
    )


def record_checksum(nonce: int, page: Buffer) -> int:
    """Return the checksum of a record (pager_cksum)."""
    return (nonce + sum(page[i] for i in range(len(page) - 200, 0, -200))) & 0xFFFFFFFF


class JournalFile(apsw.VFSFile):
    """A rollback journal: SQLite's own to SQLite, sealed on disk."""

    def __init__(self, base: str, name: str, flags: list[int], database: DatabaseFile) -> None:
        """Open the journal of ``database``."""
        self._path = name
        self._database = database
        self._generation = -1
        self._page_size = 0
        self._headers: dict[int, bytes] = {}  # nonce by offset of the headers seen or written, ascending
        self._written_in = -1  # write period of the database in which this handle wrote the journal
        self._written_to = 0  # offset behind the last page that it wrote then: a persistent journal has stale records there
        self._record = (-1, 0)  # offset and page number of a record whose page comes next
        self._page = (-1, 0, b"")  # of the page sealed or opened last: offset behind it, number, tag (b"": it did not open)
        self._unsynced = True  # whether something was written since the last sync
        self._durable_to = 0  # offset behind the records that the last header counts, if they were durable before it did
        self._verified = _NOTHING  # offset and fields of the header that was verified last, while the journal stays as it is
        self._number = (-1, 0)  # offset and value of the word that was read last, which may be a page number
        super().__init__(base, name, flags)
        self.xDeviceCharacteristics = reporting(super().xDeviceCharacteristics())  # type: ignore[method-assign]
        self._database.page_keys()

    def _bind(self, page_size: int) -> None:
        keys = self._database.page_keys()
        generation = self._database.access.generation
        if (generation, page_size) == (self._generation, self._page_size):
            return
        self._generation, self._page_size = generation, page_size
        self._lock_page = Layout(page_size).lock_page
        self._opener = Opener(keys, KIND_JOURNAL, page_size)
        self._sealer = Sealer(keys, KIND_JOURNAL, page_size, os.urandom)

    def _key(self, purpose: bytes) -> memoryview:
        return expand(self._database.access.master.key, b"heliosvfs 1 journal " + purpose + self._database.page_keys().uuid)

    def _is_own(self) -> bool:
        """Whether this handle wrote the journal under the write lock that is still held."""
        return self._written_in == self._database.write_period

    # -- headers -----------------------------------------------------------------------------------------------------

    def mac(self, fields: bytes, offset: int) -> bytes:
        """Return the HMAC of a header; it binds the nonce of the first, so that a header of an earlier transaction is none."""
        first = self._headers.get(0, b"") if offset else fields[_NONCE]
        bound = offset.to_bytes(8, "big") + first + SQLITE_MAGIC + fields[8:FIELDS] + fields[DURABLE:HEADER_END]
        return hmac.digest(self._key(b"header"), bound, "sha256")

    def _nonce_at(self, offset: int) -> bytes:
        """Return the nonce of the header that governs ``offset``."""
        offsets = list(self._headers)
        index = bisect_right(offsets, offset) - 1
        return self._headers[offsets[index]] if index >= 0 else b""

    def _note_header(self, offset: int, nonce: bytes) -> None:
        self._headers = {at: value for at, value in self._headers.items() if at < offset}
        self._headers[offset] = nonce

    def _write_header(self, offset: int, data: bytes) -> None:
        """Write a header block; SQLite repeats its first 28 bytes where a sector is larger than a page."""
        if offset == 0:
            self._headers.clear()
            self._written_in = self._database.write_period
            self._written_to = 0
        self._bind(int.from_bytes(data[24:28], "big"))
        self._note_header(offset, data[_NONCE])
        if data.startswith(SQLITE_MAGIC):
            data = OUR_MAGIC + data[8:FIELDS] + self.mac(data, offset) + data[MAC_END:]
        super().xWrite(data, offset)
        self._unsynced = True

    def _write_count(self, data: bytes, offset: int) -> None:
        """Write magic and record count of a header, and its HMAC anew, in one write within a sector."""
        fields = data + super().xRead(FIELDS, offset).ljust(FIELDS, b"\0")[COUNT_END:]
        durable = bytes([not self._unsynced])
        if data.startswith(SQLITE_MAGIC):
            mac = self.mac(fields.ljust(DURABLE, b"\0") + durable, offset)
            super().xWrite(OUR_MAGIC + fields[8:] + mac + durable, offset)
        else:
            super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        """Make the journal durable, and note that all its records are."""
        super().xSync(flags)
        self._unsynced = False

    def _read_magic(self, offset: int) -> bytes:
        """Return SQLite's magic for a header of ours whose HMAC is right, and otherwise what is there.

        Raises:
            FormatError: It is a header that stock SQLite wrote.
            TamperedError: The header is ours and its HMAC is wrong.
        """
        header = super().xRead(HEADER_END, offset).ljust(HEADER_END, b"\0")
        magic = header[:8]
        if magic == SQLITE_MAGIC and offset + 8 < self.xFileSize():
            # at the very end of the file the magic is that of a super-journal's name (readSuperJournal)
            msg = f"{self._path} is not a heliosvfs journal, though it lies beside a heliosvfs database: move it away"
            raise FormatError(msg)
        if magic != OUR_MAGIC:
            return magic
        due, found = self.mac(header, offset), header[FIELDS:MAC_END]
        if not hmac.compare_digest(due, found):
            # At a later offset: left by an earlier transaction in a persistent journal, so this one ends before it. A part of the
            # HMAC and then zeros: its write was torn, so it was never made durable, and the database was not touched yet.
            # Its last byte, which the HMAC covers, may be missing as well.
            counted = self.mac(header[:DURABLE] + b"\1", offset)
            if offset or any(mac.startswith(found.rstrip(b"\0")) for mac in (due, counted)):
                return bytes(8)
            msg = f"{self._path}: the journal header at offset {offset} is damaged or was tampered with"
            raise TamperedError(msg, file=self._path, offset=offset)
        if not self._is_own():
            self._bind(int.from_bytes(header[24:28], "big"))
            if offset == 0:
                self._headers.clear()
            self._note_header(offset, header[_NONCE])
            self._durable_to = self._end_of_records(offset, header) if header[DURABLE] else 0
        self._verified = (offset, header[:FIELDS])
        return SQLITE_MAGIC

    def _end_of_records(self, offset: int, header: bytes) -> int:
        """Return the offset behind the records that a header counts, 0 if it does not count them."""
        count, sector, page = (int.from_bytes(header[at : at + _WORD], "big") for at in (8, 20, 24))
        return 0 if header[8:COUNT_END] == NO_COUNT else offset + sector + count * (page + 2 * _WORD)

    # -- reading -----------------------------------------------------------------------------------------------------

    def xRead(self, amount: int, offset: int) -> Buffer:  # type: ignore[override] # noqa: N802 - SQLite's name; APSW takes any buffer
        """Return plain bytes; see `apsw.VFSFile.xRead`.

        Raises:
            KeyUnavailableError: The database is locked.
            TamperedError: A header's HMAC is wrong, or a record of this process's own fails authentication.
        """
        self._database.page_keys()
        if amount == 1 and offset == 0:  # hasHotJournal: is the first byte zero?
            magic = super().xRead(8, 0)
            return SQLITE_MAGIC[:1] if magic == OUR_MAGIC else magic[:1]
        if amount == len(SQLITE_MAGIC) and offset % 512 == 0:
            return self._read_magic(offset)
        if self._headers and amount == self._page_size:
            return self._read_page(offset)
        if amount == _WORD:
            return self._read_word(offset)
        if amount >= _SMALLEST_PAGE:
            msg = f"{self._path}: a read of {amount} bytes at offset {offset} is no part of a journal that can be opened"
            raise RefusedWriteError(msg)
        return super().xRead(amount, offset)

    def _read_word(self, offset: int) -> Buffer:
        """Return a field of the header that was verified, a checksum, or a page number, which is noted for the page to come."""
        at = offset - self._verified[0]
        if 8 <= at < FIELDS:  # noqa: PLR2004 - behind the magic: what is on disk may have changed since
            return self._verified[1][at : at + _WORD]
        if offset == self._page[0]:
            return self._read_checksum(offset)
        word = super().xRead(_WORD, offset)
        self._number = (offset, int.from_bytes(word.ljust(_WORD, b"\0"), "big"))
        return word

    def _read_page(self, offset: int) -> Buffer:
        """Open the page of the record whose number lies before ``offset``; note its tag for the checksum that follows."""
        if self._number[0] != offset - _WORD:
            self._read_word(offset - _WORD)
        number = self._number[1]  # the one that SQLite has seen
        sealed = super().xRead(self._page_size, offset).ljust(self._page_size, b"\0")
        self._page = (offset + self._page_size, number, b"")
        try:
            plain = self._open(sealed, number)
        except (NotAuthenticError, UnknownEpochError):
            # What does not have to open is what a torn write or an earlier transaction left here: its epoch may be any number.
            # A record under an epoch that only a newer superblock has does have to: that superblock was durable before it.
            # The name of a super-journal, under the number of the lock-byte page, never opens, and is not counted.
            if self._must_open(offset):
                raise self._damaged(offset, number) from None
            return bytes(self._page_size)
        self._page = (offset + self._page_size, number, sealed[_TAG])
        return plain

    def opens_as(self, offset: int, numbers: Iterable[int]) -> bool:
        """Tell whether the page of the record at ``offset`` opens under one of these page numbers, whatever the record says."""
        sealed = super().xRead(self._page_size, offset + _WORD)
        for number in numbers:
            try:
                self._opener.open(sealed, number.to_bytes(_WORD, "big"))
            except (NotAuthenticError, UnknownEpochError):
                continue
            return True
        return False

    def _must_open(self, offset: int) -> bool:
        """Tell whether the record at ``offset`` is known to be whole: written here, or durable before it was counted."""
        return offset < (self._written_to if self._is_own() else self._durable_to)

    def _damaged(self, offset: int, number: int) -> TamperedError:
        msg = f"{self._path}: the record of page {number} at offset {offset} is damaged or was tampered with"
        return TamperedError(msg, file=self._path, page=number, offset=offset)

    def _open(self, sealed: bytes, number: int) -> Buffer:
        try:
            return self._opener.open(sealed, number.to_bytes(4, "big"))
        except UnknownEpochError:
            self._database.access.refresh(begun=True)
            self._bind(self._page_size)
            return self._opener.open(sealed, number.to_bytes(4, "big"))

    def _read_checksum(self, offset: int) -> bytes:
        """Unmask a record's checksum; of a record that did not open, return one that can't match its zeros (pager_cksum)."""
        nonce = int.from_bytes(self._nonce_at(offset), "big")
        if not self._page[2]:
            return (nonce ^ 0xFFFFFFFF).to_bytes(4, "big")
        checksum = self._masked(super().xRead(_WORD, offset).ljust(_WORD, b"\0"), offset)
        start = offset - self._page_size
        if self._must_open(start) and int.from_bytes(checksum, "big") != record_checksum(nonce, self._opener.buffer):
            raise self._damaged(start, self._page[1])
        return checksum

    def _masked(self, checksum: bytes, offset: int) -> bytes:
        """Mask or unmask the checksum at ``offset``, behind the page that was sealed or opened last."""
        _, number, tag = self._page
        bound = tag + number.to_bytes(4, "big") + offset.to_bytes(8, "big") + self._nonce_at(offset)
        mask = hmac.digest(self._key(b"mask"), bound, "sha256")
        return bytes(a ^ b for a, b in zip(checksum, mask, strict=False))

    # -- writing -----------------------------------------------------------------------------------------------------

    def xWrite(self, data: Buffer, offset: int) -> None:  # noqa: N802 - SQLite's name
        """Seal and write what SQLite writes: headers, records in three writes each, the name of a super-journal.

        Raises:
            KeyUnavailableError: The database is locked.
            RefusedWriteError: The write fits none of them.
            DiskFullError: There is no room for it.
        """
        try:
            self._write(data, offset)
        except apsw.FullError as error:
            raise DiskFullError.of(self._path) from error

    def _write(self, data: Buffer, offset: int) -> None:
        self._database.page_keys()
        size = len(data)
        self._verified = _NOTHING  # under locking_mode=EXCLUSIVE one handle writes the journals of many transactions
        (record, number), self._record = self._record, (-1, 0)
        if record == offset - _WORD and self._page_size and number == self._lock_page:
            super().xWrite(data, offset)  # the name of a super-journal (writeSuperJournal)
        elif record == offset - _WORD and size == self._page_size:
            self._write_page(data, offset, number)
        elif size == _WORD and offset == self._page[0]:
            super().xWrite(self._masked(bytes(data), offset), offset)
            self._page = (-1, 0, b"")
        elif size == _WORD:
            self._record = (offset, int.from_bytes(data, "big"))
            super().xWrite(data, offset)
        elif size == COUNT_END:
            self._write_count(bytes(data), offset)
        elif size == 1:
            # syncJournal wipes the first byte of a stale header; ours is zero there anyway, so wipe the next too
            super().xWrite(bytes(2), offset)
        elif _is_header(bytes(data[:FIELDS])):
            self._write_header(offset, bytes(data))
        elif data == SQLITE_MAGIC:
            super().xWrite(data, offset)  # the end of a super-journal's name
        elif size == FIELDS and not bytes(data).strip(b"\0"):
            # zeroJournalHdr: the HMAC goes with the fields, or a torn write could leave one without the other
            super().xWrite(bytes(HEADER_END), offset)
        else:
            msg = f"{self._path}: a write of {size} bytes at offset {offset} is no part of a journal that can be sealed"
            raise RefusedWriteError(msg)

    def _write_page(self, data: Buffer, offset: int, number: int) -> None:
        if data[-RESERVED_BYTES:] != ZEROS:
            msg = f"{self._path}: page {number} uses the last {RESERVED_BYTES} bytes, which hold its seal"
            raise RefusedWriteError(msg)
        sealed = self._sealer.seal(data[:-RESERVED_BYTES], number.to_bytes(4, "big"))
        super().xWrite(sealed, offset)
        self._page = (offset + self._page_size, number, bytes(sealed[_TAG]))
        self._written_to = offset + self._page_size
        self._unsynced = True

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        """Cut the journal."""
        self._database.page_keys()
        self._verified = _NOTHING
        super().xTruncate(newsize)
