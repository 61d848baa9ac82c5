"""The write-ahead log: each frame, header and page as one unit, sealed into its page's last 32 bytes (FORMAT.md, "WAL").

SQLite's frame checksums are computed over plaintext, so the 24-byte frame header is sealed with its page. The frame keeps its
place and size. The 32-byte header of the file stays readable but for its version number, which is ours: stock SQLite would
otherwise find no valid frame, and delete the file (walIndexRecover, sqlite3WalClose).

SQLite writes a frame as header, then page. A header is held back until the next call, which must be its page; but two writes
come alone and are sealed at once: a header over a frame that was just read whole (walRewriteChecksums, which ends a spilled
commit, and at synchronous=NORMAL is followed by no sync) and a page over the page of an existing frame (walFrames, when a page is
written twice in a transaction). Without POWERSAFE_OVERWRITE the frame that pads a commit to a sector comes in pieces with a sync
between them (walWriteToLog): its pieces are sealed as a stream, so that no byte moves across that sync.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import apsw
from cryptography.exceptions import InvalidTag

from heliosvfs.errors import DiskFullError, RefusedWriteError, TamperedError
from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.pages import (
    KIND_WAL,
    Buffer,
    NotAuthenticError,
    Opener,
    Sealer,
    UnknownEpochError,
)
from heliosvfs.vfs import tallies
from heliosvfs.vfs.characteristics import reporting
from heliosvfs.vfs.page_io import ZEROS, has_sizes, require_sizes
from heliosvfs.vfs.wal_header import WAL_HEADER, header_for_sqlite, header_on_disk
from heliosvfs.vfs.wal_pieces import FramePieces

if TYPE_CHECKING:
    from heliosvfs.vfs.database import DatabaseFile

__all__ = ["FRAME_HEADER", "WalFile"]

FRAME_HEADER = 24
_SALTS = slice(16, 24)  # of the WAL header
_FRAME_SALTS = slice(8, 16)  # of a frame header
_PAGE_ONE = b"\0\0\0\1"  # in bytes 0 to 3 of a frame header
_NO_COMMIT = bytes(4)  # in bytes 4 to 7 of a frame header: the transaction goes on
_NO_SALTS = bytes(16)  # in bytes 8 to 23: the header will be written again when the transaction commits
_NOWHERE = -1
_HEADERS_KEPT = 1 << 16  # frame headers kept of a transaction: 10 MB at the most; further ones are read back when they are needed


class WalFile(apsw.VFSFile):
    """A WAL: plain frames to SQLite, sealed ones on disk."""

    def __init__(self, base: str, name: str, flags: list[int], database: DatabaseFile) -> None:
        """Open the WAL of ``database``."""
        self._path = name
        self._database = database
        self._generation = -1
        self._page_size = 0
        self._frame_size = 0
        self._salts = b""  # of the WAL header as this handle saw it last
        self._held: tuple[int, bytes] | None = None  # offset and header of a frame whose page comes next
        self._pieces: FramePieces | None = None
        self._whole = _NOWHERE  # offset of the frame that was just read whole: the opener still holds it
        self._headers: dict[int, bytes] = {}  # of the frames of the transaction being written, by offset
        self._next = -1  # offset that continues the transaction being written, -1 after a commit
        self._last_salts = b""  # of the frame sealed last
        self._recovering = False  # SQLite has read the header to rebuild its index, and has written nothing since
        self._tally = tallies.Tally("wal")
        super().__init__(base, name, flags)
        self.xDeviceCharacteristics = reporting(super().xDeviceCharacteristics())  # type: ignore[method-assign]
        self.bind()
        database.wal = self
        tallies.add(self._tally)

    def bind(self) -> None:
        """Take the keys and page size of the database, if they are new; those that it had are held no longer."""
        if self._generation == self._database.access.generation:
            return
        keys = self._database.page_keys()
        self._generation = self._database.access.generation
        self._page_size = self._database.page_size_in_force()
        self._frame_size = FRAME_HEADER + self._page_size
        self._opener = Opener(keys, KIND_WAL, self._frame_size)
        self._sealer = Sealer(keys, KIND_WAL, self._frame_size, os.urandom)
        self._page_view = memoryview(self._opener.buffer)[FRAME_HEADER:]
        self.xRead = self._reader()  # type: ignore[method-assign, assignment]
        self.xWrite = self._writer()  # type: ignore[method-assign, assignment]

    def _reader(self) -> Callable[[int, int], Buffer]:
        """Return an xRead for a frame or its page that turns to `_read` for anything else; see page_io for its style."""
        page_size, frame_size = self._page_size, self._frame_size
        read, slow, opener, page = super().xRead, self._read, self._opener, self._page_view
        unpack, contexts, plain, frame, tally = opener.unpack, opener.contexts, opener.plain, opener.buffer, self._tally
        pack = struct.Struct(">I").pack

        def read_frame(amount: int, offset: int) -> Buffer:
            index, start = divmod(offset - WAL_HEADER, frame_size)
            if (amount == page_size and start == FRAME_HEADER) or (amount == frame_size and not start and not self._recovering):
                self._whole = _NOWHERE
                try:
                    body, nonce, selector = unpack(read(frame_size, offset - start))
                    decrypt_into, prefix = contexts[selector]
                    decrypt_into(nonce, body, prefix + self._salts + pack(index), plain)
                except (InvalidTag, UnknownEpochError, struct.error):
                    return slow(amount, offset)
                tally.opened += 1
                if start:
                    return page
                self._whole = offset
                return frame
            return slow(amount, offset)

        return read_frame

    def _writer(self) -> Callable[[bytes, int], None]:
        """Return an xWrite for frames that come as header and page, and for either alone; `_write` takes anything else."""
        page_size, frame_size, opened = self._page_size, self._frame_size, self._opener.plain
        write, slow, seal, tally = super().xWrite, self._write, self._sealer.seal, self._tally
        join = struct.Struct(f"{FRAME_HEADER}s{page_size - RESERVED_BYTES}s").pack_into
        plain = bytearray(frame_size - RESERVED_BYTES)
        pack = struct.Struct(">I").pack

        def write_frame(data: bytes, offset: int) -> None:
            try:
                held, size, whole = self._held, len(data), self._whole
                self._whole = _NOWHERE
                if held is None and self._pieces is None:
                    index, start = divmod(offset - WAL_HEADER, frame_size)
                    if size == FRAME_HEADER and not start:
                        self._recovering = False
                        if whole != offset:
                            self._held = (offset, data)
                            return
                        opened[:FRAME_HEADER] = data
                        salts = data[_FRAME_SALTS] if data[8:] != _NO_SALTS else self._last_salts
                        write(seal(opened, salts + pack(index)), offset)
                        tally.sealed += 1
                        return
                    header = self._headers.get(offset - FRAME_HEADER)
                    if (
                        header is not None
                        and size == page_size
                        and data.endswith(ZEROS)
                        and (not header.startswith(_PAGE_ONE) or has_sizes(data, page_size))
                    ):
                        join(plain, 0, header, data)
                        salts = header[_FRAME_SALTS] if header[8:] != _NO_SALTS else self._last_salts
                        write(seal(plain, salts + pack(index)), offset - FRAME_HEADER)
                        tally.sealed += 1
                        return
                elif (
                    held is not None
                    and held[0] == offset - FRAME_HEADER
                    and size == page_size
                    and data.endswith(ZEROS)
                    and (not held[1].startswith(_PAGE_ONE) or has_sizes(data, page_size))
                ):
                    frame, header = held
                    salts = header[_FRAME_SALTS] if header[8:] != _NO_SALTS else self._last_salts
                    if (frame == self._next and salts == self._last_salts) or self._keeps_keys(frame, salts):
                        self._held = None
                        join(plain, 0, header, data)
                        write(seal(plain, salts + pack((frame - WAL_HEADER) // frame_size)), frame)
                        tally.sealed += 1
                        self._last_salts = salts
                        if header[4:8] == _NO_COMMIT and len(headers := self._headers) < _HEADERS_KEPT:
                            self._next = frame + frame_size
                            headers[frame] = header
                        else:
                            self._appended(frame, header)
                        return
                slow(data, offset)
            except apsw.FullError as error:
                raise DiskFullError.of(self._path) from error

        return write_frame

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
        self._write(data, offset)

    # -- reading -----------------------------------------------------------------------------------------------------

    def _read(self, amount: int, offset: int) -> Buffer:
        self._whole = _NOWHERE
        if offset < WAL_HEADER:
            self._recovering = self._recovering or (offset, amount) == (0, WAL_HEADER)
            return self._header()[offset : offset + amount]
        start = (offset - WAL_HEADER) % self._frame_size
        frame = offset - start
        if start + amount > self._frame_size:
            msg = f"{self._path}: a read of {amount} bytes at offset {offset} straddles frames"
            raise RefusedWriteError(msg)
        if amount == self._page_size and start == FRAME_HEADER:
            self._required_frame(frame)
            return self._page_view
        if amount < self._frame_size:
            return self._required_frame(frame)[start : start + amount]
        if self._recovering:
            return self._recover(frame)
        # walRewriteChecksums: zeros here would be sealed again as if they were the page
        plain = self._required_frame(frame)
        self._whole = frame
        return plain

    def _recover(self, frame: int) -> Buffer:
        """Return a frame, or zeros where GCM rejects it under a key that is certain: the log ends there."""
        sealed = super().xRead(self._frame_size, frame)
        if len(sealed) < self._frame_size:
            return sealed[:0]
        plain = self._open_frame(frame)
        if plain is not None:
            return bytes(plain)
        if self._database.page_keys().may_be_newer(sealed[-4:]):
            raise self._damaged(frame)
        return bytes(self._frame_size)

    def committed_pages(self) -> int:
        """Return the database size, in pages, that the last commit in the log states; 0 if there is none."""
        self._whole = _NOWHERE
        for number in range((self.xFileSize() - WAL_HEADER) // self._frame_size - 1, -1, -1):
            # behind the end of the log is what was torn, or belongs to an earlier one
            plain = self._open_frame(WAL_HEADER + number * self._frame_size)
            if plain is not None and (size := int.from_bytes(plain[4:8], "big")):
                return size
        return 0

    def _header(self) -> bytes:
        header = header_for_sqlite(super().xRead(WAL_HEADER, 0), self._path)
        self._salts = header[_SALTS]
        return header

    def _required_frame(self, frame: int) -> bytearray:
        """Return a plain frame, valid until the next is opened.

        Raises:
            TamperedError: The frame fails authentication, or the file ends within it.
        """
        plain = self._open_frame(frame)
        if plain is None:
            raise self._damaged(frame)
        return plain

    def _damaged(self, frame: int) -> TamperedError:
        number = (frame - WAL_HEADER) // self._frame_size + 1
        msg = f"{self._path}: frame {number} at offset {frame} fails authentication: it is damaged or was tampered with"
        return TamperedError(msg, file=self._path, page=number, offset=frame)

    def _open_frame(self, frame: int) -> bytearray | None:
        """Return a plain frame, valid until the next is opened; None: it fails authentication, or the file ends within it.

        The salts may be those of an earlier log: a process that joins a WAL never reads its header, and another may have
        restarted it. So a failure counts only once the header has been read again, and the superblock for a new epoch.
        """
        number = (frame - WAL_HEADER) // self._frame_size
        sealed = super().xRead(self._frame_size, frame)
        if len(sealed) == self._frame_size:
            for _ in range(3):
                salts = self._salts
                try:
                    plain = self._opener.open(sealed, salts + number.to_bytes(4, "big"))
                except NotAuthenticError:
                    self._header()
                    if self._salts == salts:
                        break
                except UnknownEpochError:
                    self._database.access.refresh(begun=True)
                    if self._generation == self._database.access.generation:
                        break
                    self.bind()
                else:
                    self._tally.opened += 1
                    return plain
        return None

    # -- writing -----------------------------------------------------------------------------------------------------

    def _write(self, data: Buffer, offset: int) -> None:
        """Seal and write; see the module for the orders in which the parts of a frame arrive."""
        held, self._held = self._held, None
        pieces, self._pieces = self._pieces, None
        self._recovering = False
        size = len(data)
        if pieces is not None:
            if offset != pieces.next:
                raise self._refused(size, offset)
            self._continue(pieces, bytes(data))
        elif held is not None:
            if offset != held[0] + FRAME_HEADER or size > self._page_size:
                raise self._refused(size, offset)
            if size == self._page_size:
                self._append(held[0], held[1], data)
            else:
                self._begin(held[0], held[1] + bytes(data), self._salts_of(held[1]))
        elif offset == 0 and size == WAL_HEADER:
            header = bytes(data)
            self._salts, self._next = header[_SALTS], -1
            self._headers.clear()
            super().xWrite(header_on_disk(header), 0)
        else:
            self._write_alone(data, offset)

    def _write_alone(self, data: Buffer, offset: int) -> None:
        """Write what begins a frame in pieces, or the page of a frame whose header is on disk alone."""
        size, start = len(data), (offset - WAL_HEADER) % self._frame_size
        if start == FRAME_HEADER and size == self._page_size:
            header = bytes(self._required_frame(offset - FRAME_HEADER)[:FRAME_HEADER])
            self._seal(offset - FRAME_HEADER, header, data, self._salts_of(header))
        elif start == 0 and size < FRAME_HEADER and self._last_salts:
            self._begin(offset, bytes(data), self._last_salts)
        else:
            raise self._refused(size, offset)

    def _refused(self, size: int, offset: int) -> RefusedWriteError:
        msg = f"{self._path}: a write of {size} bytes at offset {offset} is no part of a frame that can be sealed"
        return RefusedWriteError(msg)

    def _appended(self, frame: int, header: bytes) -> None:
        """Note a frame of the transaction being written."""
        if header[4:8] != _NO_COMMIT:
            self._next = -1
            self._headers.clear()
            return
        self._next = frame + self._frame_size
        if len(self._headers) < _HEADERS_KEPT:
            self._headers[frame] = header

    def _append(self, frame: int, header: bytes, page: Buffer) -> None:
        """Seal a frame that begins a transaction, or follows what a savepoint has rolled back."""
        salts = self._salts_of(header)
        self._keeps_keys(frame, salts)
        self._seal(frame, header, page, salts)
        self._last_salts = salts
        self._appended(frame, header)

    def _keeps_keys(self, frame: int, salts: bytes) -> bool:
        """Prepare for a frame that begins a transaction, or follows what a savepoint has rolled back.

        The superblock is looked at, because no frame may be sealed under an epoch that was dropped.

        Returns:
            False if the keys are others now, so that `bind` has made the hot paths anew.
        """
        generation = self._generation
        self._database.begin_frames()
        self.bind()
        if self._headers:
            self._headers = {} if salts != self._last_salts else {at: kept for at, kept in self._headers.items() if at < frame}
        return self._generation == generation

    def _seal(self, frame: int, header: bytes, page: Buffer, salts: bytes) -> None:
        if header.startswith(_PAGE_ONE):
            require_sizes(page, self._page_size, self._database.path)
        if page[-RESERVED_BYTES:] != ZEROS:
            msg = f"{self._path}: a page uses the last {RESERVED_BYTES} bytes, which hold its seal"
            raise RefusedWriteError(msg)
        number = (frame - WAL_HEADER) // self._frame_size
        plain = header + page[:-RESERVED_BYTES]
        super().xWrite(self._sealer.seal(plain, salts + number.to_bytes(4, "big")), frame)
        self._tally.sealed += 1

    def _salts_of(self, header: bytes) -> bytes:
        """Return the salts of the log that a frame belongs to.

        SQLite leaves salts and checksum zero (walEncodeFrame) once a page was written twice in a transaction, and writes them
        when it commits; the frames before it in that transaction have told them.
        """
        return header[_FRAME_SALTS] if header[8:] != _NO_SALTS else self._last_salts

    def _begin(self, frame: int, data: bytes, salts: bytes) -> None:
        """Start a frame whose rest comes after a sync: it follows a commit, whose epoch holds for it too."""
        nonce, selector, prefix = self._sealer.draw()
        number = (frame - WAL_HEADER) // self._frame_size
        key = self._database.page_keys().sub_key(selector)
        bound = prefix + salts + number.to_bytes(4, "big")
        self._continue(FramePieces(frame, self._frame_size, key, nonce, selector, bound), data)

    def _continue(self, pieces: FramePieces, data: bytes) -> None:
        offset = pieces.next
        sealed = pieces.seal(data)
        if sealed is None:
            raise self._refused(len(data), offset)
        super().xWrite(sealed, offset)
        self._pieces = pieces if pieces.next < pieces.end else None
        self._tally.sealed += self._pieces is None
        self._next = -1  # only the frames that pad a commit come in pieces

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        """Make the log durable; the boundary that a padded commit is synced at may lie just behind a frame's header."""
        held, self._held = self._held, None
        if held is not None:
            self._begin(held[0], held[1], self._salts_of(held[1]))
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        """Cut the WAL; frames keep their size, so sizes are SQLite's own."""
        self._database.page_keys()
        self._whole = _NOWHERE
        super().xTruncate(newsize)

    def xClose(self) -> None:  # noqa: N802 - SQLite's name
        """Close the WAL."""
        for fast in ("xRead", "xWrite"):
            self.__dict__.pop(fast, None)  # they hold keys and this object
        tallies.end(self._tally)
        if self._database.wal is self:
            self._database.wal = None
        super().xClose()
