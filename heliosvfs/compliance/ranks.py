"""How high tables and columns are: what labels say, and what follows from them for what is made of the labelled."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from heliosvfs.compliance.visible_schemas import Schema, Table

__all__ = ["Ranks"]

_SIZES = re.compile(r"\busing\s+dbstat\b")
_ROWID = frozenset({"rowid", "oid", "_rowid_"})


class Ranks:
    """Ranks of levels, tables and columns; 0 is the lowest. Names are in lower case.

    Attributes:
        levels: Names of the levels, the lowest first.
        floor: Rank of the database, and of whatever has no label.
        highest: That of what is labelled highest: whoever has it may see all that the database holds.
        top: That of the highest level.
    """

    def __init__(self, labels: Mapping[str, str], levels: Sequence[str], floor: str) -> None:
        self.levels = tuple(levels)
        ranks = {level: rank for rank, level in enumerate(levels)}
        self._by_level = ranks
        self.floor = ranks[floor]
        self.top = len(self.levels) - 1
        self.highest = max(self.floor, *(ranks[level] for level in labels.values())) if labels else self.floor
        self._given_columns: dict[str, dict[str, int]] = {}
        self._given: dict[str, int] = {}
        for name, level in labels.items():
            table, dot, column = name.lower().partition(".")
            if dot:
                self._given_columns.setdefault(table, {})[column] = ranks[level]
            else:
                self._given[table] = ranks[level]
        self._tables = dict(self._given)
        self._columns = {table: dict(of) for table, of in self._given_columns.items()}

    def of_level(self, level: Any) -> int:
        """Return the rank of a level; of none, the lowest."""
        return self._by_level.get(level, 0) if isinstance(level, str) else 0

    def names(self, table: str) -> bool:
        """Tell whether a label names a table or a column of it."""
        return table in self._given or table in self._given_columns

    def of(self, table: str, column: str = "") -> int:
        """Return the rank of a table, or of a column if that is higher."""
        rank = max(self._tables.get(table, 0), self.floor)
        of = self._columns.get(table)
        return rank if of is None or not column else max(rank, of.get(column, 0))

    def whole(self, table: str) -> int:
        """Return the rank of the highest of a table and its columns."""
        return max([self.of(table), *self._columns.get(table, {}).values()])

    def derive(self, schema: Schema) -> bool:
        """Work out what follows from the labels in a schema; returns whether that is something else than before."""
        before = self._tables, self._columns
        self._tables = dict(self._given)
        self._columns = {table: dict(of) for table, of in self._given_columns.items()}
        for name, table in schema.tables.items():
            if name in self._columns:
                self._derive_columns(name, table)
        self._derive_virtual(schema)
        return before != (self._tables, self._columns)

    def _derive_columns(self, name: str, table: Table) -> None:
        """Raise generated columns without a label of their own, for the authorizer is not asked for what they are made of."""
        of, whole = self._columns[name], self.whole(name)
        for column in table.columns:
            if column.is_generated:
                of.setdefault(column.name.lower(), whole)
        keys = [column.name.lower() for column in table.columns if column.key and column.type.upper() == "INTEGER"]
        if len(keys) == 1 and keys[0] in of:
            of.update(dict.fromkeys(_ROWID, of[keys[0]]))

    def _derive_virtual(self, schema: Schema) -> None:
        """Raise virtual tables to the level of what they index, and the tables that keep their content with them."""
        virtual = {name: table for name, table in schema.tables.items() if table.kind == "virtual"}
        definitions = {
            name.lower(): (sql or "").lower()
            for kind, name, _, sql in schema.objects
            if kind == "table" and name.lower() in virtual
        }
        for _ in virtual:  # one may be over another
            for name in virtual:
                over = [
                    self.whole(other) for other in schema.tables if other != name and _names(definitions.get(name, ""), other)
                ]
                if _SIZES.search(definitions.get(name, "")):
                    over = [self.highest]  # it tells the names and sizes of all tables
                rank = max([self.whole(name), *([] if name in self._given else over)])
                if rank > self.floor:
                    self._tables[name] = rank
        for name, table in schema.tables.items():
            owners = [owner for owner in virtual if name.startswith(owner + "_")]
            if table.kind == "shadow" and owners:
                self._tables[name] = max(self._tables.get(name, 0), self.whole(max(owners, key=len)))


def _names(definition: str, table: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(table)}(?!\w)", definition) is not None
