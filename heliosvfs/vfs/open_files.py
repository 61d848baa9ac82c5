"""The database files that are open in this process, and to which connection each belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

from heliosvfs.locks import ProcessLock

if TYPE_CHECKING:
    from heliosvfs.vfs.database import DatabaseFile

__all__ = ["add", "discard", "files_at", "files_of"]

_files: set[DatabaseFile] = set()
_lock = ProcessLock()


def files_of(connection: apsw.Connection) -> list[DatabaseFile]:
    """Return the open heliosvfs files of a connection, in the order in which they were opened."""
    return files_at(connection.sqlite3_pointer())


def files_at(pointer: int) -> list[DatabaseFile]:
    """Return the open files of the connection whose ``sqlite3*`` is at an address."""
    with _lock:
        files = [file for file in _files if file.connection_pointer == pointer]
    return sorted(files, key=lambda file: file.opened_as)


def add(file: DatabaseFile) -> None:
    """Note an open file."""
    with _lock:
        _files.add(file)


def discard(file: DatabaseFile) -> None:
    """Forget a file that is being closed."""
    with _lock:
        _files.discard(file)
