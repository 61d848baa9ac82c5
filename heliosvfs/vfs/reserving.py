"""Make SQLite leave room for the seals: 32 bytes at the end of each page of a new database, and begin it as `connect` was told.

A hook does it for every connection that APSW makes, which leaves the page size open until the first write. A program may have
replaced `apsw.connection_hooks`; then an empty file says of itself, in the header that SQLite reads when it opens it, that it
reserves the bytes. That fixes the page size as well, so it is not the first choice.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import apsw

from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.torn import GuardedCursor
from heliosvfs.vfs.open_files import files_of

__all__ = ["beginning_with", "header_that_reserves", "install", "is_installed", "open_connections", "set_beginnings"]

# By address of their sqlite3*, which is used again after a close, so that this does not grow. References without a callback: a
# WeakSet's callbacks, run while a connection is deallocated and other threads open more, ended in a segmentation fault.
_connections: dict[int, weakref.ref[apsw.Connection]] = {}


def open_connections() -> list[apsw.Connection]:
    """Return the connections of this process whose main database is ours, closed ones perhaps among them."""
    return [connection for reference in list(_connections.values()) if (connection := reference()) is not None]


class _Beginning(threading.local):
    pragmas: Mapping[str, Any] = {}


_beginning = _Beginning()


@contextmanager
def beginning_with(pragmas: Mapping[str, Any]) -> Iterator[None]:
    """Set PRAGMAs of a new database that this thread opens before any other hook can write to it; None: leave it at that."""
    _beginning.pragmas = pragmas
    try:
        yield
    finally:
        _beginning.pragmas = {}


def set_beginnings(connection: apsw.Connection, pragmas: Mapping[str, Any]) -> None:
    """Set PRAGMAs that must come before a database's first page, where they are not None."""
    for name, value in pragmas.items():
        if value is not None:
            connection.pragma(name, value)


def reserve(connection: apsw.Connection) -> None:
    """Reserve the bytes on a new connection whose main database is ours, and have it undo what an interrupt has torn."""
    if files := files_of(connection):
        if connection.cursor_factory is apsw.Cursor:
            connection.cursor_factory = GuardedCursor
        connection.reserve_bytes("main", RESERVED_BYTES)
        if files[0].access.is_empty:
            set_beginnings(connection, _beginning.pragmas)
        _connections[connection.sqlite3_pointer()] = weakref.ref(connection)


def install() -> None:
    """Have every new connection reserve the bytes, before hooks that are there already can write to the database."""
    apsw.connection_hooks.insert(0, reserve)


def is_installed() -> bool:
    """Tell whether the hook is still in place: a program may have replaced APSW's list of hooks."""
    return any(getattr(hook, "__module__", "") == __name__ for hook in apsw.connection_hooks)


def header_that_reserves(page_size: int) -> bytes:
    """Return the header of a database that says no more of itself than page size and reserved bytes (SQLite file format 1.3)."""
    header = b"SQLite format 3\0" + (page_size & 0xFFFF or 1).to_bytes(2, "big") + bytes((1, 1, RESERVED_BYTES))
    return (header + bytes((64, 32, 32))).ljust(100, b"\0")
