"""The database header, b-tree pages and their cells (SQLite file format, sections 1.3 and 1.6).

Where the pages come from is a `PageSource`. A page that it can't supply is None, and a pointer may lead anywhere: nothing here
follows one further than the number of pages allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from heliosvfs.btrees.records import ENCODINGS, MalformedError, read_varint

__all__ = ["INDEX_KINDS", "TABLE_KINDS", "Cell", "Header", "Node", "PageSource", "Pages", "lock_page", "read_header", "read_node"]

HEADER_BYTES = 100
MAGIC = b"SQLite format 3\0"
_PENDING_BYTE = 0x40000000

INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE = 2, 5, 10, 13  # first byte of a b-tree page
TABLE_KINDS = frozenset({INTERIOR_TABLE, LEAF_TABLE})
INDEX_KINDS = frozenset({INTERIOR_INDEX, LEAF_INDEX})
_INTERIOR_KINDS = frozenset({INTERIOR_INDEX, INTERIOR_TABLE})

_SMALLEST_CELL = 4  # SQLite pads shorter ones, so that a freed cell can become a freeblock
_MAX_PAYLOAD = 0x7FFFFFFF  # SQLITE_LIMIT_LENGTH can't be raised further


class PageSource(Protocol):
    """A database as its pages."""

    @property
    def page_size(self) -> int:
        """Bytes of a page."""

    @property
    def usable_size(self) -> int:
        """Bytes of a page less those reserved at its end."""

    @property
    def page_count(self) -> int:
        """Number of the last page."""

    def read(self, number: int, /) -> bytes | None:
        """Return a whole page (1-based), or None where it does not authenticate or is missing."""


@dataclass(frozen=True)
class Pages:
    """A `PageSource` made of its parts.

    Attributes:
        read: Returns a whole page, or None where it does not authenticate or is missing.
        page_size: Bytes of a page.
        usable_size: Bytes of a page less those reserved at its end.
        page_count: Number of the last page.
    """

    read: Callable[[int], bytes | None]
    page_size: int
    usable_size: int
    page_count: int


@dataclass(frozen=True)
class Header:
    """What of the database header matters here (SQLite file format 1.3).

    Attributes:
        page_count: Pages that the header speaks of, 0 where it is not to be relied on.
        first_trunk: First trunk page of the freelist, 0 if there is none.
        free_pages: Pages on the freelist.
        auto_vacuum: "none", "full" or "incremental".
        encoding: A Python codec, as in `ENCODINGS`.
        user_version: For PRAGMA user_version.
        application_id: For PRAGMA application_id.
    """

    page_count: int
    first_trunk: int
    free_pages: int
    auto_vacuum: str
    encoding: str
    user_version: int
    application_id: int


def read_header(source: PageSource) -> Header | None:
    """Return the database header, or None where page 1 can't be read or does not begin with one."""
    page = source.read(1)
    if page is None or len(page) < HEADER_BYTES or not page.startswith(MAGIC):
        return None

    def word(offset: int) -> int:
        return int.from_bytes(page[offset : offset + 4], "big")

    def signed(offset: int) -> int:
        return int.from_bytes(page[offset : offset + 4], "big", signed=True)

    return Header(
        page_count=word(28) if word(24) == word(92) else 0,
        first_trunk=word(32),
        free_pages=word(36),
        auto_vacuum="none" if not word(52) else "incremental" if word(64) else "full",
        encoding=ENCODINGS.get(word(56), ENCODINGS[1]),
        user_version=signed(60),
        application_id=signed(68),
    )


def lock_page(source: PageSource) -> int:
    """Return the number of the page that SQLite never uses because its locks lie there; it may be beyond the last page."""
    return _PENDING_BYTE // source.page_size + 1


class Cell(NamedTuple):
    """One cell of a b-tree page.

    Attributes:
        child: Page of the left child; 0 on a leaf.
        key: Rowid, in tables only.
        size: Bytes of the whole payload; 0 on an interior page of a table.
        local: The payload's bytes on this page.
        overflow: First overflow page, 0 if all of the payload is here.
    """

    child: int
    key: int | None
    size: int
    local: bytes
    overflow: int


@dataclass(frozen=True)
class Node:
    """A page of a b-tree.

    Attributes:
        number: Its page number.
        kind: The first byte of its header: 2, 5, 10 or 13.
        data: The page without its reserved bytes.
        pointers: Offsets of its cells, in key order.
        right: Right-most child; 0 on a leaf.
    """

    number: int
    kind: int
    data: bytes
    pointers: tuple[int, ...]
    right: int

    @property
    def is_table(self) -> bool:
        """Whether its keys are rowids."""
        return self.kind in TABLE_KINDS

    @property
    def is_leaf(self) -> bool:
        """Whether it has no children."""
        return self.kind not in _INTERIOR_KINDS

    def cells(self) -> Iterator[Cell | MalformedError]:
        """Yield its cells in key order, and an error in the place of each that is malformed."""
        header = (HEADER_BYTES if self.number == 1 else 0) + (8 if self.is_leaf else 12)
        room = range(header + 2 * len(self.pointers), len(self.data) - _SMALLEST_CELL + 1)
        for pointer in self.pointers:
            try:
                yield self._cell(pointer, room)
            except MalformedError as error:
                yield error

    def _cell(self, pointer: int, room: range) -> Cell:
        if pointer not in room:
            msg = f"page {self.number} has a cell at offset {pointer}"
            raise MalformedError(msg)
        child, size, key = 0, 0, None
        if self.kind in _INTERIOR_KINDS:
            child = int.from_bytes(self.data[pointer : pointer + 4], "big")
            pointer += 4
        if self.kind != INTERIOR_TABLE:
            size, pointer = read_varint(self.data, pointer)
        if self.kind in TABLE_KINDS:
            unsigned, pointer = read_varint(self.data, pointer)
            key = unsigned - (1 << 64) if unsigned >> 63 else unsigned
        if size > _MAX_PAYLOAD:
            msg = f"page {self.number} has a cell that claims {size} bytes"
            raise MalformedError(msg)
        here = self._local_size(size)
        end = pointer + here + (4 if here < size else 0)
        if end > len(self.data):
            msg = f"page {self.number} has a cell that reaches beyond the page"
            raise MalformedError(msg)
        local = self.data[pointer : pointer + here]
        return Cell(child, key, size, local, int.from_bytes(self.data[pointer + here : end], "big"))

    def _local_size(self, size: int) -> int:
        """Return how many of a payload's bytes lie in the cell itself (SQLite file format 1.6, "U", "X", "M", "K")."""
        usable = len(self.data)
        most = usable - 35 if self.kind == LEAF_TABLE else (usable - 12) * 64 // 255 - 23
        if size <= most:
            return size
        least = (usable - 12) * 32 // 255 - 23
        fitting = least + (size - least) % (usable - 4)
        return fitting if fitting <= most else least


def read_node(source: PageSource, number: int) -> Node | None:
    """Return a page of a b-tree, or None where the page can't be read.

    Raises:
        MalformedError: The page is no b-tree page.
    """
    page = source.read(number) if 0 < number <= source.page_count else None
    if page is None:
        return None
    start = HEADER_BYTES if number == 1 else 0
    data = page[: source.usable_size]
    if len(data) < start + 12 or data[start] not in TABLE_KINDS | INDEX_KINDS:
        msg = f"page {number} is no b-tree page"
        raise MalformedError(msg)
    kind = data[start]
    first = start + (12 if kind in _INTERIOR_KINDS else 8)
    count = int.from_bytes(data[start + 3 : start + 5], "big")
    if first + count * (2 + _SMALLEST_CELL) > len(data):
        msg = f"page {number} claims {count} cells"
        raise MalformedError(msg)
    pointers = tuple(int.from_bytes(data[at : at + 2], "big") for at in range(first, first + 2 * count, 2))
    right = int.from_bytes(data[start + 8 : start + 12], "big") if kind in _INTERIOR_KINDS else 0
    return Node(number, kind, data, pointers, right)
