"""What SQLite writes to a write-ahead log, as frames: header and page are sealed as one unit.

SQLite writes a frame as header, then page. A header is held back until the next call, which must be its page; but two writes
come alone and are sealed at once: a header over a frame that was just read whole (walRewriteChecksums, which ends a spilled
commit, and at synchronous=NORMAL is followed by no sync) and a page over the page of an existing frame (walFrames, when a page is
written twice in a transaction). Without POWERSAFE_OVERWRITE the frame that pads a commit to a sector comes in pieces with a sync
between them (walWriteToLog): its pieces are sealed as a stream, so that no byte moves across that sync.

Frames that do not end a transaction wait for those that follow them; see `frame_batches`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import apsw

from heliosvfs.errors import DiskFullError, RefusedWriteError
from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.pages import Buffer, Sealer
from heliosvfs.vfs.checksum_rewrites import header_writer
from heliosvfs.vfs.controls import watching
from heliosvfs.vfs.frame_batches import FRAME_HEADER, FrameBatch
from heliosvfs.vfs.page_io import ZEROS, has_sizes, require_sizes
from heliosvfs.vfs.superblocks import BaseFile
from heliosvfs.vfs.wal_header import NO_COMMIT, NOWHERE, WAL_HEADER, header_on_disk
from heliosvfs.vfs.wal_pieces import FramePieces

if TYPE_CHECKING:
    from heliosvfs.vfs.wal import WalFile

__all__ = ["SALTS", "FrameWriter"]

SALTS = slice(16, 24)  # of the WAL header
_FRAME_SALTS = slice(8, 16)  # of a frame header
_PAGE_ONE = b"\0\0\0\1"  # in bytes 0 to 3 of a frame header
_NO_SALTS = bytes(16)  # in bytes 8 to 23: the header will be written again when the transaction commits
_HEADERS_KEPT = 1 << 16  # frame headers kept of a transaction: 10 MB at the most; further ones are read back when they are needed


class FrameWriter:
    """Seals and writes the frames of one WAL.

    Attributes:
        learns_of_reads: SQLite tells when a read transaction begins, and has done so.
    """

    def __init__(self, wal: WalFile, base: BaseFile) -> None:
        """Write to ``base``, the file beneath ``wal``; `bind` gives the keys."""
        self._wal = wal
        self._base = base
        self._held: tuple[int, bytes] | None = None  # offset and header of a frame whose page comes next
        self._pieces: FramePieces | None = None
        self._headers: dict[int, bytes] = {}  # of the frames of the transaction being written, by offset
        self._next = NOWHERE  # offset that continues the transaction being written, NOWHERE after a commit
        self._salts = b""  # of the frame sealed last
        self._frame_size = 0
        self._watching = watching(wal.database, self._read_begins)
        self.learns_of_reads = False
        self._batch: FrameBatch
        self._sealer: Sealer

    def batch(self, frame_size: int) -> FrameBatch:
        """Return what lets frames of this size wait; they survive new keys, sealed as they are."""
        if self._frame_size != frame_size:
            self._frame_size = frame_size
            self._batch = FrameBatch(frame_size, self._base.read, self._base.write)
        return self._batch

    def bind(self, sealer: Sealer) -> Callable[[bytes, int], None]:  # noqa: C901 - a frame costs less without calls
        """Take a sealer, and return an xWrite.

        It is for frames that come as header and page, and for either alone; `write` takes anything else.
        """
        self._sealer = sealer
        wal, batch, page_size, frame_size = self._wal, self._batch, self._wal.page_size, self._frame_size
        write, slow, append = self._base.write, self.write, self._appended
        write_page, write_header = self._page_writer(), header_writer(self, wal, self._base, sealer, batch)
        seal, seal_into, tally, places = sealer.seal, sealer.seal_into, wal.tally, batch.places
        join, plain = self._joiner()
        pack = struct.Struct(">I").pack

        def write_frame(data: bytes, offset: int) -> None:  # noqa: C901, PLR0912 - the same
            try:
                held, self._held = self._held, None
                if len(data) == FRAME_HEADER and not (offset - WAL_HEADER) % frame_size and self._pieces is None:
                    wal.recovering = False
                    if wal.whole == offset:
                        write_header(data, offset)
                    else:  # one that was held, whose page never came because of an interrupt, is void
                        wal.whole = NOWHERE
                        self._held = offset, data
                    return
                if held is None:
                    if write_page(data, offset):
                        return
                elif (
                    offset == held[0] + FRAME_HEADER
                    and len(data) == page_size
                    and data.endswith(ZEROS)
                    and (not held[1].startswith(_PAGE_ONE) or has_sizes(data, page_size))
                ):
                    frame, header = held
                    salts, before = header[_FRAME_SALTS], self._salts
                    if salts != before and header[8:] == _NO_SALTS:
                        salts = before
                    continues = frame == self._next and salts == before and not batch.doubtful
                    if continues or self._keeps_keys(frame, salts):
                        join(plain, 0, header, data)
                        bound, ends = salts + pack((frame - WAL_HEADER) // frame_size), header[4:8] != NO_COMMIT
                        self._salts = salts
                        if (count := batch.count) or (continues and places and not ends):
                            seal_into(plain, bound, *places[count])
                            if not count:
                                batch.first = frame
                            batch.count = count + 1
                            if ends or count + 1 == len(places):
                                self.flush()
                        else:
                            sealed = seal(plain, bound)
                            write(sealed, frame)
                            if not ends:
                                self._anchor(frame, sealed)
                        tally.sealed += 1
                        append(frame, header)
                        return
                slow(data, offset, held)
            except BaseException as error:
                self.failed()
                if isinstance(error, apsw.FullError):
                    raise DiskFullError.of(wal.path) from error
                raise

        return write_frame

    def _joiner(self) -> tuple[Callable[..., None], memoryview]:
        """Return what packs a header and a page without its reserved bytes into a buffer, and the buffer."""
        join = struct.Struct(f"{FRAME_HEADER}s{self._wal.page_size - RESERVED_BYTES}s").pack_into
        return join, memoryview(bytearray(self._frame_size - RESERVED_BYTES))

    def _page_writer(self) -> Callable[[bytes, int], bool]:
        """Return what writes a page over that of a frame of this transaction; False: it is something else."""
        wal, batch, page_size, frame_size = self._wal, self._batch, self._wal.page_size, self._frame_size
        write, seal, tally = self._base.write, self._sealer.seal, wal.tally
        join, plain = self._joiner()
        pack = struct.Struct(">I").pack

        def write_page(data: bytes, offset: int) -> bool:
            wal.whole = NOWHERE
            frame = offset - FRAME_HEADER
            header = self._headers.get(frame, b"")
            if (
                not header
                or len(data) != page_size
                or not data.endswith(ZEROS)
                or self._pieces is not None
                or (header.startswith(_PAGE_ONE) and not has_sizes(data, page_size))
            ):
                return False
            join(plain, 0, header, data)
            if frame >= batch.first:
                self._rewrite(frame, header, plain)
                return True
            sealed = seal(plain, self.salts_of(header) + pack((frame - WAL_HEADER) // frame_size))
            batch.rewrites(frame, sealed)
            write(sealed, frame)
            tally.sealed += 1
            return True

        return write_page

    def write(self, data: Buffer, offset: int, held: tuple[int, bytes] | None = None) -> None:
        """Seal and write; see the module for the orders in which the parts of a frame arrive.

        Args:
            data: What SQLite writes.
            offset: Where in the file.
            held: The header that came right before, and its offset.

        Raises:
            RefusedWriteError: The write is no part of a frame; nothing was written.
        """
        pieces, self._pieces = self._pieces, None
        self._wal.recovering = False
        size = len(data)
        if offset == 0 and size == WAL_HEADER:  # the log begins anew: a frame that an interrupt has left half-written is void
            header = bytes(data)
            self._wal.salts = header[SALTS]
            self.forget()
            self._base.write(header_on_disk(header), 0)
        elif pieces is not None:
            if offset != pieces.next:
                raise self._refused(size, offset)
            self._continue(pieces, bytes(data))
        elif held is not None:
            if offset != held[0] + FRAME_HEADER or size > self._wal.page_size:
                raise self._refused(size, offset)
            if size == self._wal.page_size:
                self._append(held[0], held[1], data)
            else:
                self._begin(held[0], held[1] + bytes(data), self.salts_of(held[1]))
        else:
            self._write_alone(data, offset)

    def _write_alone(self, data: Buffer, offset: int) -> None:
        """Write what begins a frame in pieces, or the page of a frame whose header is on disk alone."""
        size, start = len(data), (offset - WAL_HEADER) % self._frame_size
        frame = offset - start
        if start == FRAME_HEADER and size == self._wal.page_size:
            header = bytes(self._wal.required_frame(frame)[:FRAME_HEADER])
            self._rewrite(frame, header, self._joined(header, data))
        elif start == 0 and size < FRAME_HEADER and self._salts:
            self._begin(offset, bytes(data), self._salts)
        else:
            raise self._refused(size, offset)

    def _refused(self, size: int, offset: int) -> RefusedWriteError:
        msg = f"{self._wal.path}: a write of {size} bytes at offset {offset} is no part of a frame that can be sealed"
        return RefusedWriteError(msg)

    def _joined(self, header: bytes, page: Buffer) -> bytes:
        """Return the plain frame, without its reserved bytes."""
        if header.startswith(_PAGE_ONE):
            require_sizes(page, self._wal.page_size, self._wal.database.path)
        if page[-RESERVED_BYTES:] != ZEROS:
            msg = f"{self._wal.path}: a page uses the last {RESERVED_BYTES} bytes, which hold its seal"
            raise RefusedWriteError(msg)
        return header + page[:-RESERVED_BYTES]

    def _bound(self, frame: int, salts: bytes) -> bytes:
        """Return the associated data of one frame."""
        return salts + ((frame - WAL_HEADER) // self._frame_size).to_bytes(4, "big")

    def salts_of(self, header: bytes) -> bytes:
        """Return the salts of the log that a frame belongs to.

        SQLite leaves salts and checksum zero (walEncodeFrame) once a page was written twice in a transaction, and writes them
        when it commits; the frames before it in that transaction have told them.
        """
        return header[_FRAME_SALTS] if header[8:] != _NO_SALTS else self._salts

    # -- the frames of a transaction ---------------------------------------------------------------------------------

    def _appended(self, frame: int, header: bytes) -> None:
        """Note a frame of the transaction being written."""
        headers = self._headers
        if header[4:8] != NO_COMMIT:
            self._next = NOWHERE
            if headers:
                headers.clear()
                self._wal.database.watch_reads(None)
            return
        self._next = frame + self._frame_size
        if len(headers) < _HEADERS_KEPT:
            headers[frame] = header

    def _append(self, frame: int, header: bytes, page: Buffer) -> None:
        """Seal a frame, and write it with all that waits before it."""
        salts = self.salts_of(header)
        if frame != self._next or salts != self._salts or self._batch.doubtful:
            self._keeps_keys(frame, salts)
        plain = self._joined(header, page)
        if self._batch.count:
            self.flush()
        sealed = self._sealer.seal(plain, self._bound(frame, salts))
        self._base.write(sealed, frame)
        self._wal.tally.sealed += 1
        self._anchor(frame, sealed)
        self._salts = salts
        self._appended(frame, header)

    def _keeps_keys(self, frame: int, salts: bytes) -> bool:
        """Prepare for a frame that begins a transaction, or follows what a savepoint has rolled back.

        The superblock is looked at, because no frame may be sealed under an epoch that was dropped.

        Returns:
            False if the keys are others now, so that `bind` has made the hot paths anew.
        """
        if salts != self._salts:
            self._batch.drop()
        elif self._batch.count or self._batch.doubtful:
            self._batch.cut(frame)
        if self._headers:
            self._headers = {} if salts != self._salts else {at: kept for at, kept in self._headers.items() if at < frame}
        wal, access, sealer = self._wal, self._wal.database.access, self._sealer
        wal.rewritten = NOWHERE
        if wal.generation != access.generation or not access.is_current():
            wal.database.begin_frames()
            wal.bind()
        return self._sealer is sealer

    def _rewrite(self, frame: int, header: bytes, plain: Buffer) -> None:
        """Seal a frame of this transaction again, with another header or page."""
        bound, batch = self._bound(frame, self.salts_of(header)), self._batch
        index = batch.index_of(frame)
        if index is None:
            sealed = self._sealer.seal(plain, bound)
            batch.rewrites(frame, sealed)
            self._base.write(sealed, frame)
        else:
            self._sealer.seal_into(plain, bound, *batch.places[index])
        self._wal.tally.sealed += 1

    # -- frames that wait --------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Learn of the next read transaction: the transaction that is being written is over then."""
        self._wal.database.watch_reads(self._watching)

    def _read_begins(self) -> None:
        self.learns_of_reads = True
        self._batch.doubtful = True
        self._wal.end_checkpoint()  # whose end an interrupt may have kept from us

    def _anchor(self, frame: int, sealed: Buffer) -> None:
        """Note a frame that was just written and does not end its transaction."""
        self._batch.anchor_at(frame, sealed)
        if self.learns_of_reads:
            self._batch.make_room()
            self.watch()

    def waiting(self, frame: int) -> bytes | None:
        """Return a sealed frame that is not on disk yet; None: what is there is the frame.

        Raises:
            RefusedWriteError: As `flush`.
        """
        index = self._batch.index_of(frame)
        if index is None:
            return None
        if self._batch.is_anchored():
            return self._batch.sealed(index)
        if not self._batch.doubtful:
            raise self._overtaken()
        self.forget()
        return None

    def flush(self) -> None:
        """Write what waits.

        Raises:
            RefusedWriteError: Another process has written to its place.
        """
        if not self._batch.flush():
            raise self._overtaken()

    def _overtaken(self) -> RefusedWriteError:
        msg = f"{self._wal.path}: another process has written to the place of this transaction, which is rolled back"
        return RefusedWriteError(msg)

    def failed(self) -> None:
        """Note that a call has failed.

        SQLite rolls back or, as after an interrupt, undoes a statement and goes on: then it writes the frame to its place again.
        """
        self._held = self._pieces = None
        self._next = NOWHERE

    def forget(self) -> None:
        """Forget the transaction that was being written: it was rolled back, or can't go on."""
        self._next = NOWHERE
        self._headers.clear()
        self._batch.drop()

    # -- frames in pieces --------------------------------------------------------------------------------------------

    def before_sync(self) -> None:
        """Write a header that is held back as a piece: without POWERSAFE_OVERWRITE a sync comes between it and its page."""
        held, self._held = self._held, None
        if held is None or held[1][4:8] == NO_COMMIT:
            return
        if not self._wal.xDeviceCharacteristics() & apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE:
            self._begin(held[0], held[1], self.salts_of(held[1]))

    def _begin(self, frame: int, data: bytes, salts: bytes) -> None:
        """Start a frame whose rest comes after a sync: it follows a commit, whose epoch holds for it too."""
        if self._batch.count:
            self.flush()
        nonce, selector, prefix = self._sealer.draw()
        key = self._wal.database.page_keys().sub_key(selector)
        self._continue(FramePieces(frame, self._frame_size, key, nonce, selector, prefix + self._bound(frame, salts)), data)

    def _continue(self, pieces: FramePieces, data: bytes) -> None:
        offset = pieces.next
        sealed = pieces.seal(data)
        if sealed is None:
            raise self._refused(len(data), offset)
        self._base.write(sealed, offset)
        self._pieces = pieces if pieces.next < pieces.end else None
        self._wal.tally.sealed += self._pieces is None
        self._next = NOWHERE  # only the frames that pad a commit come in pieces
