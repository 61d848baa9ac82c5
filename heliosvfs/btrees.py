"""SQLite's b-trees, read from pages some of which may be missing (SQLite file format 1.3 to 1.8 and 2).

Nothing here trusts a page: a pointer that leads nowhere, a cycle or a length beyond reason ends the walk of that branch, never the
walk. What can't be read is noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from heliosvfs.layout import GAP_START
from heliosvfs.records import MalformedError, Value, decode_record, read_varint

__all__ = ["BTrees", "Cell", "Owner", "SchemaEntry", "owners"]

ReadPage = Callable[[int], "bytes | None"]

_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_INTERIOR = (_INTERIOR_INDEX, _INTERIOR_TABLE)
_ENCODINGS = {1: "utf-8", 2: "utf-16-le", 3: "utf-16-be"}
_SCHEMA_COLUMNS = 5
_POINTER_MAP_ENTRY = 5  # bytes: type(1) parent(4)
_PAGE_1_HEADER = 100


@dataclass(frozen=True)
class Owner:
    """What a page belongs to.

    Attributes:
        kind: "table", "index", "freelist trunk", "freelist leaf", "pointer map", "lock-byte page" or "unknown".
        name: Name of the table or index.
    """

    kind: str
    name: str = ""

    def __str__(self) -> str:
        """Say it for people."""
        return f"{self.kind} {self.name}".rstrip()


@dataclass(frozen=True)
class SchemaEntry:
    """A row of sqlite_schema."""

    type: str
    name: str
    table: str
    root: int
    sql: str | None


@dataclass(frozen=True)
class Cell:
    """A cell that holds a row or an index entry.

    Attributes:
        page: Page that it lies on.
        rowid: Row id in a table, None in an index.
        values: Values of its record; None where the record can't be read.
        overflow: Pages of its overflow chain, as far as it can be followed.
    """

    page: int
    rowid: int | None
    values: list[Value] | None
    overflow: tuple[int, ...] = ()


class BTrees:
    """The b-trees of a database.

    Args:
        read_page: Returns a plain page, or None where it can't be had.
        page_size: Bytes of a page.
        usable_size: Bytes of it that SQLite uses.
        page_count: Pages of the database.
    """

    def __init__(self, read_page: ReadPage, page_size: int, usable_size: int, page_count: int) -> None:
        """Read the header, if page 1 can be read."""
        self.read_page = read_page
        self.page_size = page_size
        self.usable = usable_size
        self.page_count = page_count
        header = read_page(1)
        self.header = header[:_PAGE_1_HEADER] if header else b""
        self.encoding = _ENCODINGS.get(int.from_bytes(self.header[56:60], "big"), "utf-8")
        self.has_pointer_map = bool(int.from_bytes(self.header[52:56], "big"))
        self.lock_page = GAP_START // page_size + 1

    # -- pages -------------------------------------------------------------------------------------------------------

    def _parts(self, number: int) -> tuple[int, bytes, list[int], int]:
        """Return type, page, cell offsets and right-most child (0 in a leaf) of a b-tree page.

        Raises:
            MalformedError: It can't be read, or is no b-tree page.
        """
        page = self.read_page(number) if 0 < number <= self.page_count else None
        if page is None:
            msg = f"page {number} can't be read"
            raise MalformedError(msg)
        at = _PAGE_1_HEADER if number == 1 else 0
        kind = page[at]
        if kind not in (*_INTERIOR, _LEAF_INDEX, _LEAF_TABLE):
            msg = f"page {number} is no b-tree page"
            raise MalformedError(msg)
        count = int.from_bytes(page[at + 3 : at + 5], "big")
        right = int.from_bytes(page[at + 8 : at + 12], "big") if kind in _INTERIOR else 0
        first = at + (12 if kind in _INTERIOR else 8)
        if first + 2 * count > self.usable:
            msg = f"page {number} has more cells than fit"
            raise MalformedError(msg)
        cells = [int.from_bytes(page[first + 2 * i : first + 2 * i + 2], "big") for i in range(count)]
        return kind, page, cells, right

    def pages(self, root: int) -> Iterator[tuple[int, int | None]]:
        """Yield each page of a tree, depth first, with its type; None for one that can't be read."""
        seen: set[int] = set()
        waiting = [root]
        while waiting:
            number = waiting.pop()
            if number in seen or not 0 < number <= self.page_count:
                continue
            seen.add(number)
            try:
                kind, page, cells, right = self._parts(number)
            except MalformedError:
                yield number, None
                continue
            yield number, kind
            if kind in _INTERIOR:
                children = [int.from_bytes(page[cell : cell + 4], "big") for cell in cells]
                waiting.extend(reversed([*children, right]))

    def cells(self, number: int) -> Iterator[Cell]:
        """Yield the rows or index entries of one page; an interior page of a table has none.

        Raises:
            MalformedError: The page can't be read.
        """
        kind, page, offsets, _ = self._parts(number)
        if kind == _INTERIOR_TABLE:
            return
        for offset in offsets:
            try:
                yield self._cell(number, kind, page, offset)
            except MalformedError:
                yield Cell(number, None, None)

    def _cell(self, number: int, kind: int, page: bytes, at: int) -> Cell:
        if kind == _INTERIOR_INDEX:
            at += 4
        size, at = read_varint(page, at)
        rowid: int | None = None
        if kind == _LEAF_TABLE:
            rowid, at = read_varint(page, at)
            rowid -= (rowid >> 63) << 64
        if size > self.page_count * self.usable:
            msg = "a record is larger than the database"
            raise MalformedError(msg)
        local = self._local(size, table=kind == _LEAF_TABLE)
        payload = page[at : at + local]
        chain: tuple[int, ...] = ()
        if local < size:
            rest, chain = self._overflow(int.from_bytes(page[at + local : at + local + 4], "big"), size - local)
            if rest is None:
                return Cell(number, rowid, None, chain)
            payload += rest
        try:
            return Cell(number, rowid, decode_record(payload, self.encoding), chain)
        except MalformedError:
            return Cell(number, rowid, None, chain)

    def _local(self, size: int, *, table: bool) -> int:
        """Return how many bytes of a record lie on its own page (SQLite file format 1.6)."""
        usable = self.usable
        most = usable - 35 if table else (usable - 12) * 64 // 255 - 23
        if size <= most:
            return size
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        return local if local <= most else least

    def _overflow(self, number: int, size: int) -> tuple[bytes | None, tuple[int, ...]]:
        """Return the rest of a record, None where the chain is broken, and the pages of the chain."""
        content: list[bytes] = []
        chain: list[int] = []
        while size > 0:
            if not 0 < number <= self.page_count or number in chain:
                return None, tuple(chain)
            chain.append(number)
            page = self.read_page(number)
            if page is None:
                return None, tuple(chain)
            content.append(page[4 : 4 + min(size, self.usable - 4)])
            size -= self.usable - 4
            number = int.from_bytes(page[:4], "big")
        return b"".join(content), tuple(chain)

    # -- what the pages hold -----------------------------------------------------------------------------------------

    def rows(self, root: int) -> Iterator[Cell]:
        """Yield the cells of a tree in its order, as far as its pages can be read."""
        for number, kind in self.pages(root):
            if kind is not None:
                yield from self.cells(number)

    def schema(self) -> list[SchemaEntry]:
        """Return the rows of sqlite_schema that can be read, in their order."""
        found = []
        for cell in self.rows(1):
            if cell.values is None or len(cell.values) < _SCHEMA_COLUMNS:
                continue
            kind, name, table, root, sql = cell.values[:_SCHEMA_COLUMNS]
            if isinstance(kind, str) and isinstance(name, str) and isinstance(table, str):
                found.append(
                    SchemaEntry(kind, name, table, root if isinstance(root, int) else 0, sql if isinstance(sql, str) else None)
                )
        return found

    def freelist(self) -> tuple[list[int], list[int]]:
        """Return the trunk and the leaf pages of the freelist, as far as it can be followed."""
        trunks: list[int] = []
        leaves: list[int] = []
        number = int.from_bytes(self.header[32:36], "big")
        while 0 < number <= self.page_count and number not in trunks:
            trunks.append(number)
            page = self.read_page(number)
            if page is None:
                break
            count = min(int.from_bytes(page[4:8], "big"), self.usable // 4 - 2)
            leaves += [int.from_bytes(page[8 + 4 * i : 12 + 4 * i], "big") for i in range(count)]
            number = int.from_bytes(page[:4], "big")
        return trunks, leaves

    def owners(self) -> dict[int, Owner]:
        """Return what each page belongs to; pages that nothing readable leads to are missing unless the pointer map tells."""
        found: dict[int, Owner] = {}
        if self.lock_page <= self.page_count:
            found[self.lock_page] = Owner("lock-byte page")
        trunks, leaves = self.freelist()
        found.update(dict.fromkeys(trunks, Owner("freelist trunk")))
        found.update({number: Owner("freelist leaf") for number in leaves if number not in found})
        if self.has_pointer_map:
            found.update(dict.fromkeys(self._pointer_maps(), Owner("pointer map")))
        roots = {1: Owner("table", "sqlite_schema")}
        roots.update({entry.root: Owner(entry.type, entry.name) for entry in self.schema() if entry.root > 0})
        for root, owner in roots.items():
            for number, kind in self.pages(root):
                found.setdefault(number, owner)
                if kind is not None:
                    for cell in self.cells(number):
                        for page in cell.overflow:
                            found.setdefault(page, owner)
        if self.has_pointer_map:
            self._adopt_orphans(found)
        return found

    def _pointer_maps(self) -> list[int]:
        """Return the numbers of the pointer-map pages (SQLite file format 1.8)."""
        step = self.usable // _POINTER_MAP_ENTRY + 1
        numbers = [number + (number == self.lock_page) for number in range(2, self.page_count + 1, step)]
        return [number for number in numbers if number <= self.page_count]

    def _adopt_orphans(self, found: dict[int, Owner]) -> None:
        """Give a page whose parent can't be read that parent's owner, which the pointer map names."""
        parents: dict[int, int] = {}
        per_map = self.usable // _POINTER_MAP_ENTRY
        for number in self._pointer_maps():
            page = self.read_page(number)
            if page is not None:
                for i in range(min(per_map, self.page_count - number)):
                    at = i * _POINTER_MAP_ENTRY
                    parents[number + 1 + i] = int.from_bytes(page[at + 1 : at + _POINTER_MAP_ENTRY], "big")
        for number in range(1, self.page_count + 1):
            path: list[int] = []
            at = number
            while at and at not in found and at not in path:
                path.append(at)
                at = parents.get(at, 0)
            if at in found:
                found.update(dict.fromkeys(path, found[at]))

    def orphan_leaves(self, owned: dict[int, Owner]) -> list[int]:
        """Return the table leaves that nothing readable leads to."""
        found = []
        for number in range(1, self.page_count + 1):
            if number not in owned:
                try:
                    if self._parts(number)[0] == _LEAF_TABLE:
                        found.append(number)
                except MalformedError:
                    continue
        return found


def owners(read_page: ReadPage, page_size: int, usable_size: int, page_count: int) -> dict[int, Owner]:
    """Return what each page of a database belongs to; see `BTrees.owners`."""
    return BTrees(read_page, page_size, usable_size, page_count).owners()
