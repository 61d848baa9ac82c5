"""Connection.backup(): copy a database into another connection's, in steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import apsw

from heliosvfs.dbapi2.errors import NotSupportedError
from heliosvfs.dbapi2.sessions import Session

if TYPE_CHECKING:
    from heliosvfs.dbapi2.connections import Connection

__all__ = ["copy_pages", "copy_to_stdlib", "is_stdlib_connection"]


def is_stdlib_connection(target: Any) -> bool:
    """Tell whether something is a connection of Python's own sqlite3."""
    stdlib = sys.modules.get("_sqlite3")
    return stdlib is not None and isinstance(target, stdlib.Connection)


def copy_pages(  # noqa: PLR0913 - what backup() takes
    source: Session, target: Connection, pages: int, progress: Callable[[int, int, int], Any] | None, name: str, sleep: float
) -> None:
    """Copy a database to another connection of ours, a number of pages at a time."""
    backup = target._session.db.backup("main", source.db, name)  # noqa: SLF001 - the other half of the same call
    try:
        while True:
            try:
                status = apsw.SQLITE_DONE if backup.step(pages) else apsw.SQLITE_OK
            except (apsw.BusyError, apsw.LockedError) as error:
                status = error.extendedresult  # type: ignore[union-attr]
            if progress is not None:
                progress(status, backup.remaining, backup.page_count)
            if status == apsw.SQLITE_DONE:
                return
            if status != apsw.SQLITE_OK:
                time.sleep(sleep)
    finally:
        backup.close(True)  # noqa: FBT003 - APSW's parameter: an error of the copy is under way already


def copy_to_stdlib(  # noqa: PLR0913 - what backup() takes
    source: Session, target: Any, pages: int, progress: Callable[[int, int, int], Any] | None, name: str, sleep: float
) -> None:
    """Copy a database to a connection of Python's own sqlite3, unencrypted: two copies of SQLite share bytes, not pages.

    Raises:
        NotSupportedError: That is an older one, which can't be handed a database as bytes.
    """
    if not hasattr(target, "deserialize"):
        msg = "sqlite3 of Python 3.10 can't be handed a database: use iterdump(), or Python 3.11"
        raise NotSupportedError(msg)
    contents = source.db.serialize(name) or b""
    between = type(target)(":memory:")
    try:
        between.deserialize(contents)
        between.backup(target, pages=pages, progress=progress, sleep=sleep)
    finally:
        between.close()
