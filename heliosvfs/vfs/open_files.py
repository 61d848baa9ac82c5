"""The database files that are open in this process, and to which connection each belongs."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import apsw

from heliosvfs.locks import ProcessLock

if TYPE_CHECKING:
    from heliosvfs.vfs.database import DatabaseFile

__all__ = ["add", "connection_count", "discard", "files_at", "files_of", "is_copy_of_vacuum", "is_open"]

_files: set[DatabaseFile] = set()
_inherited: set[DatabaseFile] = set()  # of the process that this one was forked from
_lock = ProcessLock()


def files_of(connection: apsw.Connection) -> list[DatabaseFile]:
    """Return the open heliosvfs files of a connection, in the order in which they were opened."""
    return files_at(connection.sqlite3_pointer())


def files_at(pointer: int) -> list[DatabaseFile]:
    """Return the open files of the connection whose ``sqlite3*`` is at an address."""
    with _lock:
        files = [file for file in _files if file.connection_pointer == pointer]
    return sorted(files, key=lambda file: file.opened_as)


def is_copy_of_vacuum(pointer: int, path: str) -> bool:
    """Tell whether the connection whose ``sqlite3*`` is at an address has a file attached for VACUUM INTO (sqlite3RunVacuum)."""
    for connection in apsw.connections():
        with contextlib.suppress(apsw.Error):  # another one, closed or in use by another thread
            if connection.sqlite3_pointer() == pointer:
                return any(name.startswith("vacuum_") and connection.db_filename(name) == path for name in connection.db_names())
    return False


def connection_count() -> int:
    """Return how many connections of this process have such files open."""
    with _lock:
        return len({file.connection_pointer for file in _files - _inherited})


def is_open(file: DatabaseFile) -> bool:
    """Tell whether a file was not closed yet."""
    with _lock:
        return file in _files


def add(file: DatabaseFile) -> None:
    """Note an open file."""
    with _lock:
        _files.add(file)


def discard(file: DatabaseFile) -> None:
    """Forget a file that is being closed."""
    with _lock:
        _files.discard(file)
        _inherited.discard(file)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _inherited.update(_files))
