"""Reading the log: rows whose types are known to whoever asks."""

from __future__ import annotations

from typing import Any

import apsw

__all__ = ["rows"]


def rows(connection: apsw.Connection, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return all rows of a query, so that no statement is left half-read."""
    found: list[tuple[Any, ...]] = connection.execute(sql, bindings).fetchall()
    return found
