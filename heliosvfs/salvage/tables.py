"""Tables of the new database, and how a stored row is put back into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import apsw

from heliosvfs.btrees import Row, UndecodableText, Value

__all__ = ["LostAndFound", "RowRefusedError", "Table", "pragma", "quoted"]

_VIRTUAL, _STORED = 2, 3  # "hidden" of PRAGMA table_xinfo, for the two kinds of generated columns
_MOST_FIELDS = 1990  # SQLite allows 2000 columns in a table, and four are taken


class RowRefusedError(Exception):
    """A table did not take a row, or has no place for it."""


def quoted(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def pragma(connection: apsw.Connection, what: str, name: str) -> list[tuple[apsw.SQLiteValue, ...]]:
    """Return the rows of a PRAGMA about an object of the main database; the function of that PRAGMA may be hidden by a table."""
    return connection.execute(f"PRAGMA main.{what}({quoted(name)})").fetchall()


@dataclass(frozen=True)
class Table:
    """A table of the new database.

    Attributes:
        name: Its name.
        without_rowid: Whether its rows are keyed by their primary key.
        stored: Names of the columns that a record holds, in stored order; None where the value is not to be put
            back: that of a generated column is made anew.
        alias: Position in ``stored`` of the column that is the rowid (INTEGER PRIMARY KEY), -1 if none is.
        rowid: A name for the rowid; "" if it is a column, or all its names are taken by columns.
    """

    name: str
    without_rowid: bool
    stored: tuple[str | None, ...]
    alias: int
    rowid: str
    _statements: dict[tuple[int, tuple[int, ...]], str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, connection: apsw.Connection, name: str) -> Table:
        """Describe a table that is there."""
        without_rowid = any(wr for _, _, _, _, wr, _ in pragma(connection, "table_list", name))
        columns = [(cid, column, pk, hidden) for cid, column, _, _, _, pk, hidden in pragma(connection, "table_xinfo", name)]
        names = {cid: None if hidden in (_VIRTUAL, _STORED) else str(column) for cid, column, _, hidden in columns}
        key = [str(index) for _, index, _, origin, _ in pragma(connection, "index_list", name) if origin == "pk"]
        if without_rowid:  # the table is its primary key's index
            cids = [cid for _, cid, _, _, _, _ in pragma(connection, "index_xinfo", key[0])]
            return cls(name, without_rowid, tuple(names[cid] for cid in cids), -1, "")
        stored = [(column, pk) for _, column, pk, hidden in columns if hidden != _VIRTUAL]
        # a primary key that has no index of its own is the rowid
        alias = next((i for i, (_, pk) in enumerate(stored) if pk and not key), -1)
        taken = {str(column).lower() for _, column, _, _ in columns}
        free = [word for word in ("rowid", "_rowid_", "oid") if word not in taken]
        rowid = free[0] if free and alias < 0 else ""
        return cls(name, without_rowid, tuple(names[cid] for cid, _, _, hidden in columns if hidden != _VIRTUAL), alias, rowid)

    def insert(self, connection: apsw.Connection, row: Row) -> None:
        """Put a stored row back.

        Fields that a record lacks at its end are of columns that were added later: they get their default again.

        Raises:
            RowRefusedError: The row does not fit the table, or violates a constraint.
        """
        fits = self.alias < len(row.values) <= len(self.stored)
        if not fits or (row.rowid is None) != self.without_rowid:
            msg = f"{self.name}: a row does not fit the table"
            raise RowRefusedError(msg)
        values: list[Value] = [row.rowid] if self.rowid else []
        for position, value in enumerate(row.values):
            if self.stored[position] is not None:
                values.append(row.rowid if position == self.alias else value)
        try:
            connection.execute(self._statement(len(row.values), values), _plain(values))
        except (apsw.ConstraintError, apsw.MismatchError) as error:
            msg = f"{self.name}: {error}"
            raise RowRefusedError(msg) from error

    def _statement(self, fields: int, values: Sequence[Value]) -> str:
        """Return the statement that inserts a record of ``fields`` fields, of which ``values`` are to be bound."""
        as_text = tuple(i for i, value in enumerate(values) if isinstance(value, UndecodableText))
        statement = self._statements.get((fields, as_text))
        if statement is None:
            names = [self.rowid] * bool(self.rowid) + [name for name in self.stored[:fields] if name is not None]
            columns = ", ".join(map(quoted, names))
            places = ", ".join("CAST(? AS TEXT)" if i in as_text else "?" for i in range(len(names)))
            into = f"INSERT INTO main.{quoted(self.name)}"
            statement = f"{into}({columns}) VALUES({places})" if names else f"{into} DEFAULT VALUES"
            if not as_text:  # of these there may be many
                self._statements[fields, as_text] = statement
        return statement


def _plain(values: Sequence[Value]) -> list[Value]:
    return [bytes(value) if isinstance(value, UndecodableText) else value for value in values]


class LostAndFound:
    """The table for rows without a table, made when the first comes and widened as they come.

    Attributes:
        name: Its name, "" as long as it does not exist.
        rows: Rows in it.
        refused: Rows that it had no place for, because they have more fields than SQLite allows columns.
    """

    def __init__(self, connection: apsw.Connection, name: str, taken: set[str]) -> None:
        """Make nothing yet.

        Args:
            connection: The new database.
            name: The name that it will have, with a number if that is taken.
            taken: Names, in lower case, that the schema needs.
        """
        self._connection = connection
        candidates = (f"{name}_{i}" if i else name for i in count())
        self._free_name = next(candidate for candidate in candidates if candidate not in taken)
        self._width = 0
        self.name = ""
        self.rows = 0
        self.refused = 0

    def insert(self, root: int, row: Row) -> None:
        """Keep a row.

        Args:
            root: Uppermost page that is left above the row's.
            row: The row.
        """
        if len(row.values) > _MOST_FIELDS:
            self.refused += 1
            return
        self._widen(len(row.values))
        names = ", ".join(["rootpgno", "pgno", "nfield", "id", *(f"c{i}" for i in range(len(row.values)))])
        places = ", ".join(
            ["?, ?, ?, ?", *("CAST(? AS TEXT)" if isinstance(value, UndecodableText) else "?" for value in row.values)]
        )
        values = [root, row.page, len(row.values), row.rowid, *_plain(row.values)]
        self._connection.execute(f"INSERT INTO main.{quoted(self.name)}({names}) VALUES({places})", values)
        self.rows += 1

    def _widen(self, width: int) -> None:
        if not self.name:
            self.name = self._free_name
            columns = ", ".join(["rootpgno", "pgno", "nfield", "id", *(f"c{i}" for i in range(width))])
            self._connection.execute(f"CREATE TABLE main.{quoted(self.name)}({columns})")
            self._width = width
        for i in range(self._width, width):
            self._connection.execute(f"ALTER TABLE main.{quoted(self.name)} ADD COLUMN c{i}")
        self._width = max(self._width, width)
