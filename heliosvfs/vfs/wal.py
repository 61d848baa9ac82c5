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
from dataclasses import dataclass
from typing import TYPE_CHECKING

import apsw
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import GCM

from heliosvfs.errors import FormatError, RefusedWriteError, TamperedError
from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.pages import (
    KIND_WAL,
    Buffer,
    NotAuthenticError,
    Opener,
    Sealer,
    UnknownEpochError,
)
from heliosvfs.vfs.page_io import ZEROS

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import AEADEncryptionContext

    from heliosvfs.vfs.database import DatabaseFile

__all__ = ["FRAME_HEADER", "WAL_HEADER", "WalFile", "header_for_sqlite", "header_on_disk"]

WAL_HEADER = 32  # SQLite file format 4.1
FRAME_HEADER = 24
_SQLITE_VERSION = 3007000
_OUR_VERSION = 0x48560001  # "HV", format 1
_SALTS = slice(16, 24)  # of the WAL header
_FRAME_SALTS = slice(8, 16)  # of a frame header


def _checksum(header: bytes) -> bytes:
    """Return the checksum of the first 24 bytes of a WAL header, as SQLite stores it (walChecksumBytes)."""
    order = "big" if header[3] & 1 else "little"
    first = second = 0
    for i in range(0, 24, 8):
        first = (first + int.from_bytes(header[i : i + 4], order) + second) & 0xFFFFFFFF  # type: ignore[arg-type]
        second = (second + int.from_bytes(header[i + 4 : i + 8], order) + first) & 0xFFFFFFFF  # type: ignore[arg-type]
    return first.to_bytes(4, "big") + second.to_bytes(4, "big")


def header_on_disk(header: bytes) -> bytes:
    """Return SQLite's WAL header with our version number and a checksum to match."""
    changed = header[:4] + _OUR_VERSION.to_bytes(4, "big") + header[8:24]
    return changed + _checksum(changed)


def header_for_sqlite(header: bytes, path: str) -> bytes:
    """Return a WAL header from disk as SQLite wrote it; one that is torn is returned as it is and fails SQLite's checksum.

    Raises:
        FormatError: The file is a WAL that heliosvfs did not write.
    """
    if len(header) < WAL_HEADER or _checksum(header) != header[24:]:
        return header
    if int.from_bytes(header[4:8], "big") != _OUR_VERSION:
        msg = (
            f"{path} is not a heliosvfs WAL, though it lies beside a heliosvfs database: another program may have written "
            "it; move it away if it does not belong here"
        )
        raise FormatError(msg)
    plain = header[:4] + _SQLITE_VERSION.to_bytes(4, "big") + header[8:24]
    return plain + _checksum(plain)


@dataclass
class _Pieces:
    """A frame that arrives in pieces.

    Attributes:
        start: Offset of the frame.
        done: Bytes of it that were written.
        salts: Salts that its associated data binds.
        encryptor: Seals its body as it comes.
        trailer: nonce | selector, and once the body is complete tag | nonce | selector.
    """

    start: int
    done: int
    salts: bytes
    encryptor: AEADEncryptionContext
    trailer: bytes


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
        self._pieces: _Pieces | None = None
        self._whole = (-1, b"")  # offset and plain content of the frame that was just read whole
        self._next = -1  # offset that continues the transaction being written, -1 after a commit
        self._last_salts = b""  # of the frame sealed last
        self._recovering = False  # SQLite has read the header to rebuild its index, and has written nothing since
        super().__init__(base, name, flags)
        self._bind()

    def _bind(self) -> None:
        """Take the keys and page size of the database, if they are new."""
        keys = self._database.page_keys()
        if self._generation == self._database.access.generation:
            return
        self._generation = self._database.access.generation
        self._page_size = self._database.page_size_in_force()
        self._frame_size = FRAME_HEADER + self._page_size
        self._opener = Opener(keys, KIND_WAL, self._frame_size)
        self._sealer = Sealer(keys, KIND_WAL, self._frame_size, os.urandom)
        self._page_view = memoryview(self._opener.buffer)[FRAME_HEADER:]

    # -- reading -----------------------------------------------------------------------------------------------------

    def xRead(self, amount: int, offset: int) -> Buffer:  # noqa: N802 - SQLite's name
        """Return plain bytes; see `apsw.VFSFile.xRead`.

        Raises:
            TamperedError: A frame that SQLite relies on fails authentication. While SQLite looks for the end of the log, such a
                frame reads as zeros instead, which ends the log there as a torn frame does.
        """
        self._whole = (-1, b"")
        position, start = divmod(offset - WAL_HEADER, self._frame_size)
        if amount == self._page_size and start == FRAME_HEADER:
            sealed = super().xRead(self._frame_size, offset - FRAME_HEADER)
            if len(sealed) == self._frame_size:
                try:
                    self._opener.open(sealed, self._salts + position.to_bytes(4, "big"))
                except (NotAuthenticError, UnknownEpochError):
                    self._open_frame(offset - FRAME_HEADER)
                return self._page_view
        return self._read(amount, offset)

    def _read(self, amount: int, offset: int) -> Buffer:
        if offset < WAL_HEADER:
            self._recovering = self._recovering or (offset, amount) == (0, WAL_HEADER)
            return self._header()[offset : offset + amount]
        start = (offset - WAL_HEADER) % self._frame_size
        frame = offset - start
        if start + amount > self._frame_size:
            msg = f"{self._path}: a read of {amount} bytes at offset {offset} straddles frames"
            raise RefusedWriteError(msg)
        if amount < self._frame_size:
            return self._open_frame(frame)[start : start + amount]
        if self._recovering:
            return self._recover(frame)
        # walRewriteChecksums: zeros here would be sealed again as if they were the page
        plain = bytes(self._open_frame(frame))
        self._whole = (frame, plain)
        return plain

    def _recover(self, frame: int) -> Buffer:
        """Return a frame, or zeros where GCM rejects it under a key that is certain: the log ends there."""
        sealed = super().xRead(self._frame_size, frame)
        if len(sealed) < self._frame_size:
            return sealed[:0]
        try:
            plain = bytes(self._open_frame(frame))
        except TamperedError:
            if self._database.page_keys().may_be_newer(sealed[-4:]):
                raise
            return bytes(self._frame_size)
        return plain

    def _header(self) -> bytes:
        header = header_for_sqlite(super().xRead(WAL_HEADER, 0), self._path)
        self._salts = header[_SALTS]
        return header

    def _open_frame(self, frame: int) -> bytearray:
        """Return a plain frame, valid until the next is opened.

        The salts may be those of an earlier log: a process that joins a WAL never reads its header, and another may have
        restarted it. So a failure counts only once the header has been read again, and the superblock for a new epoch.

        Raises:
            TamperedError: The frame fails authentication, or the file ends within it.
        """
        number = (frame - WAL_HEADER) // self._frame_size
        sealed = super().xRead(self._frame_size, frame)
        if len(sealed) == self._frame_size:
            for _ in range(3):
                salts = self._salts
                try:
                    return self._opener.open(sealed, salts + number.to_bytes(4, "big"))
                except NotAuthenticError:
                    self._header()
                    if self._salts == salts:
                        break
                except UnknownEpochError:
                    self._database.refresh()
                    if self._generation == self._database.access.generation:
                        break
                    self._bind()
        msg = f"{self._path}: frame {number + 1} at offset {frame} fails authentication: it is damaged or was tampered with"
        raise TamperedError(msg, file=self._path, page=number + 1, offset=frame)

    # -- writing -----------------------------------------------------------------------------------------------------

    def xWrite(self, data: Buffer, offset: int) -> None:  # noqa: N802 - SQLite's name
        """Seal and write what SQLite writes; see the module for the orders in which frames arrive.

        Raises:
            RefusedWriteError: The write fits none of them; nothing was written.
        """
        held, self._held = self._held, None
        pieces, self._pieces = self._pieces, None
        whole, self._whole = self._whole, (-1, b"")
        self._recovering = False
        size = len(data)
        if pieces is not None:
            if offset != pieces.start + pieces.done:
                raise self._refused(size, offset)
            self._continue(pieces, bytes(data))
            return
        if held is not None:
            if offset != held[0] + FRAME_HEADER or size > self._page_size:
                raise self._refused(size, offset)
            if size == self._page_size:
                self._seal(held[0], held[1], data)
            else:
                self._begin(held[0], held[1] + bytes(data), self._salts_of(held[1]))
            return
        if offset == 0 and size == WAL_HEADER:
            header = bytes(data)
            self._salts, self._next = header[_SALTS], -1
            super().xWrite(header_on_disk(header), 0)
            return
        start = (offset - WAL_HEADER) % self._frame_size
        if start == 0 and size == FRAME_HEADER:
            if whole[0] == offset:
                self._seal(offset, bytes(data), whole[1][FRAME_HEADER:])
            else:
                self._held = (offset, bytes(data))
        elif start == FRAME_HEADER and size == self._page_size:
            header = bytes(self._open_frame(offset - FRAME_HEADER)[:FRAME_HEADER])
            self._seal(offset - FRAME_HEADER, header, data)
        elif start == 0 and size < FRAME_HEADER and self._last_salts:
            self._begin(offset, bytes(data), self._last_salts)
        else:
            raise self._refused(size, offset)

    def _refused(self, size: int, offset: int) -> RefusedWriteError:
        msg = f"{self._path}: a write of {size} bytes at offset {offset} is no part of a frame that can be sealed"
        return RefusedWriteError(msg)

    def _start_of_transaction(self, frame: int) -> None:
        """Take over a new epoch before the first frame of a transaction: no frame is sealed under an epoch that was dropped."""
        if frame != self._next:
            self._database.refresh()
            self._bind()

    def _seal(self, frame: int, header: bytes, page: Buffer) -> None:
        if page[-RESERVED_BYTES:] != ZEROS:
            msg = f"{self._path}: a page uses the last {RESERVED_BYTES} bytes, which hold its seal"
            raise RefusedWriteError(msg)
        self._start_of_transaction(frame)
        number = (frame - WAL_HEADER) // self._frame_size
        salts = self._salts_of(header)
        plain = header + page[:-RESERVED_BYTES]
        super().xWrite(self._sealer.seal(plain, salts + number.to_bytes(4, "big")), frame)
        self._last_salts = salts
        committed = header[4:8] != b"\0\0\0\0"
        self._next = -1 if committed else frame + self._frame_size

    def _salts_of(self, header: bytes) -> bytes:
        """Return the salts of the log that a frame belongs to.

        SQLite leaves salts and checksum zero (walEncodeFrame) once a page was written twice in a transaction, and writes them when
        it commits; the frames before it in that transaction have told them.
        """
        return header[_FRAME_SALTS] if header[8:].strip(b"\0") else self._last_salts

    def _begin(self, frame: int, data: bytes, salts: bytes) -> None:
        """Start a frame whose rest comes after a sync."""
        self._start_of_transaction(frame)
        nonce, selector, prefix = self._sealer.draw()
        key = self._database.page_keys().sub_key(selector)
        encryptor = Cipher(AES256(key), GCM(nonce)).encryptor()
        number = (frame - WAL_HEADER) // self._frame_size
        encryptor.authenticate_additional_data(prefix + salts + number.to_bytes(4, "big"))
        self._continue(_Pieces(frame, 0, salts, encryptor, nonce + selector), data)

    def _continue(self, pieces: _Pieces, data: bytes) -> None:
        body = self._frame_size - RESERVED_BYTES
        at, end = pieces.done, pieces.done + len(data)
        if end > self._frame_size or data[max(0, body - at) :].strip(b"\0"):
            raise self._refused(len(data), pieces.start + at)
        out = pieces.encryptor.update(data[: max(0, body - at)])
        if at < body <= end:
            pieces.encryptor.finalize()
            pieces.trailer = pieces.encryptor.tag + pieces.trailer
        if end > body:
            out += pieces.trailer[max(0, at - body) : end - body]
        super().xWrite(out, pieces.start + at)
        pieces.done = end
        if end < self._frame_size:
            self._pieces = pieces
        else:
            self._next = -1  # only the frames that pad a commit come in pieces

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        """Cut the WAL; frames keep their size, so sizes are SQLite's own."""
        self._database.page_keys()
        self._whole = (-1, b"")
        super().xTruncate(newsize)

    def xDeviceCharacteristics(self) -> int:  # noqa: N802 - SQLite's name
        """Report POWERSAFE_OVERWRITE as the base has it, and nothing else."""
        return super().xDeviceCharacteristics() & apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE
