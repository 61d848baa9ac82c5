"""Where the pages of a database lie in its file (FORMAT.md, "Page positions").

The file begins with two copies of the superblock and the pages follow, but for a gap around SQLite's lock bytes: SQLite locks
bytes 0x40000000 to 0x400001FF of the file, and on Windows bytes that another process has locked can't be read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["GAP_END", "GAP_SIZE", "GAP_START", "RESERVED_BYTES", "Layout", "is_page_size"]

GAP_START = 0x40000000  # SQLite's PENDING_BYTE (os.h)
GAP_SIZE = 0x10000  # the largest page, so that a page never straddles the lock bytes
GAP_END = GAP_START + GAP_SIZE

RESERVED_BYTES = 32  # bytes at the end of each page that SQLite leaves alone; the most that a 512-byte page allows


def is_page_size(size: int) -> bool:
    """Tell whether SQLite accepts a page size: a power of two from 512 to 65536 bytes (SQLite file format, 1.3.2)."""
    return 512 <= size <= 65536 and size & (size - 1) == 0  # noqa: PLR2004 - SQLite's own limits


@dataclass(frozen=True)
class Layout:
    """Positions of pages in a file with pages of ``page_size`` bytes.

    Attributes:
        page_size: Bytes of a page.
        start: Offset of page 1, S in FORMAT.md: 32 KiB, or the page size where that is more.
        first_after_gap: Number of the first page that lies behind the lock-byte gap.
        lock_page: Number of the page that SQLite never uses (its own lock-byte page).
    """

    page_size: int
    start: int = field(init=False)
    first_after_gap: int = field(init=False)
    lock_page: int = field(init=False)

    def __post_init__(self) -> None:
        """Derive the positions from the page size."""
        start = max(32 * 1024, self.page_size)
        object.__setattr__(self, "start", start)
        # start and GAP_START are multiples of the page size, so a page ends exactly where the gap begins
        object.__setattr__(self, "first_after_gap", (GAP_START - start) // self.page_size + 1)
        object.__setattr__(self, "lock_page", GAP_START // self.page_size + 1)

    def offset(self, page: int) -> int:
        """Return the byte offset in the file of page ``page`` (1-based)."""
        offset = self.start + (page - 1) * self.page_size
        return offset if page < self.first_after_gap else offset + GAP_SIZE

    def file_size(self, logical: int) -> int:
        """Return the size in bytes of the file whose pages take ``logical`` bytes as SQLite counts them."""
        size = self.start + logical
        return size if size <= GAP_START else size + GAP_SIZE

    def logical_size(self, file_size: int) -> int:
        """Return the bytes of pages, as SQLite counts them, in a file of ``file_size`` bytes."""
        if file_size <= GAP_START:
            return max(0, file_size - self.start)
        return max(GAP_START, file_size - GAP_SIZE) - self.start
