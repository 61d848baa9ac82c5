"""A base VFS that writes down every operation on the files of a database, in the order in which they reached it.

It stacks on the real "unix" VFS, so shared memory and locks are real. Syncs are written down but not passed on: the
crash is made from the log (disks.py), never from the real disk. Temporary files and shared memory do not outlive a
crash and are left out.
"""

from __future__ import annotations

import os.path
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import apsw

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Create", "Delete", "Log", "Operation", "RecordingVFS", "Sync", "SyncDirectory", "Truncate", "Write"]

_SYNCS_DIRECTORY = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
_LASTING = _SYNCS_DIRECTORY | apsw.SQLITE_OPEN_MAIN_DB


@dataclass(frozen=True)
class Create:
    """A name that did not exist was given to a new, empty file."""

    inode: int
    name: str


@dataclass(frozen=True)
class Write:
    """Bytes were written at an offset."""

    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    """The size was set."""

    inode: int
    size: int


@dataclass(frozen=True)
class Sync:
    """Content and size of a file became durable, its name did not."""

    inode: int
    name: str


@dataclass(frozen=True)
class Delete:
    """A name was removed from the directory."""

    name: str


@dataclass(frozen=True)
class SyncDirectory:
    """All names became durable."""


Operation: TypeAlias = "Create | Write | Truncate | Sync | Delete | SyncDirectory"


@dataclass
class Log:
    """What happened to the files of one directory.

    Attributes:
        base: Files that were on the disk before the first operation, by name.
        operations: Everything since then.
        names: The present number of each file, an inode number of our own.
    """

    base: Mapping[str, bytes] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    names: dict[str, int] = field(init=False)
    files: int = field(init=False)

    def __post_init__(self) -> None:
        """Number the files that were there before."""
        self.names = {name: number for number, name in enumerate(self.base)}
        self.files = len(self.names)

    def __len__(self) -> int:
        """Return the number of operations so far, which is also the crash point right now."""
        return len(self.operations)

    def opened(self, name: str, *, existed: bool) -> int:
        """Return the number of the file that was just opened, after noting its creation."""
        if not existed:
            self.names[name] = self.files
            self.operations.append(Create(self.files, name))
            self.files += 1
        return self.names[name]

    def deleted(self, name: str, *, sync_directory: bool) -> None:
        """Note that a name was removed."""
        if self.names.pop(name, None) is not None:
            self.operations.append(Delete(name))
        if sync_directory:
            self.operations.append(SyncDirectory())


class RecordingVFS(apsw.VFS):
    """The recording VFS; what is done while ``log`` is None passes unrecorded.

    Attributes:
        log: Where operations are noted.
        name: The name that it is registered under.
        psow: Whether the device claims POWERSAFE_OVERWRITE: a write never harms bytes beside its own.
    """

    def __init__(self, name: str) -> None:
        """Register the VFS under a name."""
        self.log: Log | None = None
        self.psow = True
        self.name = name
        super().__init__(name, "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> RecordingFile:
        """Open a file, noting its creation."""
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        wanted = flags[0]
        existed = path is not None and os.path.exists(path)
        file = RecordingFile("unix", name, flags)
        file.vfs = self
        if self.log is not None and path is not None and wanted & _LASTING and not wanted & apsw.SQLITE_OPEN_DELETEONCLOSE:
            file.name = os.path.basename(path)
            file.log = self.log
            file.inode = self.log.opened(file.name, existed=existed)
            # os_unix.c does the same: the first sync of a journal or WAL opened for creation syncs its directory too
            file.directory_sync_due = bool(wanted & apsw.SQLITE_OPEN_CREATE and wanted & _SYNCS_DIRECTORY)
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Delete a file and note it."""
        super().xDelete(filename, False)
        if self.log is not None:
            self.log.deleted(os.path.basename(filename), sync_directory=syncdir)


class RecordingFile(apsw.VFSFile):
    """An open file that notes what is done to it."""

    vfs: RecordingVFS
    log: Log | None = None
    name = ""
    inode = -1
    directory_sync_due = False

    def xWrite(self, data: bytes, offset: int) -> None:
        """Write, then note it."""
        super().xWrite(data, offset)
        if self.log is not None:
            self.log.operations.append(Write(self.inode, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        """Truncate, then note it."""
        super().xTruncate(newsize)
        if self.log is not None:
            self.log.operations.append(Truncate(self.inode, newsize))

    def xSync(self, flags: int) -> None:  # noqa: ARG002 - SQLite's signature
        """Note the sync; the real disk is not asked, since only the log counts."""
        if self.log is not None:
            self.log.operations.append(Sync(self.inode, self.name))
            if self.directory_sync_due:
                self.log.operations.append(SyncDirectory())
                self.directory_sync_due = False

    def xDeviceCharacteristics(self) -> int:
        """Claim POWERSAFE_OVERWRITE or nothing."""
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE if self.vfs.psow else 0
