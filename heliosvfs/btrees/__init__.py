"""A reader of SQLite's file format that needs no page in particular: bytes in, rows and owners of pages out.

It follows https://sqlite.org/fileformat2.html and is for databases of which pages are missing, where SQLite itself gives up:
which table or index does a page belong to (`owners`), and which rows are left (`salvage_schema`, `Tree.rows`, `find_orphans`)?
Pages come from a `PageSource`, which gives None for a page that does not authenticate. Whatever the pages hold, every loop
ends, no page is used for two rows, and nothing but `MalformedError` is raised.
"""

from __future__ import annotations

from heliosvfs.btrees.bookkeeping import Freelist, MapEntry, PointerMap, claims_without_rows, freelist, read_freelist
from heliosvfs.btrees.nodes import MAGIC, Cell, Header, Node, Pages, PageSource, lock_page, read_header, read_node
from heliosvfs.btrees.orphans import Family, Orphans, find_orphans, tree_by_elimination
from heliosvfs.btrees.ownership import Owner, owners
from heliosvfs.btrees.records import MalformedError, UndecodableText, Value, decode_record, read_varint
from heliosvfs.btrees.schemas import SCHEMA_NAME, Schema, SchemaEntry, salvage_schema
from heliosvfs.btrees.trees import Claims, DamagedRow, Place, Row, Tree, rows_of

__all__ = [
    "MAGIC",
    "SCHEMA_NAME",
    "Cell",
    "Claims",
    "DamagedRow",
    "Family",
    "Freelist",
    "Header",
    "MalformedError",
    "MapEntry",
    "Node",
    "Orphans",
    "Owner",
    "PageSource",
    "Pages",
    "Place",
    "PointerMap",
    "Row",
    "Schema",
    "SchemaEntry",
    "Tree",
    "UndecodableText",
    "Value",
    "claims_without_rows",
    "decode_record",
    "find_orphans",
    "freelist",
    "lock_page",
    "owners",
    "read_freelist",
    "read_header",
    "read_node",
    "read_varint",
    "rows_of",
    "salvage_schema",
    "tree_by_elimination",
]
