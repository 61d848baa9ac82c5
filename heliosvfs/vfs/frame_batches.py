"""Frames of one transaction on their way to the log: sealed at once, written several at a time.

A frame that does not end its transaction may be lost, so it need not be on disk before that one is, and one system call for
thirty of them costs a third of thirty. They wait until the transaction commits or there is no more room. They are written at no
other time: SQLite doesn't tell a VFS that a transaction was rolled back, and then another process may write to the same place.

Therefore the first frame of a transaction is written at once, and the last of a batch is on disk too: the `anchor`, which lies
right before what waits. Whoever wrote to the log after a rollback has written over it, under a nonce of its own. So before what
waits is read or written, the anchor's trailer on disk is looked at.

That leaves the transaction that begins just where a rolled back one had ended, because others have committed as many frames as it
had: it would be taken for the same. But it begins with a read transaction, and a SQLite with SQLITE_ENABLE_SETLK_TIMEOUT sends a
file control then (walDisableBlocking), from which on the batch is `doubtful`. Under another SQLite nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable

from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.pages import Buffer, Sealer

__all__ = ["FRAME_HEADER", "FrameBatch", "bytes_ahead"]

FRAME_HEADER = 24  # bytes; SQLite file format 4.1
_BATCH_BYTES = 0x1FFFF  # the unix VFS writes no more at once (seekAndWriteFd)
_READ_AHEAD_BYTES = 1 << 16
_FAR = 1 << 62  # beyond the end of any file


def bytes_ahead(frame_size: int) -> int:
    """Return how many bytes are read at once where frames are read one after the other."""
    return max(1, _READ_AHEAD_BYTES // frame_size) * frame_size


class FrameBatch:
    """The frames of one WAL that wait.

    Attributes:
        places: Where the frames that wait are sealed, in their order in the file; for `Sealer.seal_into`. There are none yet, or
            nothing may wait here, while this is empty.
        first: Offset in the WAL of the first frame that waits, beyond all files if none does.
        count: Number of frames that wait.
        doubtful: A read transaction has begun since the anchor was written: the transaction that it is of may be over.
    """

    def __init__(self, frame_size: int, read: Callable[[int, int], bytes], write: Callable[[Buffer, int], None]) -> None:
        """Let frames of ``frame_size`` bytes wait for the base file's ``write``."""
        self._frame_size = frame_size
        self._read = read
        self._write = write
        self._view = memoryview(b"")
        self._anchor = _FAR  # its offset
        self._trailers: tuple[bytes, ...] = ()  # the anchor's; two while it is being rewritten, which an interrupt may stop
        self.places: list[tuple[memoryview, memoryview]] = []
        self.first = _FAR
        self.count = 0
        self.doubtful = False

    def make_room(self) -> None:
        """Let frames wait, unless they are too large; until then none does."""
        room = _BATCH_BYTES // self._frame_size
        if room > 1 and not self.places:
            self._view = memoryview(bytearray(room * self._frame_size))
            self.places.extend(Sealer.place(self._at(index)) for index in range(room))

    def _at(self, index: int) -> memoryview:
        return self._view[index * self._frame_size : (index + 1) * self._frame_size]

    def drop(self) -> None:
        """Forget what waits."""
        self.first, self.count, self.doubtful = _FAR, 0, False

    def anchor_at(self, frame: int, sealed: Buffer) -> None:
        """Note a frame that was just written, and that the next one may wait behind; nothing waits."""
        self.drop()
        self._anchor, self._trailers = frame, (bytes(sealed[-RESERVED_BYTES:]),)

    def wait_in_place(self, frame: int) -> None:
        """Let frames wait that are on disk already: what the first one is there is their anchor. Nothing else waits."""
        trailer = self._read(RESERVED_BYTES, frame + self._frame_size - RESERVED_BYTES)
        self.first, self.count, self.doubtful = frame, 0, False
        self._anchor, self._trailers = frame, (trailer,)

    def rewrites(self, frame: int, sealed: Buffer) -> None:
        """Note that a frame on disk is about to be written again, in the transaction that it is of."""
        if frame == self._anchor:
            self._trailers = (self._trailers[-1], bytes(sealed[-RESERVED_BYTES:]))

    def index_of(self, frame: int) -> int | None:
        """Return which of the frames that wait lies at an offset; None: none of them."""
        index = (frame - self.first) // self._frame_size
        return index if 0 <= index < self.count else None

    def sealed(self, index: int) -> bytes:
        """Return a frame that waits, sealed."""
        return bytes(self._at(index))

    def is_anchored(self) -> bool:
        """Tell whether the anchor is still on disk: nobody has written to the place of what waits."""
        end = self._anchor + self._frame_size
        return self._read(RESERVED_BYTES, end - RESERVED_BYTES) in self._trailers

    def cut(self, frame: int) -> None:
        """Drop what waits from an offset on, because the next frame goes there: it may wait behind the rest, if there is one.

        After ROLLBACK TO the rest is of this transaction. After ROLLBACK it is of none, and the next frame lies on the anchor or
        before it, or else another process has written over that.
        """
        kept = (frame - self.first) // self._frame_size
        if 0 < kept <= self.count and self.is_anchored():
            self.count, self.doubtful = kept, False
        else:
            self.drop()

    def flush(self) -> bool:
        """Write what waits, if its anchor is there; nothing waits afterwards.

        Raises:
            apsw.FullError: There is no room for it.
        """
        first, count = self.first, self.count
        if not self.is_anchored():
            self.drop()
            return False
        self._write(self._view[: count * self._frame_size], first)  # if that fails it may still be written again
        self.anchor_at(first + (count - 1) * self._frame_size, self._at(count - 1))
        return True
