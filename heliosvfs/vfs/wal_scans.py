"""Look at a WAL as walIndexRecover would, and at what that would pass over in silence.

SQLite takes the first frame that is not as it should be for the end of the log. What lies there is normal if it is of an earlier
log, or of a transaction that did not end. It is not if more of this log lies behind it: a frame opens only at its own place and
under the salts of the log that it was written to.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from heliosvfs.errors import TamperedError
from heliosvfs.vfs.frame_batches import FRAME_HEADER
from heliosvfs.vfs.wal import WalFile
from heliosvfs.vfs.wal_header import WAL_HEADER, wal_checksum

__all__ = ["WalScan", "scan_wal"]

_ATTEMPTS = 3  # another process may be writing frames, or have begun a new log, at this moment


@dataclass
class WalScan:
    """What a WAL holds.

    Attributes:
        frames: Number of frames that recovery would accept, up to the last commit.
        leftover: Number of whole frames behind them: torn, rolled back, or of an earlier log.
        page_count: Pages of the database after the last commit, 0 if there is none.
        latest: Offset of the newest committed frame of each page.
        unused: Page and offset of those left over that are of this log.
        beyond: Offset of the newest frame of each page, where frames behind damage are counted up to the last that commits.
        pages_beyond: Pages of the database after that one, 0 if there is none behind damage.
        problem: Why it is not certain that this is all that was committed, or "".
    """

    frames: int = 0
    leftover: int = 0
    page_count: int = 0
    latest: dict[int, int] = field(default_factory=dict)
    unused: list[tuple[int, int]] = field(default_factory=list)
    beyond: dict[int, int] = field(default_factory=dict)
    pages_beyond: int = 0
    problem: str = ""

    def doubt(self, why: str) -> None:
        """Note why what is left over may have been committed."""
        self.problem = (
            f"{self.leftover} frames of the WAL do not count for SQLite, and what they may have committed would be lost: {why}"
        )


def scan_wal(wal: WalFile, page_size: int) -> WalScan:
    """Scan a WAL.

    Raises:
        FormatError: It is a WAL of stock SQLite.
        KeyUnavailableError: The database is locked.
    """
    for _ in range(_ATTEMPTS):
        scan = _scan(wal, page_size)
        if not scan.problem:
            break
    return scan


def _scan(wal: WalFile, page_size: int) -> WalScan:
    scan, frame_size = WalScan(), FRAME_HEADER + page_size
    header = bytes(wal.xRead(WAL_HEADER, 0))
    if len(header) < WAL_HEADER:
        return scan
    order = ">" if header[3] & 1 else "<"
    sums = wal_checksum(header[:24], order, 0, 0)
    whole = (wal.xFileSize() - WAL_HEADER) // frame_size
    if struct.pack(">II", *sums) != header[24:]:
        scan.leftover = whole
        if whole:
            scan.doubt("its header is damaged")
            _count_beyond(scan, list(_behind(wal, frame_size, range(whole))))
        return scan
    pending: dict[int, int] = {}
    refused = ""
    for number in range(whole):
        offset = WAL_HEADER + number * frame_size
        try:
            frame = bytes(wal.xRead(frame_size, offset))
        except TamperedError as error:  # it names an epoch that there may be: SQLite would not go on
            frame, refused = b"", str(error)
        sums = wal_checksum(frame[:8] + frame[FRAME_HEADER:], order, *sums)
        if frame[8:16] != header[16:24] or struct.pack(">II", *sums) != frame[16:24]:
            break
        page, commit = struct.unpack(">II", frame[:8])
        pending[page] = offset
        if commit:
            scan.latest.update(pending)
            pending.clear()
            scan.frames, scan.page_count = number + 1, commit
    scan.leftover = whole - scan.frames
    _look_behind(scan, list(_behind(wal, frame_size, range(scan.frames, whole))))
    if refused and not scan.problem:
        scan.doubt(refused)
    return scan


def _behind(wal: WalFile, frame_size: int, numbers: range) -> Iterator[tuple[int, int, int]]:
    """Yield of each frame its offset, its page and, if it commits, the pages of the database; zeros if it does not open."""
    for number in numbers:
        offset = WAL_HEADER + number * frame_size
        try:
            header = bytes(wal.xRead(frame_size, offset))[:8].ljust(8, b"\0")
        except TamperedError:
            header = bytes(8)
        yield offset, *struct.unpack(">II", header)


def _look_behind(scan: WalScan, behind: list[tuple[int, int, int]]) -> None:
    """Find out whether what is left over is more than a transaction that did not end, and older frames behind it.

    There may be a commit among frames that all open: it is written before the checksums of those in front of it that were
    written more than once (walRewriteChecksums), and counts only after that.
    """
    scan.unused = [(page, offset) for offset, page, _ in behind if page]
    bad = next((i for i, (_, page, _) in enumerate(behind) if not page), len(behind))
    if any(page for _, page, _ in behind[bad:]):
        scan.doubt(
            f"frame {scan.frames + bad + 1} at offset {behind[bad][0]} is torn or damaged, and frames of the same log follow"
        )
        _count_beyond(scan, behind)


def _count_beyond(scan: WalScan, behind: list[tuple[int, int, int]]) -> None:
    """Take the frames that open, whatever does not, up to the last one that commits."""
    pending: dict[int, int] = {}
    for offset, page, commit in behind:
        if page:
            pending[page] = offset
        if commit:
            scan.beyond = {**(scan.beyond or scan.latest), **pending}
            scan.pages_beyond = commit
            pending.clear()
