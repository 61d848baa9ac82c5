"""Walk b-trees of which pages are missing, and read the rows that are left (SQLite file format, section 1.6).

A page belongs to one tree and to one place in it. Walks share a dictionary of claims, from page to the root of its tree: a page
that is claimed already is not entered again, so cycles end, and no page is read for two rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from heliosvfs.btrees.nodes import INTERIOR_TABLE, Cell, Node, PageSource, read_node
from heliosvfs.btrees.records import MalformedError, Value, decode_record

__all__ = ["Claims", "DamagedRow", "Place", "Row", "Tree", "rows_of"]

Claims = dict[int, int]  # page -> root page of the tree that it belongs to

_NEXT_BYTES = 4  # number of the next page, at the beginning of an overflow page


class Row(NamedTuple):
    """A row, whole.

    Attributes:
        page: The page that holds its cell.
        rowid: Its rowid; None in an index or a table WITHOUT ROWID.
        values: Its fields in stored order; that of an INTEGER PRIMARY KEY is None, its value is the rowid.
    """

    page: int
    rowid: int | None
    values: tuple[Value, ...]


class DamagedRow(NamedTuple):
    """A row that was found but can't be read whole.

    Attributes:
        page: The page that holds its cell.
        rowid: Its rowid, None where that is not known.
        why: What is wrong with it.
    """

    page: int
    rowid: int | None
    why: str


class Place(NamedTuple):
    """A page's place in its tree.

    Attributes:
        page: Its number, as the page above it says; it may lie beyond the end of a truncated file.
        depth: Its distance from the root.
        low: Smallest rowid that can be in it or below it, None where there is no limit.
        high: Largest rowid that can be in it or below it, None where there is no limit.
        why: What is wrong with the page, "" if nothing is.
    """

    page: int
    depth: int
    low: int | None = None
    high: int | None = None
    why: str = ""


@dataclass
class Tree:
    """One b-tree; what is missing is known when it has been walked to the end.

    Attributes:
        source: The database.
        root: Its root page.
        claims: Pages that are taken; the walk adds its own, those that it could not read included.
        is_table: Whether its keys are rowids; None as long as no page of it was read.
        lost: Pages that could not be read.
        damaged: Rows that could not be read whole.
        leaf_depth: Distance of its leaves from the root, which is the same for all; None as long as no leaf was read.
        in_order: Whether rowids ascend from leaf to leaf, as far as `claim` has walked.
    """

    source: PageSource
    root: int
    claims: Claims
    is_table: bool | None = None
    lost: list[Place] = field(default_factory=list)
    damaged: list[DamagedRow] = field(default_factory=list)
    leaf_depth: int | None = None
    in_order: bool = True

    @property
    def is_complete(self) -> bool:
        """Whether the walk missed nothing."""
        return not self.lost and not self.damaged

    def gaps(self) -> list[Place]:
        """Return those of the lost pages that may have had pages below them."""
        return [page for page in self.lost if self.leaf_depth is None or page.depth < self.leaf_depth]

    def nodes(self) -> Iterator[Node]:
        """Yield the pages that can be read, in key order and parents first; to be called once."""
        stack = [Place(self.root, 0)]
        while stack:
            place = stack.pop()
            try:
                node = self._enter(place.page)
            except MalformedError as error:
                self.lost.append(place._replace(why=str(error)))
                continue
            if node.is_leaf:
                self.leaf_depth = place.depth
            else:
                stack.extend(reversed(self._children(node, place)))
            yield node

    def rows(self, encoding: str) -> Iterator[Row]:
        """Yield the rows that can be read whole, in key order (in an index or WITHOUT ROWID: roughly); to be called once.

        Args:
            encoding: The database's text encoding.
        """
        for node in self.nodes():
            yield from rows_of(self.source, node, encoding, self.claims, self.root, self.damaged)

    def payloads(self) -> Iterator[bytes]:
        """Yield the records of the rows that can be read whole, as they are stored; to be called once."""
        for node in self.nodes():
            for _, payload in _payloads_of(self.source, node, self.claims, self.root, self.damaged):
                yield payload

    def claim(self) -> int:
        """Walk the tree for its pages alone, overflow pages included; return the number of its entries, to be called once."""
        entries, last = 0, None
        for node in self.nodes():
            entries += len(node.pointers) if node.kind != INTERIOR_TABLE else 0
            for cell in node.cells():
                if isinstance(cell, MalformedError):
                    continue
                if node.is_leaf and cell.key is not None:
                    self.in_order, last = self.in_order and (last is None or last < cell.key), cell.key
                if len(cell.local) < cell.size:
                    try:
                        for _ in _overflow(self.source, cell, self.claims, self.root):
                            pass
                    except MalformedError as error:
                        self.damaged.append(DamagedRow(node.number, cell.key, str(error)))
        return entries

    def _enter(self, number: int) -> Node:
        if number in self.claims:
            msg = f"page {number} is used twice"
            raise MalformedError(msg)
        if 0 < number <= self.source.page_count:
            self.claims[number] = self.root
        node = read_node(self.source, number)
        if node is None:
            msg = f"page {number} can't be read" if number else "a pointer leads to page 0"
            raise MalformedError(msg)
        if self.is_table is None:
            self.is_table = node.is_table
        elif self.is_table != node.is_table:
            msg = f"page {number} is not of the kind of its tree"
            raise MalformedError(msg)
        return node

    def _children(self, node: Node, place: Place) -> list[Place]:
        """Return where the children of an interior page belong; a cell that is malformed is a lost child."""
        children: list[Place] = []
        low, depth = place.low, place.depth + 1
        for cell in node.cells():
            if isinstance(cell, MalformedError):
                self.lost.append(Place(node.number, depth, low, place.high, str(cell)))
            else:
                children.append(Place(cell.child, depth, low, cell.key))
                low = None if cell.key is None else cell.key + 1
        children.append(Place(node.right, depth, low, place.high))
        return children


def rows_of(  # noqa: PLR0913 - what a page needs to be read
    source: PageSource, node: Node, encoding: str, claims: Claims, root: int, damaged: list[DamagedRow]
) -> Iterator[Row]:
    """Yield the rows of one page.

    Args:
        source: The database.
        node: The page.
        encoding: The database's text encoding.
        claims: Pages that are taken; overflow pages are added.
        root: Root page of the tree to claim overflow pages for.
        damaged: Gets the rows that can't be read whole.
    """
    for key, payload in _payloads_of(source, node, claims, root, damaged):
        try:
            yield Row(node.number, key, decode_record(payload, encoding))
        except MalformedError as error:
            damaged.append(DamagedRow(node.number, key, str(error)))


def _payloads_of(
    source: PageSource, node: Node, claims: Claims, root: int, damaged: list[DamagedRow]
) -> Iterator[tuple[int | None, bytes]]:
    """Yield rowid and record of each row of a page; see `rows_of`."""
    if node.kind == INTERIOR_TABLE:
        return
    for cell in node.cells():
        if isinstance(cell, MalformedError):
            damaged.append(DamagedRow(node.number, None, str(cell)))
            continue
        try:
            yield (
                cell.key,
                b"".join([cell.local, *_overflow(source, cell, claims, root)]) if len(cell.local) < cell.size else cell.local,
            )
        except MalformedError as error:
            damaged.append(DamagedRow(node.number, cell.key, str(error)))


def _overflow(source: PageSource, cell: Cell, claims: Claims, root: int) -> Iterator[bytes]:
    """Yield the parts of a payload that lie on overflow pages, and claim these pages.

    Raises:
        MalformedError: A page can't be read or is used twice, or the chain is shorter or longer than the payload.
    """
    left, number, capacity = cell.size - len(cell.local), cell.overflow, source.usable_size - _NEXT_BYTES
    if left > source.page_count * capacity:
        msg = f"a row claims {cell.size} bytes, more than the database has"
        raise MalformedError(msg)
    while left > 0:
        if not 0 < number <= source.page_count or number in claims:
            msg = f"overflow page {number} is {'used twice' if number in claims else 'not there'}"
            raise MalformedError(msg)
        claims[number] = root
        page = source.read(number)
        if page is None or len(page) < source.usable_size:
            msg = f"overflow page {number} can't be read"
            raise MalformedError(msg)
        yield page[_NEXT_BYTES : _NEXT_BYTES + min(left, capacity)]
        left -= capacity
        number = int.from_bytes(page[:_NEXT_BYTES], "big")
    if number:
        msg = f"a chain of overflow pages goes on to page {number} behind its row's end"
        raise MalformedError(msg)
