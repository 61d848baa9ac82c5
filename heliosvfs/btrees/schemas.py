"""What can be read of the schema, table sqlite_schema whose root is page 1 (SQLite file format, section 2.6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from heliosvfs.btrees.nodes import LEAF_TABLE, Header, Node, PageSource, read_header, read_node
from heliosvfs.btrees.records import ENCODINGS, MalformedError, UndecodableText, guess_encoding
from heliosvfs.btrees.trees import Claims, Row, Tree, rows_of

__all__ = ["Schema", "SchemaEntry", "salvage_schema"]

SCHEMA_NAME = "sqlite_schema"
_LEAVES_TO_GUESS_FROM = 100
_TYPES = ("table", "index", "view", "trigger")


class SchemaEntry(NamedTuple):
    """A row of sqlite_schema.

    Attributes:
        type: "table", "index", "view" or "trigger".
        name: The object's name.
        table: The table it belongs to; its own name for tables and views.
        root: Root page of its b-tree; 0 if it has none.
        sql: The statement that made it; "" for indexes that UNIQUE or PRIMARY KEY imply.
    """

    type: str
    name: str
    table: str
    root: int
    sql: str


@dataclass(frozen=True)
class Schema:
    """The schema, as far as it can be read.

    Attributes:
        entries: Its rows.
        header: The database header, None where page 1 can't be read.
        encoding: Text encoding of the database, guessed where there is no header.
        tree: The b-tree of sqlite_schema, walked to its end.
        complete: Whether these are all the rows there are.
        notes: What is missing, and what was concluded.
    """

    entries: tuple[SchemaEntry, ...]
    header: Header | None
    encoding: str
    tree: Tree
    complete: bool
    notes: tuple[str, ...]


def salvage_schema(source: PageSource, claims: Claims) -> Schema:
    """Read the schema; where page 1 is lost, from leaf pages that can hold nothing else.

    Args:
        source: The database.
        claims: Pages that are taken; those of sqlite_schema are added.
    """
    header = read_header(source)
    tree = Tree(source, 1, claims)
    encoding = ENCODINGS[1] if header is None else header.encoding
    rows = list(tree.rows(encoding))
    notes = [f"sqlite_schema: {place.why}" for place in tree.lost] + [f"sqlite_schema: {row.why}" for row in tree.damaged]
    if header is None:
        encoding, rows = _by_shape(source, claims)
        pages = ", ".join(map(str, sorted({row.page for row in rows})))
        if rows:
            notes.append(f"the schema was recognised by its shape on page {pages}, and the text encoding as {encoding}")
        else:
            encoding = guess_encoding(_some_texts(source))
            notes.append(f"the text encoding is taken to be {encoding}")
    entries = [entry for row in rows if (entry := _entry(row)) is not None]
    if len(entries) < len(rows):
        notes.append(f"sqlite_schema: {len(rows) - len(entries)} rows make no sense")
    if header is None:
        entries, dropped = _unambiguous(entries)
        if dropped:
            notes.append(f"recognised in more than one version, and so not used: {', '.join(sorted(dropped))}")
    complete = header is not None and tree.is_complete and len(entries) == len(rows)
    return Schema(tuple(entries), header, encoding, tree, complete, tuple(notes))


def _entry(row: Row) -> SchemaEntry | None:
    if len(row.values) != 5:  # noqa: PLR2004 - type, name, tbl_name, rootpage, sql
        return None
    kind, name, table, root, sql = row.values
    if kind not in _TYPES or not isinstance(name, str) or not isinstance(table, str) or not isinstance(kind, str):
        return None
    if not isinstance(root, int | None) or not isinstance(sql, str | None):
        return None
    return SchemaEntry(kind, name, table, root or 0, sql or "")


def _by_shape(source: PageSource, claims: Claims) -> tuple[str, list[Row]]:
    """Find leaf pages of sqlite_schema without its root, and the encoding that makes sense of them."""
    found: dict[str, list[Row]] = {encoding: [] for encoding in ENCODINGS.values()}
    for node in _table_leaves(source):
        for encoding in found:
            taken: Claims = {node.number: 1}
            here = list(rows_of(source, node, encoding, taken, 1, []))
            if here and all(_has_shape(row, source) for row in here):
                found[encoding] += here
                claims.update(taken)
                break
    return max(found.items(), key=lambda item: len(item[1]))


def _some_texts(source: PageSource) -> Iterator[bytes]:
    """Yield text values as bytes, from the first leaf pages of any tables."""
    for node in islice(_table_leaves(source), _LEAVES_TO_GUESS_FROM):
        for row in rows_of(source, node, "ascii", {}, 0, []):
            for value in row.values:
                if isinstance(value, UndecodableText):
                    yield bytes(value)
                elif isinstance(value, str):
                    yield value.encode()


def _table_leaves(source: PageSource) -> Iterator[Node]:
    for number in range(2, source.page_count + 1):
        try:
            node = read_node(source, number)
        except MalformedError:
            continue
        if node is not None and node.kind == LEAF_TABLE and node.pointers:
            yield node


def _has_shape(row: Row, source: PageSource) -> bool:
    entry = _entry(row)
    if entry is None or not 0 <= entry.root <= source.page_count:
        return False
    if entry.type in ("view", "trigger"):
        return not entry.root and entry.sql.startswith(f"CREATE {entry.type.upper()} ")
    if entry.type == "table":
        return entry.sql.startswith("CREATE TABLE " if entry.root else "CREATE VIRTUAL TABLE ") and entry.root != 1
    return entry.root > 1 and (entry.sql.startswith(("CREATE INDEX ", "CREATE UNIQUE INDEX ")) or not entry.sql)


def _unambiguous(entries: Iterable[SchemaEntry]) -> tuple[list[SchemaEntry], set[str]]:
    """Leave out what is there in two versions, or claims the root page of another; return what was left out as well."""
    distinct = list(dict.fromkeys(entries))
    names = Counter(entry.name.lower() for entry in distinct)
    roots = Counter(entry.root for entry in distinct if entry.root)
    kept = [entry for entry in distinct if names[entry.name.lower()] == 1 and roots.get(entry.root, 1) == 1]
    return kept, {entry.name for entry in distinct} - {entry.name for entry in kept}
