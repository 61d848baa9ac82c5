"""When transactions begin and end: sqlite3's own way with isolation_level, and PEP 249's with autocommit."""

from __future__ import annotations

from typing import Any

from heliosvfs.dbapi2.constants import LEGACY_TRANSACTION_CONTROL
from heliosvfs.dbapi2.sessions import Session

__all__ = ["autocommit", "begin_before_dml", "end", "isolation_level"]

_LEVELS = ("", "DEFERRED", "IMMEDIATE", "EXCLUSIVE")


def isolation_level(level: Any) -> str | None:
    """Return an isolation level in capitals.

    Raises:
        TypeError: It is no text.
        ValueError: There is no such level.
    """
    if level is None:
        return None
    if not isinstance(level, str):
        msg = "isolation_level must be str or None"
        raise TypeError(msg)
    if "\0" in level:
        msg = "embedded null character"
        raise ValueError(msg)
    for candidate in _LEVELS:
        if str.upper(level) == candidate:
            return candidate
    msg = "isolation_level string must be '', 'DEFERRED', 'IMMEDIATE', or 'EXCLUSIVE'"
    raise ValueError(msg)


def autocommit(mode: Any) -> int:
    """Return an autocommit mode.

    Raises:
        ValueError: There is no such mode.
    """
    if mode is True or mode is False or (type(mode) is int and mode == LEGACY_TRANSACTION_CONTROL):
        return mode
    msg = "autocommit must be True, False, or sqlite3.LEGACY_TRANSACTION_CONTROL"
    raise ValueError(msg)


def begin_before_dml(level: str | None, mode: int) -> str | None:
    """Return the statement that opens a transaction before DML, None if nothing does."""
    return f"BEGIN {level}" if level is not None and mode == LEGACY_TRANSACTION_CONTROL else None


def end(session: Session, command: str, mode: int) -> None:
    """Commit or roll back as the autocommit mode has it: with True nothing is done, with False the next one begins at once."""
    if mode is True:
        return
    session.end(command)
    if mode is False:
        session.control.execute("BEGIN")
