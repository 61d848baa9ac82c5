"""B-tree pages that nothing points to any more, because the page above them is lost; and whose they must be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from heliosvfs.btrees.bookkeeping import FREE, PointerMap
from heliosvfs.btrees.nodes import Node, PageSource, read_node
from heliosvfs.btrees.records import MalformedError, field_count
from heliosvfs.btrees.trees import Claims, Tree

__all__ = ["Family", "Orphans", "find_orphans", "tree_by_elimination"]

_MAX_DEPTH = 20  # SQLite's BTCURSOR_MAX_DEPTH


@dataclass
class Orphans:
    """Pages without a way to their root that hang together.

    Attributes:
        top: The uppermost page of them.
        is_table: Whether their keys are rowids.
        pages: Those that hold rows: leaves, and in an index or table WITHOUT ROWID all.
        height: Levels below ``top``.
        low: Smallest rowid, in tables.
        high: Largest rowid, in tables.
        fields: Number of fields of the longest record that could be seen.
    """

    top: int
    is_table: bool
    pages: list[int] = field(default_factory=list)
    height: int = 0
    low: int | None = None
    high: int | None = None
    fields: int = 0


def find_orphans(source: PageSource, claims: Claims, free: Collection[int]) -> list[Orphans]:
    """Return the b-tree pages that no tree has claimed, those that hang together as one.

    Args:
        source: The database.
        claims: Pages that belong to trees, or hold no rows.
        free: Pages on the freelist, which may still hold rows that were deleted.
    """
    parents: dict[int, int] = {}
    kinds: dict[int, bool] = {}
    pointers = PointerMap.of(source)
    for node in _unclaimed(source, claims, free):
        entry = pointers.entry(node.number) if pointers is not None else None
        if entry is not None and entry.kind == FREE:
            continue
        kinds[node.number] = node.is_table
        for child in _children(node):
            parents.setdefault(child, node.number)
    groups: dict[int, Orphans] = {}
    for number in sorted(kinds):
        top, depth = _top(number, parents, kinds)
        group = groups.setdefault(top, Orphans(top, kinds[number]))
        group.height = max(group.height, depth)
        _note(group, source, number)
    return [group for group in groups.values() if group.pages]


def _unclaimed(source: PageSource, claims: Claims, free: Collection[int]) -> Iterator[Node]:
    for number in range(2, source.page_count + 1):
        if number not in claims and number not in free:
            try:
                node = read_node(source, number)
            except MalformedError:
                continue
            if node is not None:
                yield node


def _children(node: Node) -> Iterator[int]:
    if not node.is_leaf:
        for cell in node.cells():
            if not isinstance(cell, MalformedError):
                yield cell.child
        yield node.right


def _top(number: int, parents: dict[int, int], kinds: dict[int, bool]) -> tuple[int, int]:
    """Return the uppermost orphan above a page, and how far up it is."""
    for depth in range(_MAX_DEPTH):  # which also ends a cycle
        parent = parents.get(number)
        if parent is None or kinds[parent] != kinds[number]:
            return number, depth
        number = parent
    return number, _MAX_DEPTH


def _note(group: Orphans, source: PageSource, number: int) -> None:
    """Add a page to its group, with what it says of the rows."""
    node = read_node(source, number)
    if node is None or (group.is_table and not node.is_leaf) or not node.pointers:
        return
    group.pages.append(number)
    for cell in node.cells():
        if isinstance(cell, MalformedError):
            continue
        if cell.key is not None:
            group.low = cell.key if group.low is None else min(group.low, cell.key)
            group.high = cell.key if group.high is None else max(group.high, cell.key)
        try:
            group.fields = max(group.fields, field_count(cell.local))
        except MalformedError:
            continue  # a header that goes on to an overflow page


@dataclass(frozen=True)
class Family:
    """A tree that may have lost pages.

    Attributes:
        tree: The tree, walked to its end.
        is_table: Whether its keys are rowids.
        fields: The most fields that a record of it can have, None where that is not known.
    """

    tree: Tree
    is_table: bool
    fields: int | None = None


def tree_by_elimination(orphans: Orphans, families: Iterable[Family]) -> int:
    """Return the root of the only tree that orphans can belong to; 0 where there are several.

    This is certain only if ``families`` are all the trees of the database, and the whole freelist is known.

    Args:
        orphans: Pages that hang together.
        families: All trees.
    """
    fitting = {family.tree.root for family in families if _fits(orphans, family)}
    return fitting.pop() if len(fitting) == 1 else 0


def _fits(orphans: Orphans, family: Family) -> bool:
    """Tell whether orphans can have been below a page that the tree has lost."""
    if orphans.is_table != family.is_table or (family.fields is not None and orphans.fields > family.fields):
        return False
    return any(
        (place.low is None or orphans.low is None or place.low <= orphans.low)
        and (place.high is None or orphans.high is None or orphans.high <= place.high)
        and (family.tree.leaf_depth is None or place.depth + 1 + orphans.height <= family.tree.leaf_depth)
        for place in family.tree.gaps()
    )
