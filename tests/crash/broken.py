"""Disks and layers that lose data on purpose: what the simulator must notice."""

from __future__ import annotations

import contextlib

import apsw

__all__ = ["DeafVFS", "EarlyVFS", "ForgetfulVFS", "HoldingVFS", "LyingVFS"]


class _LayerVFS(apsw.VFS):
    """A VFS on the recorder whose files are of one broken class."""

    file_class: type[_LayerFile]

    def __init__(self, name: str, base: str) -> None:
        self.base = base
        super().__init__(name, base)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        kind = flags[0]
        file = self.file_class(self.base, name, flags)
        file.vfs, file.kind = self, kind
        file.path = (name.filename() if isinstance(name, apsw.URIFilename) else name) or ""
        return file


class _LayerFile(apsw.VFSFile):
    vfs: _LayerVFS
    kind: int
    path: str


class _DeafFile(_LayerFile):
    def xSync(self, flags: int) -> None:
        pass


class DeafVFS(_LayerVFS):
    """Ignores every sync of a file."""

    file_class = _DeafFile


class _EarlyFile(_LayerFile):
    def xSync(self, flags: int) -> None:
        if self.kind & apsw.SQLITE_OPEN_MAIN_DB:
            with contextlib.suppress(apsw.IOError):
                self.vfs.xDelete(self.path + "-journal", True)
        super().xSync(flags)


class EarlyVFS(_LayerVFS):
    """Deletes the rollback journal before the database is synced, not after."""

    file_class = _EarlyFile

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Delete, unless that was done too early."""
        with contextlib.suppress(apsw.IOError):
            super().xDelete(filename, syncdir)


class _ForgetfulFile(_LayerFile):
    pass


class ForgetfulVFS(_LayerVFS):
    """Does not sync the directory after deleting a journal, though EXTRA asked for it."""

    file_class = _ForgetfulFile

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: ARG002 - SQLite's signature
        """Delete without the sync."""
        super().xDelete(filename, False)


class _HoldingFile(_LayerFile):
    vfs: HoldingVFS

    def xWrite(self, data: bytes, offset: int) -> None:
        self.vfs.release()
        if self.kind & apsw.SQLITE_OPEN_WAL:
            self.vfs.held = self, bytes(data), offset
        else:
            super().xWrite(data, offset)

    def write_held(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)

    def xRead(self, amount: int, offset: int) -> bytes:
        self.vfs.release()
        return super().xRead(amount, offset)

    def xFileSize(self) -> int:
        self.vfs.release()
        return super().xFileSize()

    def xSync(self, flags: int) -> None:
        self.vfs.release()
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:
        self.vfs.release()
        super().xTruncate(newsize)

    def xClose(self) -> None:
        self.vfs.release()
        super().xClose()


class HoldingVFS(_LayerVFS):
    """Holds each write to the WAL back until the next call: harmless unless the process dies right after COMMIT."""

    file_class = _HoldingFile
    held: tuple[_HoldingFile, bytes, int] | None = None

    def release(self) -> None:
        """Make the write that was held back."""
        if self.held is not None:
            file, data, offset = self.held
            self.held = None
            file.write_held(data, offset)


class _LyingFile(_LayerFile):
    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE


class LyingVFS(_LayerVFS):
    """Claims POWERSAFE_OVERWRITE whatever the disk does."""

    file_class = _LyingFile
