"""Make SQLite leave room for the seals: 32 bytes at the end of each page of a new database.

A hook does it for every connection that APSW makes, which leaves the page size open until the first write. A program may have
replaced `apsw.connection_hooks`; then an empty file says of itself, in the header that SQLite reads when it opens it, that it
reserves the bytes. That fixes the page size as well, so it is not the first choice.
"""

from __future__ import annotations

import weakref

import apsw

from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.torn import GuardedCursor
from heliosvfs.vfs.open_files import files_of

__all__ = ["header_that_reserves", "install", "is_installed", "open_connections"]

# By address of their sqlite3*, which is used again after a close, so that this does not grow. References without a callback: a
# WeakSet's callbacks, run while a connection is deallocated and other threads open more, ended in a segmentation fault.
_connections: dict[int, weakref.ref[apsw.Connection]] = {}


def open_connections() -> list[apsw.Connection]:
    """Return the connections of this process whose main database is ours, closed ones perhaps among them."""
    return [connection for reference in list(_connections.values()) if (connection := reference()) is not None]


def reserve(connection: apsw.Connection) -> None:
    """Reserve the bytes on a new connection whose main database is ours, and have it undo what an interrupt has torn."""
    if files_of(connection):
        if connection.cursor_factory is apsw.Cursor:
            connection.cursor_factory = GuardedCursor
        connection.reserve_bytes("main", RESERVED_BYTES)
        _connections[connection.sqlite3_pointer()] = weakref.ref(connection)


def install() -> None:
    """Have every new connection reserve the bytes."""
    apsw.connection_hooks.append(reserve)


def is_installed() -> bool:
    """Tell whether the hook is still in place: a program may have replaced APSW's list of hooks."""
    return any(getattr(hook, "__module__", "") == __name__ for hook in apsw.connection_hooks)


def header_that_reserves(page_size: int) -> bytes:
    """Return the header of a database that says no more of itself than page size and reserved bytes (SQLite file format 1.3)."""
    header = b"SQLite format 3\0" + (page_size & 0xFFFF or 1).to_bytes(2, "big") + bytes((1, 1, RESERVED_BYTES))
    return (header + bytes((64, 32, 32))).ljust(100, b"\0")
