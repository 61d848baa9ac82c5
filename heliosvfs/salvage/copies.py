"""One table on its way from the damaged database into the new one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import apsw

from heliosvfs.btrees import Family, Row, SchemaEntry, Tree
from heliosvfs.salvage.tables import LostAndFound, RowRefusedError, Table

__all__ = ["Copy"]


@dataclass
class Copy:
    """One table on its way from the damaged database into the new one.

    Attributes:
        entry: Its row of the schema.
        tree: Its b-tree.
        table: The new table, None where it could not be made.
        rows: Rows that the new table has.
        refused: Rows that were read but went to the lost-and-found table.
        adopted: Whether pages were found that had been below a lost one.
    """

    entry: SchemaEntry
    tree: Tree
    table: Table | None
    rows: int = 0
    refused: int = 0
    adopted: bool = False

    def put(self, connection: apsw.Connection, row: Row, lost_and_found: LostAndFound) -> None:
        """Insert a row, or keep it in the lost-and-found table if the new table does not take it."""
        if self.table is not None:
            try:
                self.table.insert(connection, row)
            except RowRefusedError:
                pass
            else:
                self.rows += 1
                return
        self.refused += 1
        lost_and_found.insert(self.entry.root, row)

    def families(self) -> Iterable[Family]:
        """Yield what may have lost pages; for a table of which nothing says whether it has rowids, both possibilities."""
        if self.table is not None:
            yield Family(self.tree, not self.table.without_rowid, len(self.table.stored))
        else:
            for is_table in (True, False):
                if self.tree.is_table in (None, is_table):
                    yield Family(self.tree, is_table)

    def missing(self, *, entries: int | None, gaps_filled: bool) -> int | None:
        """Return how many rows the new table lacks, None where that is not known.

        Args:
            entries: Entries of an index that is complete and has one for each row, None where there is no such index.
            gaps_filled: Whether all that was below lost pages is certain to have been found.
        """
        if entries is not None:
            return max(0, entries - self.rows)
        if not self.tree.lost or (gaps_filled and self._lost_no_leaf()):
            return len(self.tree.damaged) + self.refused
        return None

    def _lost_no_leaf(self) -> bool:
        """Tell whether the lost pages certainly held no row: they are of a table with rowids, and others were below them."""
        tree = self.tree
        if self.table is None or self.table.without_rowid:
            return False
        if tree.leaf_depth is None:
            return len(tree.lost) == 1 and self.adopted
        return len(tree.gaps()) == len(tree.lost)
