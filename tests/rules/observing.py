"""A base VFS that tells what reaches the files beneath ours, and fails where a test wants it to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import apsw

import heliosvfs

__all__ = ["Event", "ObservingVFS", "observed"]


@dataclass(frozen=True)
class Event:
    """One call: what, on which file ("main", "-wal", "-journal", "temporary"), and where."""

    what: str
    file: str
    offset: int = 0
    data: bytes = b""


class _ObservingFile(apsw.VFSFile):
    def __init__(self, vfs: ObservingVFS, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._vfs = vfs
        self._kind = "temporary"
        for kind, flag in (
            ("main", apsw.SQLITE_OPEN_MAIN_DB),
            ("-wal", apsw.SQLITE_OPEN_WAL),
            ("-journal", apsw.SQLITE_OPEN_MAIN_JOURNAL),
        ):
            if flags[0] & flag:
                self._kind = kind
        super().__init__(vfs.base, name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._vfs.note(Event("read", self._kind, offset))
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._vfs.note(Event("write", self._kind, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._vfs.note(Event("truncate", self._kind, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        self._vfs.note(Event("sync", self._kind))
        super().xSync(flags)

    def xFileSize(self) -> int:
        self._vfs.note(Event("size", self._kind))
        return super().xFileSize()

    def xClose(self) -> None:
        self._vfs.note(Event("close", self._kind))
        super().xClose()


class ObservingVFS(apsw.VFS):
    """See the module; `before` is called with each event and may raise."""

    def __init__(self, name: str, base: str = "unix") -> None:
        self.base = base
        self.events: list[Event] = []
        self.before: Callable[[Event], None] | None = None
        super().__init__(name, base)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _ObservingFile(self, name, flags)

    def note(self, event: Event) -> None:
        """Write an event down, and fail if the test says so."""
        if self.before is not None:
            self.before(event)
        self.events.append(event)

    def writes(self, file: str = "main") -> list[Event]:
        """Return the writes and syncs of one kind of file so far."""
        return [event for event in self.events if event.file == file and event.what in ("write", "sync")]


@contextmanager
def observed(keyring: heliosvfs.Keyring | None = None) -> Iterator[tuple[ObservingVFS, str]]:
    """Give the observer and the name of a VFS of ours that stacks on it."""
    base = ObservingVFS("observed")
    vfs = heliosvfs.HeliosVFS("over-observed", base="observed", keyring=keyring)
    try:
        yield base, vfs.name
    finally:
        base.before = None
        vfs.unregister()
        base.unregister()
