"""The lock of a reader in rollback mode, which SQLite takes and gives up once for each read transaction: a hot path.

Whoever takes SHARED has nothing to look at: what another process has done concerns writers, or is met on the pages. All else is
`database.DatabaseFile.xLock` and `xUnlock`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from heliosvfs.vfs.database import DatabaseFile

__all__ = ["fast_locks"]

Lock = Callable[[int], None]


def fast_locks(file: DatabaseFile, base: tuple[Lock, Lock], slow: tuple[Lock, Lock]) -> tuple[Lock, Lock]:
    """Return xLock and xUnlock for a file that is unlocked and not empty.

    Args:
        file: The file.
        base: The base VFS's xLock and xUnlock.
        slow: The file's own, which do what a write lock needs.
    """
    base_lock, base_unlock = base
    slow_lock, slow_unlock = slow
    active, none, shared = file.vfs.active, apsw.SQLITE_LOCK_NONE, apsw.SQLITE_LOCK_SHARED

    def lock(level: int) -> None:
        if level != shared or file.lock_level != none:
            slow_lock(level)
            return
        base_lock(level)
        file.lock_level = level
        active.file = file

    def unlock(level: int) -> None:
        if file.lock_level != shared:
            slow_unlock(level)
            return
        base_unlock(level)
        file.lock_level = level

    return lock, unlock
