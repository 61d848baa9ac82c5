"""The VFS itself: routes each file that SQLite opens to the class that seals its kind."""

from __future__ import annotations

import os
import threading
import time

import apsw

from heliosvfs.errors import KeyUnavailableError, RefusedWriteError, UsageError
from heliosvfs.keyring import Keyring
from heliosvfs.locks import ProcessLock
from heliosvfs.vfs.creation import no_key_for
from heliosvfs.vfs.credentials import names
from heliosvfs.vfs.database import DatabaseFile
from heliosvfs.vfs.journal import JournalFile
from heliosvfs.vfs.temporary import TemporaryFile
from heliosvfs.vfs.wal import WalFile

__all__ = ["HeliosVFS", "refuse_to_create"]

_SUFFIXES = {apsw.SQLITE_OPEN_MAIN_JOURNAL: "-journal", apsw.SQLITE_OPEN_WAL: "-wal"}


_OK_SYMLINK = 512  # SQLITE_OK_SYMLINK: all is well, and a symbolic link was followed
_registered: dict[str, Keyring] = {}  # keyrings of the VFSs of this class, by name
_lock = ProcessLock()  # over the lists of open files


def refuse_to_create(where: str, vfs: str) -> None:
    """Refuse a name that nobody has a key for, while the file is not there: SQLite makes it, empty, before anything is asked.

    What a URI with options asks for is found out when it is opened.

    Args:
        where: Name or URI of a database that is about to be opened without a key.
        vfs: The VFS.

    Raises:
        KeyUnavailableError: The VFS has no key for it either.
    """
    keyring = _registered.get(vfs)
    path = next(names(where))
    if keyring is not None and not keyring.has_default and "?" not in where and not os.path.lexists(path):
        raise no_key_for(path)


class _Active(threading.local):
    """The database file that SQLite, in this thread, turned to last before it could open a journal or WAL.

    That is noted where it takes a lock, looks for a hot journal (hasHotJournal: xCheckReservedLock) or asks, right before it
    makes a journal, whether the file was moved (databaseIsUnmoved: FCNTL_HAS_MOVED).
    """

    file: DatabaseFile | None = None


class HeliosVFS(apsw.VFS):
    """An encrypting VFS that stacks on any registered VFS.

    Keep a reference to the instance while it is registered. Names are process-wide.

    Args:
        name: Name to register, for ``apsw.Connection(path, vfs=name)``.
        base: Name of the VFS underneath; "" is the default VFS of this moment, resolved at once.
        keyring: Keys for databases that are opened without one; None: an empty keyring.

    Attributes:
        active: The database file that each thread turned to last.
    """

    def __init__(self, name: str = "heliosvfs", base: str = "", keyring: Keyring | None = None) -> None:
        """Register the VFS."""
        # resolved now: left open, "" would be ourselves as soon as we are made the default, and recurse
        self.base = base or apsw.vfs_names()[0]
        if self.base in _registered or self.base == name:
            msg = f"{name} over {self.base}: pages would be sealed twice, or for ever; name the VFS underneath"
            raise UsageError(msg)
        self.name = name
        self.keyring = keyring if keyring is not None else Keyring()
        self._open: dict[str, list[DatabaseFile]] = {}
        self.active = _Active()
        super().__init__(name, self.base)
        _registered[name] = self.keyring

    def unregister(self) -> None:
        """Take the VFS out of SQLite's list; connections that are open stay open."""
        _registered.pop(self.name, None)
        super().unregister()

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        """Open a file; see `apsw.VFS.xOpen`."""
        if isinstance(name, apsw.URIFilename):
            return DatabaseFile(self, name, flags)
        for kind, suffix in _SUFFIXES.items():
            if flags[0] & kind and name is not None:
                database = self._owner(name.removesuffix(suffix), flags[0])
                return (WalFile if suffix == "-wal" else JournalFile)(self.base, name, flags, database)
        if flags[0] & apsw.SQLITE_OPEN_SUPER_JOURNAL and name is not None:
            return apsw.VFSFile(self.base, name, flags)  # holds the names of other journals, nothing of their content
        return TemporaryFile(self.base, name, flags)

    def xFullPathname(self, name: str) -> str:  # noqa: N802 - SQLite's name
        """Return the absolute path of a file, symbolic links followed: its journal and WAL lie beside what they lead to."""
        try:
            return super().xFullPathname(name)
        except apsw.Error as error:
            if getattr(error, "extendedresult", 0) != _OK_SYMLINK:
                raise
            return os.path.realpath(name)  # the base's answer too, which APSW takes for an error

    def xSleep(self, microseconds: int) -> int:  # noqa: N802 - SQLite's name
        """Wait, without the interpreter's lock."""
        time.sleep(microseconds / 1_000_000)
        return microseconds

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: FBT001, N802 - SQLite's signature
        """Delete a file, unless it may be recovery data of a database that nobody has unlocked."""
        for suffix in _SUFFIXES.values():
            if filename.endswith(suffix):
                with _lock:
                    files = list(self._open.get(filename.removesuffix(suffix), ()))
                if files and all(file.is_locked for file in files):
                    msg = f"{filename} may hold what the database needs to recover, and the database is locked"
                    raise KeyUnavailableError(msg)
        super().xDelete(filename, syncdir)

    def opened(self, file: DatabaseFile) -> None:
        """Note an open database file, so that its journal and WAL find it."""
        with _lock:
            self._open.setdefault(file.path, []).append(file)

    def closed(self, file: DatabaseFile) -> None:
        """Forget a database file."""
        with _lock:
            files = self._open.get(file.path, [])
            if file in files:
                files.remove(file)
            if not files:
                self._open.pop(file.path, None)
        if self.active.file is file:
            self.active.file = None

    def page_size_at_hand(self) -> int:
        """Return the page size of the database that this thread used last, else SQLite's default."""
        active = self.active.file
        return (active.page_size_in_force() if active is not None else 0) or 4096

    def _owner(self, path: str, flags: int) -> DatabaseFile:
        """Return the open file whose journal or WAL this is; several connections may have files open at its path.

        SQLite opens a WAL, and a journal for reading (hasHotJournal), right after it took SHARED: that is the file which this
        thread turned to last. It opens a journal for writing under RESERVED or EXCLUSIVE, which one file at most can hold, but
        perhaps long after it took that lock (pager_open_journal), when other connections have read in this thread.

        Args:
            path: Path of the database.
            flags: SQLITE_OPEN_* of the journal or WAL.

        Raises:
            RefusedWriteError: No file is open and unlocked there.
        """
        with _lock:
            files = self._open.get(path, [])[::-1]
        active, journal = self.active.file, apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_READWRITE
        writers = [file for file in files if flags & journal == journal and file.lock_level >= apsw.SQLITE_LOCK_RESERVED]
        candidates = writers or files  # with nolock=1 nobody writes under a lock; over a base VFS without locks several may
        if active is not None and active in candidates:
            return active
        for file in candidates:
            if not file.is_locked:
                return file
        msg = f"{path}: a journal or WAL is opened before its database is unlocked"
        raise RefusedWriteError(msg)
