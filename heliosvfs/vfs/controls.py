"""The file controls that concern keys and sizes; all others are the base VFS's."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import apsw

from heliosvfs.vfs import pragmas
from heliosvfs.vfs.characteristics import reporting

if TYPE_CHECKING:
    from heliosvfs.vfs.database import DatabaseFile

__all__ = ["ANSWERED", "LOCK_TIMEOUT", "answer", "watching"]

LOCK_TIMEOUT = apsw.SQLITE_FCNTL_LOCK_TIMEOUT  # comes at each read of a WAL database

_SIZES = {apsw.SQLITE_FCNTL_SIZE_HINT, apsw.SQLITE_FCNTL_CHUNK_SIZE}
_PRAGMA = apsw.SQLITE_FCNTL_PRAGMA
_PDB = apsw.SQLITE_FCNTL_PDB
_HAS_MOVED = apsw.SQLITE_FCNTL_HAS_MOVED
_CKPT_START = apsw.SQLITE_FCNTL_CKPT_START
_CKPT_DONE = apsw.SQLITE_FCNTL_CKPT_DONE
_POWERSAFE_OVERWRITE = apsw.SQLITE_FCNTL_POWERSAFE_OVERWRITE

ANSWERED = frozenset({*_SIZES, _PRAGMA, _PDB, _HAS_MOVED, _CKPT_START, _CKPT_DONE, _POWERSAFE_OVERWRITE})


def answer(file: DatabaseFile, op: int, ptr: int) -> bool:
    """Answer a control of `ANSWERED`; see `apsw.VFSFile.xFileControl`."""
    if op == _PRAGMA:
        return pragmas.answer(file, apsw.VFSFcntlPragma(ptr))
    if op in _SIZES:
        return True  # they speak of sizes that the file on disk does not have
    if op == _PDB:
        file.connection_pointer = ctypes.c_void_p.from_address(ptr).value or 0
    elif op == _HAS_MOVED:
        file.vfs.active.file = file  # the journal that SQLite makes next is this file's
    elif op == _CKPT_START:
        file.begin_checkpoint()
    elif op == _CKPT_DONE:
        file.end_checkpoint()
    answered = file.control(op, ptr)
    if op == _POWERSAFE_OVERWRITE:
        file.xDeviceCharacteristics = reporting(file.base_characteristics())  # type: ignore[method-assign]
    return answered


def watching(file: DatabaseFile, begins: Callable[[], None]) -> Callable[[int, int], bool]:
    """Return an xFileControl that calls ``begins`` once, when SQLite begins a read transaction of a WAL database.

    It is for `DatabaseFile.watch_reads`. SQLite tells if it has SQLITE_ENABLE_SETLK_TIMEOUT, as APSW's has (walDisableBlocking).
    """
    usual = partial(type(file).xFileControl, file)

    def control(op: int, ptr: int) -> bool:
        if op != LOCK_TIMEOUT:
            return usual(op, ptr)
        file.watch_reads(None)
        begins()
        return False

    return control
