"""In-memory databases that connections share by name: ``file:NAME?mode=memory&cache=shared``.

sqlite3 shares them by SQLite's shared cache, which APSW's SQLite is compiled without. What shows one connection the commits of
another, and lets it read while another has a transaction open, is a WAL database: here a temporary one, encrypted under a key
that only this process has. It is deleted with the last connection to it; what a crash leaves nobody can read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from heliosvfs.connection import Connection
from heliosvfs.dbapi2 import openings
from heliosvfs.keyring import Key
from heliosvfs.keys import KEY_BYTES, Secret
from heliosvfs.locks import ProcessLock
from heliosvfs.opening import connect

__all__ = ["opened"]

_SHARED = {"mode=memory", "cache=shared"}
_UNNAMED = "file::memory:"

_lock = ProcessLock()
_databases: dict[tuple[int, str], _Shared] = {}


@dataclass
class _Shared:
    """A database that connections share.

    Attributes:
        name: The name that they know it by, and the process that they are in: in a fork it is another database.
        folder: Where it is.
        key: Its key.
        users: How many connections there are, or will be in a moment.
    """

    name: tuple[int, str]
    folder: str
    key: Secret
    users: int = 0

    @property
    def path(self) -> str:
        """The file."""
        return os.path.join(self.folder, "memory.db")

    def release(self) -> None:
        """Give up one connection's share."""
        if os.getpid() != self.name[0]:
            return
        with _lock:
            self.users -= 1
            if not self.users:
                del _databases[self.name]
                shutil.rmtree(self.folder, ignore_errors=True)


def _is_shared(where: str) -> bool:
    name, _, options = where.partition("?")
    given = set(options.split("&"))
    return name.startswith("file:") and "cache=shared" in given and (name == _UNNAMED or given >= _SHARED)


def _shared(where: str) -> _Shared:
    name = os.getpid(), where.partition("?")[0]
    with _lock:
        found = _databases.get(name)
        if found is None:
            found = _Shared(name, tempfile.mkdtemp(prefix="heliosvfs-"), Secret.raw(os.urandom(KEY_BYTES)))
            connect(found.path, key=found.key).close()
            _databases[name] = found
        found.users += 1
    return found


def opened(database: Any, *, uri: bool, key: Key | None, **options: Any) -> tuple[Connection, Callable[[], Any]]:
    """Open a database as `openings.opened` does, or a shared in-memory one; return what is to be called after closing it too."""
    if not (uri and _is_shared(os.fsdecode(database))):
        return openings.opened(database, uri=uri, key=key, **options), _nothing
    shared = _shared(os.fsdecode(database))
    try:
        connection = openings.opened(shared.path, uri=False, key=shared.key, **options)
    except BaseException:
        shared.release()
        raise
    connection.pragma("synchronous", "OFF")  # nothing of it is to survive
    return connection, weakref.finalize(connection, shared.release)


def _nothing() -> None:
    """Nothing is to be done after closing what is not shared."""
