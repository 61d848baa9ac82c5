"""Hold what was salvaged against what the damaged database says of itself in a second place.

A page of an interrupted transaction is as authentic as any other. Where one was not undone, an index may speak of other rows than
its table has, or a page be left that nothing points to.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

from heliosvfs.btrees import (
    Claims,
    PageSource,
    Schema,
    SchemaEntry,
    Tree,
    Value,
    claims_without_rows,
    read_freelist,
    salvage_schema,
)

__all__ = ["contradictions"]

_MOST_NAMED = 10  # pages that a message names


def contradictions(source: PageSource, rebuilt: PageSource, missing: Container[str], *, unreadable: bool) -> Iterator[str]:
    """Yield in what the new database, or the damaged one by itself, contradicts the damaged one.

    Args:
        source: The damaged database.
        rebuilt: The new one, whose indexes were made anew from the rows that it got.
        missing: Tables that are known to lack rows.
        unreadable: Whether pages of the damaged database can't be read, which explains trees and pages without connection.
    """
    claims = claims_without_rows(source)
    schema = salvage_schema(source, claims)
    copied = salvage_schema(rebuilt, {})
    anew = {entry.name: entry.root for entry in _indexes(copied)}
    for entry in _indexes(schema):
        tree = Tree(source, entry.root, claims)
        stored = _sums(tree.payloads())
        if not tree.is_complete:
            if not unreadable:
                yield f"index {entry.name} is not in order: its table may be of different times, or lack rows"
        elif entry.name in anew and entry.table not in missing:
            again = Tree(rebuilt, anew[entry.name], {})
            if stored != _sums(again.payloads()) and _values(tree, schema.encoding) != _values(again, copied.encoding):
                yield f"index {entry.name} is of other rows than table {entry.table} has, which may lack rows or have wrong ones"
    for entry in schema.entries:
        if entry.type == "table" and entry.root:
            tree = Tree(source, entry.root, claims)
            tree.claim()
            if not tree.in_order:
                yield f"rows of table {entry.name} are not in order: they may be of different times, or others be missing"
    if schema.complete and not unreadable:
        yield from _strays(source, schema, claims)


def _indexes(schema: Schema) -> Iterator[SchemaEntry]:
    return (entry for entry in schema.entries if entry.type == "index" and entry.root)


def _sums(parts: Iterable[bytes]) -> tuple[int, int]:
    """Return the number of parts and a sum of their hashes, which does not depend on their order."""
    count, total = 0, 0
    for count, part in enumerate(parts, 1):  # noqa: B007 - the last number counts
        total += hash(part)
    return count, total


def _values(tree: Tree, encoding: str) -> tuple[int, int]:
    """Do the same with the values of a tree's rows: the same value can be stored in two ways."""
    rows = Tree(tree.source, tree.root, {}).rows(encoding)
    return _sums(repr([*map(_canonical, row.values)]).encode() for row in rows)


def _canonical(value: Value) -> Value:
    """Return a value as it is whichever way it is stored: SQLite may keep a whole number of a REAL column as an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _strays(source: PageSource, schema: Schema, claims: Claims) -> Iterator[str]:
    """Yield what there is to say of pages that belong to nothing, and of those that should not be there."""
    free = read_freelist(source)
    taken = {*claims, *free.trunks, *free.leaves}
    end = source.page_count
    if schema.header is not None and 0 < schema.header.page_count < end:
        end = schema.header.page_count
    beyond = sorted(number for number, root in claims.items() if number > end and root > 0)
    if beyond:
        yield f"{len(beyond)} pages are used that lie behind the end of the database, page {end}: {_named(beyond)}"
    unowned = [number for number in range(2, end + 1) if number not in taken]
    if unowned:
        yield f"{len(unowned)} pages belong to nothing, and rows that were on them are in no table: {_named(unowned)}"


def _named(pages: Sequence[int]) -> str:
    return ", ".join(map(str, pages[:_MOST_NAMED])) + (", ..." if len(pages) > _MOST_NAMED else "")
