"""Read what is left of a database and build a new one from it: tables, rows, then everything that follows from the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import apsw

from heliosvfs.btrees import (
    Family,
    Orphans,
    PageSource,
    PointerMap,
    Row,
    SchemaEntry,
    Tree,
    claims_without_rows,
    find_orphans,
    lock_page,
    owners,
    read_freelist,
    read_node,
    rows_of,
    salvage_schema,
    tree_by_elimination,
)
from heliosvfs.btrees.records import MalformedError
from heliosvfs.errors import UsageError
from heliosvfs.salvage.reports import DamagedPage, SalvageReport
from heliosvfs.salvage.schemas import create, create_virtual_table, make_sequence_table, permissive
from heliosvfs.salvage.tables import LostAndFound, RowRefusedError, Table, quoted

__all__ = ["Progress", "beginnings", "salvage_pages"]

Progress = Callable[[int, int], None]

_BATCH = 256  # pages or rows between two calls of a progress function
_ENCODING_NAMES = {"utf-8": "UTF-8", "utf-16-le": "UTF-16le", "utf-16-be": "UTF-16be"}
