"""Rows that are kept for so many days and no longer (GDPR 5(1)(e), storage limitation; docs/GDPR.md)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliosvfs.compliance.declarations import Expiry
from heliosvfs.compliance.tables import quoted
from heliosvfs.errors import UsageError

if TYPE_CHECKING:
    from heliosvfs.connection import Connection

__all__ = ["Expired", "Expiry", "expire"]

_UNIX_EPOCH = 2440587.5  # as a Julian day
_BATCH = 1000  # rows of a transaction
_MILLISECONDS = 1e11  # numbers from here on are milliseconds since the epoch


@dataclass(frozen=True)
class Expired:
    """What expired in one table.

    Attributes:
        table: The table.
        rows: Rows that were deleted, or would be.
        unreadable: Rows whose time is missing or is no time; they stay.
    """

    table: str
    rows: int
    unreadable: int


def expire(
    connection: Connection,
    expiries: Sequence[Expiry],
    *,
    days: int | None = None,
    now: float | None = None,
    dry_run: bool = False,
) -> list[Expired]:
    """Delete rows that are older than they may be, in batches.

    A row's time is ISO 8601 text, or a number: a Julian day, seconds since 1970, or milliseconds.

    Args:
        connection: A connection in no transaction; if it is audited, each batch is an event.
        expiries: Tables, the columns with their rows' times, and days.
        days: Days for those that say none.
        now: Seconds since the epoch; None: the clock's.
        dry_run: Count, and delete nothing.

    Raises:
        UsageError: A table says no days and there is no default, or a transaction is open.
        apsw.Error: There is no such table or column, or something refers to a row; batches before stay deleted.
    """
    if connection.in_transaction:
        msg = "expiring rows begins transactions of its own: end the one that is open first"
        raise UsageError(msg)
    today = (time.time() if now is None else now) / 86_400 + _UNIX_EPOCH
    return [_expire(connection, one, today - _days(one, days), dry_run=dry_run) for one in expiries]


def _days(expiry: Expiry, default: int | None) -> int:
    found = expiry.days if expiry.days is not None else default
    if found is None:
        msg = f"{expiry.table}: how long are rows kept? expected days, or gdpr.data_retention_days"
        raise UsageError(msg)
    return found


def _julian(column: str) -> str:
    """Return the SQL of a column's time as a Julian day; NULL: it is no time."""
    return (
        f"CASE WHEN typeof({column}) = 'text' THEN "
        f"CASE WHEN {column} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' THEN julianday({column}) END "
        f"WHEN typeof({column}) IN ('integer', 'real') THEN CASE WHEN {column} BETWEEN 1721059.5 AND 5373484.5 THEN {column} "
        f"WHEN abs({column}) >= {_MILLISECONDS} THEN {column} / 86400000.0 + {_UNIX_EPOCH} "
        f"ELSE {column} / 86400.0 + {_UNIX_EPOCH} END END"
    )


def _expire(connection: Connection, expiry: Expiry, before: float, *, dry_run: bool) -> Expired:
    table, when = f"main.{quoted(expiry.table)}", _julian(quoted(expiry.time_column))
    unreadable = connection.execute(f"SELECT count(*) FROM {table} WHERE {when} IS NULL").get
    if dry_run:
        rows = connection.execute(f"SELECT count(*) FROM {table} WHERE {when} < ?", (before,)).get
        return Expired(expiry.table, rows, unreadable)
    has_rowid = not any(row[4] for row in connection.execute(f"PRAGMA main.table_list({quoted(expiry.table)})"))
    some = f"rowid IN (SELECT rowid FROM {table} WHERE {when} < ? LIMIT {_BATCH})" if has_rowid else f"{when} < ?"
    deleted = 0
    while True:
        connection.execute(f"DELETE FROM {table} WHERE {some}", (before,)).fetchall()
        count = connection.changes()
        deleted += count
        if count < _BATCH or not has_rowid:
            return Expired(expiry.table, deleted, unreadable)
