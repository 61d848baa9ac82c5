"""Cursor: Django's placeholders, %s and %(name)s, turned into SQLite's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Any

from django.db.backends.sqlite3.base import FORMAT_QMARK_REGEX

from heliosvfs import dbapi2

__all__ = ["Cursor"]


def _converted(query: str, parameters: Any) -> str:
    if isinstance(parameters, Mapping):
        return query % {name: f":{name}" for name in parameters}
    return str(FORMAT_QMARK_REGEX.sub("?", query)).replace("%%", "%")


class Cursor(dbapi2.Cursor):
    """A cursor that takes Django's placeholders; a query without parameters is taken as it is."""

    def execute(self, query: str, params: Any = None) -> Cursor:
        """Execute one statement."""
        if params is None:
            super().execute(query)
        else:
            super().execute(_converted(query, params), params)
        return self

    def executemany(self, query: str, param_list: Iterable[Any]) -> Cursor:
        """Execute a statement once for each set of parameters, whose first one says which placeholders it has."""
        rows = iter(param_list)
        first = list(islice(rows, 1))
        super().executemany(_converted(query, first[0] if first else ()), chain(first, rows))
        return self
