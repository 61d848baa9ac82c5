"""Look at a rollback journal as pager_playback would, and at what that would pass over in silence.

SQLite takes whatever does not look like its own for the end of the journal: a torn write looks so, and so does damage behind
which there is more of the same transaction. Here the journal is read beyond such a place, and the difference is told wherever the
bytes tell it. A record counts only if its checksum is right under its header's nonce and its place: then it is of this
transaction.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from heliosvfs.errors import TamperedError
from heliosvfs.layout import Layout
from heliosvfs.vfs.journal import JournalFile, record_checksum
from heliosvfs.vfs.journal_header import COUNT_END, FIELDS, HEADER_END, MAC_END, NO_COUNT, OUR_MAGIC, SQLITE_MAGIC

__all__ = ["JournalScan", "scan_journal"]

_SECTOR = 512  # headers lie at multiples of it; no header is smaller
_SIZES = slice(16, 28)  # initial pages, sector size, page size: the same in all headers of a journal
_SUPER_JOURNAL = re.compile(rb"[^\0]*-mj[0-9A-F]{6}9[0-9A-F]{2}", re.DOTALL)  # as vdbeCommit names them
_MORE_THAN_CHANCE = 8  # equal bytes of two HMACs, or zeros in one
_MOST_RECORDS = 1 << 14  # counts that are tried for a header
_MOST_NUMBERS = 1 << 16  # page numbers that are tried for a record
_TRAILER = 16  # length, checksum and magic behind the name of a super-journal
_MAY_BE_HALF_UNDONE = "the interrupted transaction may be undone in part only"


@dataclass
class JournalScan:
    """What a rollback journal holds.

    Attributes:
        hot: Whether recovery would roll it back.
        records: Number of its records that are whole.
        page_count: Pages of the database before the transaction.
        images: Offset of each page's image.
        problem: Why it is not certain that the images are all that the transaction needs to be undone, or "".
        note: What else is good to know, or "".
    """

    hot: bool = False
    records: int = 0
    page_count: int = 0
    images: dict[int, int] = field(default_factory=dict)
    problem: str = ""
    note: str = ""


def scan_journal(journal: JournalFile, page_size: int, folder: str) -> JournalScan:
    """Scan a journal that no process is writing.

    Args:
        journal: The journal.
        page_size: Bytes of a page.
        folder: Where the database is.

    Raises:
        FormatError: It is a journal of stock SQLite.
        KeyUnavailableError: The database is locked.
    """
    scan = _Scanning(journal, page_size)
    scan.run(folder)
    return scan.found


class _Scanning:
    def __init__(self, journal: JournalFile, page_size: int) -> None:
        self.found = JournalScan()
        self._journal = journal
        self._page_size = page_size
        self._record_size = page_size + 8
        self._lock_page = Layout(page_size).lock_page
        self._size = journal.xFileSize()
        self._sector = _SECTOR
        self._first = b""  # the first header, as it is on disk

    def run(self, folder: str) -> None:
        self._first = self._raw(0)
        try:
            is_header = self._size >= _SECTOR and self._is_header(0)
        except TamperedError as error:
            self._doubt(str(error))
            return
        if not is_header:
            # Zeros are a header that was not counted yet, or that of a transaction which has ended (zeroJournalHdr), even if a
            # part of the HMAC is there: magic, count and HMAC are one write. With our magic the rest of that is missing, or
            # JournalFile would have refused it.
            if self._first[:COUNT_END].strip(b"\0") and not self._first.startswith(OUR_MAGIC):
                self._doubt("the first header of the journal is torn or damaged, and nothing was rolled back")
            return
        absent = self._super_journal()
        if absent and not os.path.exists(absent):
            self._committed_with(absent, in_place=os.path.dirname(absent) == folder)
            return
        start: int | None = 0
        self.found.hot, self.found.page_count = True, self._word(16)
        while start is not None:
            start = self._segment(start)

    # -- pieces ------------------------------------------------------------------------------------------------------

    def _doubt(self, why: str) -> None:
        self.found.problem = self.found.problem or f"{why}: {_MAY_BE_HALF_UNDONE}"

    def _raw(self, offset: int) -> bytes:
        """Return the bytes of a header as they are on disk, fewer at the end of the file."""
        return bytes(self._journal.xRead(HEADER_END, offset))

    def _word(self, offset: int) -> int:
        return int.from_bytes(bytes(self._journal.xRead(4, offset)).ljust(4, b"\0"), "big")

    def _is_header(self, offset: int) -> bool:
        return bytes(self._journal.xRead(8, offset)) == SQLITE_MAGIC

    def _page(self, offset: int) -> bytes | None:
        """Return the page of the record at an offset, None if it is not there, or has to open and does not."""
        if offset + self._record_size > self._size:
            return None
        self._word(offset)
        try:
            return bytes(self._journal.xRead(self._page_size, offset + 4))
        except TamperedError:
            return None

    def _opens(self, offset: int) -> bool:
        """Tell whether the record at an offset opens, of whatever transaction it is; one that does not reads as zeros."""
        return bool((self._page(offset) or b"").strip(b"\0"))

    def _take(self, offset: int, nonce: int) -> bool:
        """Take the record at an offset, if it is whole and of this header."""
        number, page = self._word(offset), self._page(offset)
        if page is None:
            return False
        try:
            if self._word(offset + 4 + self._page_size) != record_checksum(nonce, page):
                return False
        except TamperedError:
            return False
        self.found.images.setdefault(number, offset + 4)
        self.found.records += 1
        return True

    # -- segments ----------------------------------------------------------------------------------------------------

    def _segment(self, start: int) -> int | None:
        """Take the records of the header at ``start``, which was just verified; return where the next header is, if any."""
        count, nonce, _, self._sector = (self._word(start + 8 + 4 * i) for i in range(4))
        begin = start + self._sector
        if count.to_bytes(4, "big") == NO_COUNT:
            self._uncounted(begin, nonce)
            return None
        for offset in range(begin, begin + count * self._record_size, self._record_size):
            if offset + self._record_size > self._size:
                self._doubt(f"the journal ends at offset {self._size}, before the last of its records")
                return None
            if not self._take(offset, nonce):
                self._doubt(f"the journal's record at offset {offset} is torn or damaged")
        return self._next(begin + count * self._record_size)

    def _uncounted(self, begin: int, nonce: int) -> None:
        """Take the records of a journal that is written without syncs: they go on as long as they are whole.

        Behind them there may be a record that was being written, the name of a super-journal, or what an earlier transaction
        left in a persistent journal: records that open, of another nonce. The first of these may have its new number already.
        """
        offsets = range(begin, self._size - self._record_size + 1, self._record_size)
        bad = [offset for offset in offsets if not self._take(offset, nonce)]
        end = bad[0] if bad else begin + len(offsets) * self._record_size
        if end == self._size or (self._word(end) == self._lock_page and self._super_journal()):
            return
        if not bad:
            if self._size - end in (4, 4 + self._page_size):  # number, page and checksum are three writes
                return
            self._doubt(f"the journal was written without syncs, and ends within the record at offset {end}")
            return
        is_tail = self.found.records == (bad[0] - begin) // self._record_size
        numbers = range(1, min(self.found.page_count, _MOST_NUMBERS) + 1)
        if not is_tail or not all(map(self._opens, bad[1:])) or not self._journal.opens_as(bad[0], numbers):
            self._doubt(f"the journal was written without syncs, and its record at offset {bad[0]} is torn or damaged")

    def _next(self, end: int) -> int | None:
        """Return where the header is that follows a segment with this end, None if it was the last."""
        start = -(-end // self._sector) * self._sector
        if end < self._size <= start and not self._super_journal():
            self._doubt(f"the journal ends at offset {self._size}, where SQLite ends none")
            return None
        if start + self._sector <= self._size and self._is_header(start):
            return start
        if self._is_due(start):
            return None
        later = next(self._headers_behind(start), None)
        if later is not None or self._was_header(start):
            self._doubt(f"the journal's header at offset {start} is torn or damaged")
        return later

    def _is_due(self, start: int) -> bool:
        """Tell whether the file ends here, or with a header whose records were not synced yet: the database had not met them."""
        header = self._raw(start)
        sizes = header[_SIZES]
        return (
            not header[:COUNT_END].strip(b"\0")
            and not header[FIELDS:].strip(b"\0")
            and self._first[_SIZES].startswith(sizes)
            and (len(header) < _SIZES.stop or sizes == self._first[_SIZES])
        )

    def _headers_behind(self, start: int) -> Iterator[int]:
        for offset in range(start + self._sector, self._size - self._sector + 1, self._sector):
            if self._is_header(offset):
                yield offset

    def _was_header(self, start: int) -> bool:
        """Tell whether a header of this transaction was here, as opposed to whatever an earlier one left in a persistent journal.

        That may be a header too: the journal is synced before the next header is written over it. Zeros do not say what was
        here, for SQLite's own headers have sizes; and a record at the right place behind what is no header any more is of this
        transaction unless that had its page already, which it keeps but once.
        """
        header = self._raw(start)
        if len(header) < HEADER_END or not header.strip(b"\0"):
            return True
        if header[_SIZES][4:] == self._first[_SIZES][4:] and header[:8] in (self._first[:8], bytes(8)):
            return self._is_altered(header, start)
        record = start + self._sector
        is_new = self._opens(record) and self._word(record) not in self.found.images
        return is_new or self._is_altered(header, start)

    def _is_altered(self, header: bytes, start: int) -> bool:
        """Tell whether a header lost part of its HMAC, has part of the right one, or would if one of its fields were another."""
        found = header[FIELDS:MAC_END]
        if header.startswith(self._first[:8]) and found.count(0) >= _MORE_THAN_CHANCE:
            return True
        most = min(_MOST_RECORDS, (self._size - start) // self._record_size + 1)
        sizes = header[:16] + self._first[_SIZES]
        altered = [
            *(header[:8] + count.to_bytes(4, "big") + sizes[COUNT_END:] for count in range(1, most + 1)),
            *(sizes[:at] + bytes([byte]) + sizes[at + 1 :] for at in range(COUNT_END, 16) for byte in range(256)),
        ]
        for fields in (header[:FIELDS], sizes, *altered):
            for durable in (b"\0", b"\1"):
                mac = self._journal.mac(fields.ljust(MAC_END, b"\0") + durable, start)
                if sum(a == b for a, b in zip(mac, found, strict=True)) >= _MORE_THAN_CHANCE:
                    return True
        return False

    # -- super-journals ----------------------------------------------------------------------------------------------

    def _super_journal(self) -> str:
        """Return the name of the super-journal, "" if none is at the journal's end (readSuperJournal)."""
        trailer = bytes(self._journal.xRead(_TRAILER, max(0, self._size - _TRAILER)))
        length, checksum = int.from_bytes(trailer[:4], "big"), int.from_bytes(trailer[4:8], "big")
        if trailer[8:] != SQLITE_MAGIC or not len(SQLITE_MAGIC) < length < min(_SECTOR, self._size - _TRAILER):
            return ""
        name = bytes(self._journal.xRead(length, self._size - _TRAILER - length))
        total = sum(byte - 256 if byte > 127 else byte for byte in name)  # noqa: PLR2004 - C's char is signed here
        return os.fsdecode(name) if total & 0xFFFFFFFF == checksum and _SUPER_JOURNAL.fullmatch(name) else ""

    def _committed_with(self, absent: str, *, in_place: bool) -> None:
        """Say that the transaction was committed, for its super-journal is gone (pager_playback), unless the files were moved."""
        why = f"the journal was not used, as SQLite would not use it: {absent}, which it names, is gone"
        if in_place:
            self.found.note = f"{why}, and so its transaction was committed"
        else:
            self._doubt(f"{why}, and so its transaction was committed, unless the files were moved here")
