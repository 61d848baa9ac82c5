"""Pages that hold no rows: freelist, pointer map and lock-byte page (SQLite file format, sections 1.5, 1.8 and 1.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from heliosvfs.btrees.nodes import Pages, PageSource, lock_page, read_header

__all__ = ["Freelist", "MapEntry", "PointerMap", "claims_without_rows", "freelist", "read_freelist"]

ROOT, FREE, OVERFLOW_FIRST, OVERFLOW_NEXT, CHILD = 1, 2, 3, 4, 5  # types of pointer-map entries
MAP, LOCK = -1, -2  # in the place of a root page, for pages that are in no tree
_ENTRY_BYTES = 5


@dataclass(frozen=True)
class Freelist:
    """The freelist, as far as it can be read.

    Attributes:
        trunks: Its trunk pages in order; the last may be one that can't be read.
        leaves: The leaf pages that they list.
        complete: Whether these are all the free pages there are.
        notes: What stopped the reading, or what was skipped.
    """

    trunks: tuple[int, ...]
    leaves: tuple[int, ...]
    complete: bool
    notes: tuple[str, ...]


def freelist(read_page: Callable[[int], bytes | None], page_size: int, usable_size: int, page_count: int) -> Freelist:
    """Read the freelist, up to the first trunk page that can't be read or was met before.

    Args:
        read_page: Returns a whole page (1-based), or None where it does not authenticate or is missing.
        page_size: Bytes of a page.
        usable_size: Bytes of a page less those reserved at its end.
        page_count: Number of the last page.
    """
    return read_freelist(Pages(read_page, page_size, usable_size, page_count))


def read_freelist(source: PageSource) -> Freelist:
    """Do what `freelist` does."""
    header = read_header(source)
    if header is None:
        return Freelist((), (), complete=False, notes=("page 1, where the freelist begins, can't be read",))
    trunks: dict[int, None] = {}
    leaves: dict[int, None] = {}
    notes: list[str] = []
    trunk = header.first_trunk
    while trunk:
        if trunk in trunks:
            notes.append(f"the freelist comes back to trunk page {trunk}")
            break
        page = None
        if 1 < trunk <= source.page_count:
            trunks[trunk] = None
            page = source.read(trunk)
        if page is None:
            notes.append(f"trunk page {trunk} of the freelist can't be read: what it leads to is not known to be free")
            break
        count = int.from_bytes(page[4:8], "big")
        if count > source.usable_size // 4 - 2:
            notes.append(f"trunk page {trunk} of the freelist claims {count} leaf pages")
            break
        listed = [int.from_bytes(page[8 + 4 * i : 12 + 4 * i], "big") for i in range(count)]
        wrong = [number for number in listed if not 1 < number <= source.page_count or number in leaves]
        if wrong:
            notes.append(f"trunk page {trunk} of the freelist lists {len(wrong)} pages that can't be free")
        leaves.update((number, None) for number in listed if 1 < number <= source.page_count)
        trunk = int.from_bytes(page[:4], "big")
    for number in trunks:
        leaves.pop(number, None)
    if not notes and len(trunks) + len(leaves) != header.free_pages:
        notes.append(f"the header speaks of {header.free_pages} free pages, and the freelist has {len(trunks) + len(leaves)}")
    return Freelist(tuple(trunks), tuple(leaves), not notes, tuple(notes))


def claims_without_rows(source: PageSource) -> dict[int, int]:
    """Return the pages that no tree may claim, the lock-byte page and the pointer map's, each with `LOCK` or `MAP`."""
    pointers = PointerMap.of(source)
    claims = dict.fromkeys(pointers.pages(), MAP) if pointers is not None else {}
    if lock_page(source) <= source.page_count:
        claims[lock_page(source)] = LOCK
    return claims


class MapEntry(NamedTuple):
    """What the pointer map says of a page.

    Attributes:
        kind: `ROOT`, `FREE`, `OVERFLOW_FIRST`, `OVERFLOW_NEXT` or `CHILD`.
        parent: The page that points to it; 0 for roots and free pages.
    """

    kind: int
    parent: int


class PointerMap:
    """The pointer map of a database with auto_vacuum: for each page, which page points to it."""

    def __init__(self, source: PageSource) -> None:
        """Read no page yet; each of the map's is read once."""
        self._source = source
        self._lock_page = lock_page(source)
        self._pages: dict[int, bytes | None] = {}

    @classmethod
    def of(cls, source: PageSource) -> PointerMap | None:
        """Return a database's pointer map, None where it has none or page 1, which would say so, can't be read."""
        header = read_header(source)
        return None if header is None or header.auto_vacuum == "none" else cls(source)

    def page_of(self, number: int) -> int:
        """Return the page of the map that has the entry of page ``number``; a page of the map is its own."""
        group = self._source.usable_size // _ENTRY_BYTES + 1
        page = (number - 2) // group * group + 2
        return page + 1 if page == self._lock_page else page

    def pages(self) -> Iterator[int]:
        """Yield the numbers of the map's pages."""
        for number in range(2, self._source.page_count + 1, self._source.usable_size // _ENTRY_BYTES + 1):
            page = self.page_of(number)
            if page <= self._source.page_count:
                yield page

    def entry(self, number: int) -> MapEntry | None:
        """Return what the map says of a page, or None where its page can't be read or makes no sense."""
        if not 1 < number <= self._source.page_count:
            return None
        page = self.page_of(number)
        if page not in self._pages:
            self._pages[page] = self._source.read(page)
        data = self._pages[page]
        at = _ENTRY_BYTES * (number - page - 1)
        if data is None or not 0 <= at <= self._source.usable_size - _ENTRY_BYTES:
            return None
        entry = MapEntry(data[at], int.from_bytes(data[at + 1 : at + _ENTRY_BYTES], "big"))
        return entry if ROOT <= entry.kind <= CHILD else None

    def tree_of(self, number: int, claims: Mapping[int, int]) -> int:
        """Return the root of the tree that a page belongs to, climbing until a page that is claimed; 0 where there is none.

        Args:
            number: The page.
            claims: Root page of the tree of each page that is known to belong to one; negative for pages that hold no rows.
        """
        climbed: set[int] = set()
        while number not in claims:
            entry = self.entry(number)
            if entry is None or entry.kind not in (OVERFLOW_FIRST, OVERFLOW_NEXT, CHILD) or number in climbed:
                return 0
            climbed.add(number)
            number = entry.parent
        return max(0, claims[number])
