"""Make SQLite leave room for the seals: 32 bytes at the end of each page of a new database.

A hook does it for every connection that APSW makes, which leaves the page size open until the first write. A program may have
replaced `apsw.connection_hooks`; then an empty file says of itself, in the header that SQLite reads when it opens it, that it
reserves the bytes. That fixes the page size as well, so it is not the first choice.
"""

from __future__ import annotations

import weakref

import apsw

from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.vfs.database import files_of

__all__ = ["connections", "install"]

connections: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
"""Connections of this process whose main database is ours."""


def reserve(connection: apsw.Connection) -> None:
    """Reserve the bytes on a new connection whose main database is ours."""
    if files_of(connection):
        connection.reserve_bytes("main", RESERVED_BYTES)
        connections.add(connection)


def install() -> None:
    """Have every new connection reserve the bytes."""
    apsw.connection_hooks.append(reserve)
