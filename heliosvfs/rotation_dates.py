"""When a data key is due for rotation, and who is told: storage info, a warning, a job that rotates what is due."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from heliosvfs.connection import Connection
from heliosvfs.errors import UsageError
from heliosvfs.rotation import RotationReport, epoch_time

__all__ = ["RotationDue", "RotationDueWarning", "due", "due_facts", "rotate_if_due", "warn_if_due"]

Progress = Callable[[int, int], None]


class RotationDueWarning(UserWarning):
    """A data key is older than it shall be."""


@dataclass(frozen=True)
class RotationDue:
    """Whether the data key has reached the age at which it shall be replaced.

    Attributes:
        created: When the present data key was made, UTC.
        due: When it shall be replaced, UTC.
        is_due: Whether that time has come.
        unfinished: Whether a rotation was interrupted: an older key still opens some of the data.
    """

    created: datetime
    due: datetime
    is_due: bool
    unfinished: bool


def due(connection: Connection, interval_days: float, *, schema: str = "main", now: datetime | None = None) -> RotationDue:
    """Tell when the data key of a database is due for rotation.

    Args:
        connection: A connection to the database.
        interval_days: Days that a data key may be used.
        schema: Which of its databases.
        now: The time; None: the clock's.

    Raises:
        UsageError: ``interval_days`` is not positive, or it is no encrypted database.
    """
    if interval_days <= 0:
        msg = f"rotation_interval_days is a positive number of days, not {interval_days}"
        raise UsageError(msg)
    file = connection._file(schema)  # noqa: SLF001 - a Connection knows its files
    file.refresh()
    superblock = file.access.superblock
    created = epoch_time(superblock.epoch.created)
    end = created + timedelta(days=interval_days)
    return RotationDue(created, end, (now or datetime.now(timezone.utc)) >= end, len(superblock.epochs) > 1)


def rotate_if_due(
    connection: Connection, interval_days: float, *, schema: str = "main", progress: Progress | None = None
) -> RotationReport | None:
    """Rotate the data key of a database if it is due, or finish a rotation that was interrupted; None: neither.

    Raises:
        UsageError, apsw.BusyError, TamperedError: As `rotate` and `due`.
    """
    state = due(connection, interval_days, schema=schema)
    return connection.rotate(schema=schema, progress=progress) if state.is_due or state.unfinished else None


def due_facts(
    connection: Connection, interval_days: float, *, schema: str = "main", now: datetime | None = None
) -> dict[str, Any]:
    """Return what storage info says of rotation, beside `heliosvfs.Connection.get_storage_info`.

    Returns:
        rotation_interval_days, rotation_due (UTC ISO 8601), rotation_is_due, rotation_unfinished.

    Raises:
        UsageError: As `due`.
    """
    state = due(connection, interval_days, schema=schema, now=now)
    return {
        "rotation_interval_days": interval_days,
        "rotation_due": state.due.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "rotation_is_due": state.is_due,
        "rotation_unfinished": state.unfinished,
    }


def warn_if_due(connection: Connection, interval_days: float, *, schema: str = "main", now: datetime | None = None) -> bool:
    """Issue a `RotationDueWarning` if the data key of a database is due for rotation; tell whether it is.

    Raises:
        UsageError: As `due`.
    """
    state = due(connection, interval_days, schema=schema, now=now)
    if state.is_due:
        msg = (
            f"{connection.db_filename(schema)}: its data key was to be replaced by {state.due:%Y-%m-%d}; "
            "Connection.rotate() or `heliosvfs rotate` does that"
        )
        warnings.warn(msg, RotationDueWarning, stacklevel=2)
    return state.is_due
