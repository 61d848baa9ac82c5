"""What executemany() hands to APSW: parameters ready to be bound, and a count of what their executions change.

Nothing of this runs in Python between two rows where it can be helped: types are checked for all rows at once, and changes are
counted by the difference of SQLite's own totals, or by iterators that are C code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, compress
from operator import length_hint, not_
from typing import Any

import apsw

from heliosvfs.dbapi2.adapters import bound, plain_types
from heliosvfs.dbapi2.statements import counts_all_changes

__all__ = ["Feed"]

_SEQUENCES = frozenset((tuple, list))
_are_sequences = _SEQUENCES.issuperset
_are_plain = plain_types.issuperset
_MANY = 500  # executions after which it pays to ask how their changes may be counted


class Feed:
    """The parameters of one executemany().

    Attributes:
        rows: Iterator over them, ready to be bound.
    """

    def __init__(self, db: apsw.Connection, sql: str, parameters: Iterable[Any]) -> None:
        self.rows: Iterator[Any] = iter(parameters)
        self._current: list[Any] = [None]
        self._changes: Callable[[], int] = db.changes
        self._totals: Callable[[], int] | None = None
        self._counts: list[int] = []
        if not (
            type(parameters) in _SEQUENCES
            and _are_sequences(map(type, parameters))
            and _are_plain(map(type, chain.from_iterable(parameters)))
        ):
            self.rows = _bound(self.rows, self._current)
        if length_hint(parameters, _MANY) >= _MANY and counts_all_changes(db, sql):
            self._totals = db.total_changes
            self._before = db.total_changes()
        else:
            # compress takes a row and then asks whether to hand it out: that asks SQLite what the execution before it changed,
            # and append's None says yes
            self.rows = compress(self.rows, map(not_, map(self._counts.append, iter(db.changes, -1))))

    def lacks(self, error: BaseException) -> bool:
        """Tell whether an error is about a key that the current parameters do not have, and not one of the program's own."""
        row = self._current[0]
        return isinstance(error, KeyError) and type(row) is dict and error.args[0] not in row

    def changed(self) -> int:
        """Return how many rows the executions have changed, after the last one."""
        if self._totals is not None:
            return self._totals() - self._before
        # the first count was taken before the first execution
        return sum(self._counts[1:]) + self._changes() if self._counts else 0


def _bound(rows: Iterator[Any], current: list[Any]) -> Iterator[Any]:
    """Give each row ready to be bound; ``current`` holds the last one that took more than a look at its types.

    It knows nothing of the feed: in a cycle with it the program's generator, and what that has open, would outlive a failure.
    """
    for row in rows:
        if type(row) in _SEQUENCES and _are_plain(map(type, row)):
            yield row
        else:
            given = current[0] = bound(row)
            yield given
