"""Row: a row whose values can be had by column name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from heliosvfs.dbapi2.cursors import Cursor

__all__ = ["Row"]


class Row:
    """A row of a result, for `Connection.row_factory`: a sequence that also takes column names, in any case, as index."""

    __slots__ = ("_description", "_values")

    def __new__(cls, cursor: Cursor, data: tuple[Any, ...], /) -> Row:  # noqa: PYI034 - what it makes is of the class
        """Make a row of a cursor's description and a tuple of values."""
        if not issubclass(type(cursor), Cursor):
            msg = f"Row() argument 1 must be sqlite3.Cursor, not {type(cursor).__name__}"
            raise TypeError(msg)
        if not isinstance(data, tuple):
            msg = f"Row() argument 2 must be tuple, not {type(data).__name__}"
            raise TypeError(msg)
        self = object.__new__(cls)
        self._values = data
        self._description = cursor.description
        return self

    _values: tuple[Any, ...]
    _description: Any

    def __reduce__(self) -> Any:
        """Refuse to be copied or pickled, as sqlite3's rows do."""
        msg = f"cannot pickle '{type(self).__module__}.{type(self).__qualname__}' object"
        raise TypeError(msg)

    def keys(self) -> list[str]:
        """Return the column names."""
        return [column[0] for column in self._description or ()]

    def __getitem__(self, index: Any) -> Any:
        """Return the value at a position, of a column, or a slice of values."""
        if isinstance(index, str):
            for position, column in enumerate(self._description or ()):
                name = column[0]
                # SQLite's names are equal whatever the case of their ASCII letters
                if name == index or (name.isascii() and index.isascii() and name.lower() == index.lower()):
                    return self._values[position]
            msg = "No item with that key"
            raise IndexError(msg)
        if isinstance(index, (int, slice)):
            return self._values[index]
        msg = "Index must be int or string"
        raise IndexError(msg)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the values."""
        return iter(self._values)

    def __hash__(self) -> int:
        """Hash names and values."""
        return hash(self._description) ^ hash(self._values)

    def __eq__(self, other: object) -> Any:
        """Compare names and values with another row's."""
        if not isinstance(other, Row):
            return NotImplemented
        return self._description == other._description and self._values == other._values


Sequence.register(Row)
