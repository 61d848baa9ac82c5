"""Frames whose headers a commit writes again, because a page was written twice in its transaction (walRewriteChecksums).

From the first such page on SQLite reads each frame whole and writes its header anew, up to the frame that commits. Here they are
read several at a time, and wait for each other like the frames of a transaction (`frame_batches`): all of it happens in one call,
in which nobody else can write to them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag

from heliosvfs.pages import Buffer, Opener, Sealer, UnknownEpochError
from heliosvfs.vfs.frame_batches import FRAME_HEADER, FrameBatch, bytes_ahead
from heliosvfs.vfs.superblocks import BaseFile
from heliosvfs.vfs.wal_header import NO_COMMIT, NOWHERE, WAL_HEADER

if TYPE_CHECKING:
    from heliosvfs.vfs.wal import WalFile
    from heliosvfs.vfs.wal_writing import FrameWriter

__all__ = ["header_writer", "whole_reader"]


def whole_reader(
    wal: WalFile, base: BaseFile, opener: Opener, slow: Callable[[int, int], Buffer]
) -> Callable[[int, int], Buffer]:
    """Return an xRead for a frame as a whole; it turns to ``slow`` for one that does not open.

    What was read ahead counts only while `WalFile.rewritten` says that the header of the frame before was written last.
    """
    frame_size, frame, tally, read = wal.frame_size, opener.buffer, wal.tally, base.read
    unpack, contexts, plain, pack = opener.unpack_from, opener.contexts, opener.plain, struct.Struct(">I").pack
    amount_ahead, begin, end, sealed = bytes_ahead(frame_size), 0, 0, b""

    def read_whole(amount: int, offset: int) -> Buffer:
        nonlocal begin, end, sealed
        follows = wal.rewritten == offset - frame_size
        if not (follows and begin <= offset < end):
            sealed = read(amount_ahead if follows else frame_size, offset)
            begin, end = offset, offset + len(sealed)
        wal.whole = NOWHERE
        try:
            body, nonce, selector = unpack(sealed, offset - begin)
            decrypt_into, prefix = contexts[selector]
            decrypt_into(nonce, body, prefix + wal.salts + pack((offset - WAL_HEADER) // frame_size), plain)
        except (InvalidTag, UnknownEpochError, struct.error):
            return slow(amount, offset)
        tally.opened += 1
        wal.whole = offset
        return frame

    return read_whole


def header_writer(
    frames: FrameWriter, wal: WalFile, base: BaseFile, sealer: Sealer, batch: FrameBatch
) -> Callable[[bytes, int], None]:
    """Return what seals the frame just read whole with another header."""
    frame_size, places, plain, tally, write = wal.frame_size, batch.places, wal.opened, wal.tally, base.write
    seal, seal_into, pack = sealer.seal, sealer.seal_into, struct.Struct(">I").pack

    def write_header(header: bytes, frame: int) -> None:
        wal.whole = NOWHERE
        plain[:FRAME_HEADER] = header
        bound, ends = frames.salts_of(header) + pack((frame - WAL_HEADER) // frame_size), header[4:8] != NO_COMMIT
        if places:
            count = batch.count
            if not count or frame != batch.first + count * frame_size:
                if count:
                    frames.flush()
                batch.wait_in_place(frame)
                frames.watch()
                count = 0
            seal_into(plain, bound, *places[count])
            batch.count = count + 1
            if ends or count + 1 == len(places):
                frames.flush()
        else:
            write(seal(plain, bound), frame)
        tally.sealed += 1
        wal.rewritten = frame
        if ends:
            wal.rewritten = NOWHERE
            wal.database.watch_reads(None)

    return write_header
