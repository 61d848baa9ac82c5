"""Which table or index every page belongs to, as far as the pages that can be read say it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heliosvfs.btrees.bookkeeping import FREE, LOCK, MAP, PointerMap, claims_without_rows, read_freelist
from heliosvfs.btrees.nodes import Pages
from heliosvfs.btrees.schemas import SCHEMA_NAME, salvage_schema
from heliosvfs.btrees.trees import Claims, Tree

__all__ = ["Owner", "owners"]


@dataclass(frozen=True)
class Owner:
    """What a page belongs to.

    Attributes:
        kind: "table", "index", "freelist trunk", "freelist leaf", "freelist" (one of these two), "pointer map",
            "lock-byte page" or "unknown (unreachable)".
        name: Name of the table or index.
    """

    kind: str
    name: str = ""

    def __str__(self) -> str:
        """Return it for people: ``table patient``."""
        return f"{self.kind} {self.name}".rstrip()


TRUNK, LEAF, TRUNK_OR_LEAF = Owner("freelist trunk"), Owner("freelist leaf"), Owner("freelist")
UNKNOWN = Owner("unknown (unreachable)")


def owners(read_page: Callable[[int], bytes | None], page_size: int, usable_size: int, page_count: int) -> dict[int, Owner]:
    """Return the owner of each page.

    A page that can't be read but to which a readable one points gets the owner of that one; what only an unreadable page points
    to is found through the pointer map of a database with auto_vacuum, and else is unknown.

    Args:
        read_page: Returns a whole page (1-based), or None where it does not authenticate or is missing.
        page_size: Bytes of a page.
        usable_size: Bytes of a page less those reserved at its end.
        page_count: Number of the last page.
    """
    source = Pages(read_page, page_size, usable_size, page_count)
    claims = claims_without_rows(source)
    names = {1: Owner("table", SCHEMA_NAME), MAP: Owner("pointer map"), LOCK: Owner("lock-byte page")}
    for entry in salvage_schema(source, claims).entries:
        if entry.root and entry.type in ("table", "index"):
            names.setdefault(entry.root, Owner(entry.type, entry.name))
            Tree(source, entry.root, claims).claim()
    found = {number: names[root] for number, root in claims.items()}
    free, pointers = read_freelist(source), PointerMap.of(source)
    for owner, numbers in ((TRUNK, free.trunks), (LEAF, free.leaves)):
        for number in numbers:
            found.setdefault(number, owner)
    for number in range(1, page_count + 1):
        if number not in found:
            found[number] = _by_map(pointers, number, claims, names)
    return found


def _by_map(pointers: PointerMap | None, number: int, claims: Claims, names: dict[int, Owner]) -> Owner:
    """Return whom the pointer map says that a page belongs to."""
    if pointers is None:
        return UNKNOWN
    entry = pointers.entry(number)
    if entry is not None and entry.kind == FREE:
        return TRUNK_OR_LEAF
    return names.get(pointers.tree_of(number, claims), UNKNOWN)
