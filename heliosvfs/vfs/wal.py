"""The write-ahead log: each frame, header and page as one unit, sealed into its page's last 32 bytes (FORMAT.md, "WAL").

SQLite's frame checksums are computed over plaintext, so the 24-byte frame header is sealed with its page. The frame keeps its
place and size. The 32-byte header of the file stays readable but for its version number, which is ours: stock SQLite would
otherwise find no valid frame, and delete the file (walIndexRecover, sqlite3WalClose). `wal_writing` does what SQLite writes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import apsw
from cryptography.exceptions import InvalidTag

from heliosvfs.errors import RefusedWriteError, TamperedError
from heliosvfs.pages import KIND_WAL, Buffer, NotAuthenticError, Opener, Sealer, UnknownEpochError
from heliosvfs.vfs import tallies
from heliosvfs.vfs.characteristics import reporting
from heliosvfs.vfs.checksum_rewrites import whole_reader
from heliosvfs.vfs.frame_batches import FRAME_HEADER, bytes_ahead
from heliosvfs.vfs.superblocks import BaseFile
from heliosvfs.vfs.wal_header import NOWHERE, WAL_HEADER, header_for_sqlite
from heliosvfs.vfs.wal_writing import SALTS, FrameWriter

if TYPE_CHECKING:
    from heliosvfs.vfs.database import DatabaseFile

__all__ = ["WalFile"]


class WalFile(apsw.VFSFile):
    """A WAL: plain frames to SQLite, sealed ones on disk.

    Attributes:
        path: Path of the file.
        database: The database that it is the log of.
        salts: Salts of the header as this handle saw it last.
        recovering: SQLite has read the header to rebuild its index, and has written nothing since.
        opened: The plain frame that was opened last, without its reserved bytes.
        whole: Offset of that frame if it was just read whole, or NOWHERE.
        rewritten: Offset of the frame whose header was just written again as its transaction commits, or NOWHERE.
        generation: Count of changes of the database's keys, `Access.generation`, that this file has taken over.
        page_size: Bytes of a page.
        frame_size: Bytes of a frame.
        tally: Counts frames.
    """

    def __init__(self, base: str, name: str, flags: list[int], database: DatabaseFile) -> None:
        """Open the WAL of ``database``."""
        self.path = name
        self.database = database
        self.salts = b""
        self.recovering = False
        self.whole = NOWHERE
        self.rewritten = NOWHERE
        self.page_size = 0
        self.frame_size = 0
        self.tally = tallies.Tally("wal")
        self.generation = -1
        super().__init__(base, name, flags)
        self.xDeviceCharacteristics = reporting(super().xDeviceCharacteristics())  # type: ignore[method-assign]
        self._base = BaseFile(super().xRead, super().xWrite, super().xFileSize, super().xSync)
        self._frames = FrameWriter(self, self._base)
        self.bind()
        database.wal = self
        self._frames.watch()
        tallies.add(self.tally)

    def bind(self) -> None:
        """Take the keys and page size of the database, if they are new; those that it had are held no longer."""
        if self.generation == self.database.access.generation:
            return
        keys = self.database.page_keys()
        self.generation = self.database.access.generation
        self.page_size = self.database.page_size_in_force()
        self.frame_size = FRAME_HEADER + self.page_size
        self._opener = Opener(keys, KIND_WAL, self.frame_size)
        self.opened = self._opener.plain
        self._page_view = memoryview(self._opener.buffer)[FRAME_HEADER:]
        self._read_one = self.xRead = self._reader()  # type: ignore[method-assign, assignment]
        sealer = Sealer(keys, KIND_WAL, self.frame_size, os.urandom)
        self.xWrite = self._frames.bind(sealer)  # type: ignore[method-assign, assignment]

    def _reader(self) -> Callable[[int, int], Buffer]:
        """Return an xRead for a frame or its page that turns to `_read` for anything else; see page_io for its style."""
        page_size, frame_size, batch = self.page_size, self.frame_size, self._frames.batch(self.frame_size)
        read, slow, opener, page = self._base.read, self._read, self._opener, self._page_view
        read_whole = whole_reader(self, self._base, opener, slow)
        unpack, contexts, plain, tally = opener.unpack, opener.contexts, opener.plain, self.tally
        pack = struct.Struct(">I").pack

        def read_frame(amount: int, offset: int) -> Buffer:
            index, start = divmod(offset - WAL_HEADER, frame_size)
            if amount == page_size and start == FRAME_HEADER and offset < batch.first:
                self.whole = NOWHERE
                try:
                    body, nonce, selector = unpack(read(frame_size, offset - start))
                    decrypt_into, prefix = contexts[selector]
                    decrypt_into(nonce, body, prefix + self.salts + pack(index), plain)
                except (InvalidTag, UnknownEpochError, struct.error):
                    return slow(amount, offset)
                tally.opened += 1
                return page
            if amount == frame_size and not start and not self.recovering:
                return read_whole(amount, offset)
            return slow(amount, offset)

        return read_frame

    def begin_checkpoint(self) -> None:
        """Read frames that follow each other several at a time: no one can write to what a checkpoint reads.

        Until `end_checkpoint` SQLite reads and writes nothing else through this connection (walCheckpoint).
        """
        if not self._frames.learns_of_reads:
            return
        self._frames.watch()
        self.xRead = self._ahead_reader()  # type: ignore[method-assign, assignment]

    def end_checkpoint(self) -> None:
        """Read frame by frame again."""
        self.xRead = self._read_one  # type: ignore[method-assign, assignment]

    def _ahead_reader(self) -> Callable[[int, int], Buffer]:
        """Return an xRead for the pages of committed frames that turns to the usual one for anything else."""
        page_size, frame_size, read_one, opener = self.page_size, self.frame_size, self._read_one, self._opener
        read, page, tally = self._base.read, self._page_view, self.tally
        unpack, contexts, plain, pack = opener.unpack_from, opener.contexts, opener.plain, struct.Struct(">I").pack
        amount_ahead = bytes_ahead(frame_size)
        begin, end, following, sealed = 0, 0, 0, b""

        def read_page(amount: int, offset: int) -> Buffer:
            nonlocal begin, end, following, sealed
            frame = offset - FRAME_HEADER
            follows, following = frame == following, frame + frame_size
            if not begin <= frame < end:
                if not follows:
                    return read_one(amount, offset)
                sealed = read(amount_ahead, frame)
                begin, end = frame, frame + len(sealed)
            if amount == page_size:
                try:
                    body, nonce, selector = unpack(sealed, frame - begin)
                    decrypt_into, prefix = contexts[selector]
                    decrypt_into(nonce, body, prefix + self.salts + pack((frame - WAL_HEADER) // frame_size), plain)
                except (InvalidTag, UnknownEpochError, struct.error):
                    return read_one(amount, offset)
                tally.opened += 1
                return page
            return read_one(amount, offset)

        return read_page

    def xRead(self, amount: int, offset: int) -> Buffer:  # type: ignore[override] # noqa: N802 - SQLite's name; APSW takes any buffer
        """Return plain bytes; see `apsw.VFSFile.xRead`. `bind` puts a faster form in this one's place.

        Raises:
            TamperedError: A frame that SQLite relies on fails authentication. While SQLite looks for the end of the log, such a
                frame reads as zeros instead, which ends the log there as a torn frame does.
        """
        return self._read(amount, offset)

    def xWrite(self, data: Buffer, offset: int) -> None:  # noqa: N802 - SQLite's name
        """Seal and write what SQLite writes. `bind` puts a faster form in this one's place.

        Raises:
            RefusedWriteError: The write is no part of a frame; nothing was written.
        """
        self._frames.write(data, offset)

    def _read(self, amount: int, offset: int) -> Buffer:
        self.whole = NOWHERE
        if offset < WAL_HEADER:
            if (offset, amount) == (0, WAL_HEADER):
                self.recovering = True
                self._frames.forget()  # what another connection has committed is there now, or the log ends before it
            return self.header()[offset : offset + amount]
        start = (offset - WAL_HEADER) % self.frame_size
        frame = offset - start
        if start + amount > self.frame_size:
            msg = f"{self.path}: a read of {amount} bytes at offset {offset} straddles frames"
            raise RefusedWriteError(msg)
        if amount == self.page_size and start == FRAME_HEADER:
            self.required_frame(frame)
            return self._page_view
        if amount < self.frame_size:
            return self.required_frame(frame)[start : start + amount]
        if self.recovering:
            return self._recover(frame)
        # walRewriteChecksums: zeros here would be sealed again as if they were the page
        plain = self.required_frame(frame)
        self.whole = frame
        return plain

    def _recover(self, frame: int) -> Buffer:
        """Return a frame, or zeros where GCM rejects it under a key that is certain: the log ends there."""
        sealed = self._base.read(self.frame_size, frame)
        if len(sealed) < self.frame_size:
            return sealed[:0]
        plain = self.open_frame(frame, sealed)
        if plain is not None:
            return bytes(plain)
        if self.database.page_keys().may_be_newer(sealed[-4:]):
            raise self._damaged(frame)
        return bytes(self.frame_size)

    def committed_pages(self) -> int:
        """Return the database size, in pages, that the last commit in the log states; 0 if there is none."""
        self.whole = NOWHERE
        for number in range((self.xFileSize() - WAL_HEADER) // self.frame_size - 1, -1, -1):
            # behind the end of the log is what was torn, or belongs to an earlier one
            frame = WAL_HEADER + number * self.frame_size
            plain = self.open_frame(frame, self._base.read(self.frame_size, frame))
            if plain is not None and (size := int.from_bytes(plain[4:8], "big")):
                return size
        return 0

    def header(self) -> bytes:
        """Read the header of the file, and return it as SQLite wrote it."""
        header = header_for_sqlite(self._base.read(WAL_HEADER, 0), self.path)
        self.salts = header[SALTS]
        return header

    def required_frame(self, frame: int) -> bytearray:
        """Return a plain frame, valid until the next is opened.

        Raises:
            TamperedError: The frame fails authentication, or the file ends within it.
        """
        sealed = self._frames.waiting(frame) or self._base.read(self.frame_size, frame)
        plain = self.open_frame(frame, sealed)
        if plain is None:
            raise self._damaged(frame)
        return plain

    def _damaged(self, frame: int) -> TamperedError:
        number = (frame - WAL_HEADER) // self.frame_size + 1
        msg = f"{self.path}: frame {number} at offset {frame} fails authentication: it is damaged or was tampered with"
        return TamperedError(msg, file=self.path, page=number, offset=frame)

    def open_frame(self, frame: int, sealed: bytes) -> bytearray | None:
        """Return a plain frame, valid until the next is opened; None: it fails authentication, or the file ends within it.

        The salts may be those of an earlier log: a process that joins a WAL never reads its header, and another may have
        restarted it. So a failure counts only once the header has been read again, and the superblock for a new epoch.
        """
        number = (frame - WAL_HEADER) // self.frame_size
        if len(sealed) == self.frame_size:
            for _ in range(3):
                salts = self.salts
                try:
                    plain = self._opener.open(sealed, salts + number.to_bytes(4, "big"))
                except NotAuthenticError:
                    self.header()
                    if self.salts == salts:
                        break
                except UnknownEpochError:
                    self.database.access.refresh(begun=True)
                    if self.generation == self.database.access.generation:
                        break
                    self.bind()
                else:
                    self.tally.opened += 1
                    return plain
        return None

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        """Make the log durable; the boundary that a padded commit is synced at may lie just behind a frame's header."""
        try:
            self._frames.before_sync()
            super().xSync(flags)
        except BaseException:
            self._frames.failed()
            raise

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        """Cut the WAL; frames keep their size, so sizes are SQLite's own."""
        self.database.page_keys()
        self.whole = NOWHERE
        self._frames.forget()
        super().xTruncate(newsize)

    def xClose(self) -> None:  # noqa: N802 - SQLite's name
        """Close the WAL."""
        for fast in ("xRead", "xWrite", "_read_one", "_frames", "_base"):
            self.__dict__.pop(fast, None)  # they hold keys and this object
        tallies.end(self.tally)
        if self.database.wal is self:
            self.database.wal = None
            self.database.watch_reads(None)
        super().xClose()
