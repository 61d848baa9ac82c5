"""The activity log: a second stream of key and encryption events, to a file (docs/MONITORING.md).

It is for what can't be recorded inside the encrypted database: failed unlocks, key sources that gave nothing, damaged pages. One
line a notice, JSON, written whole with O_APPEND, so that processes can share a file; a file that was moved away or cut short, as
logrotate does, is noticed and made anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import warnings
from datetime import datetime, timezone

from heliosvfs import notices
from heliosvfs.errors import UsageError
from heliosvfs.notices import Notice

__all__ = ["ActivityLog", "ActivityLogWarning", "open_log"]

_ENCRYPTION = frozenset({"CREATE", "KEYS CHANGED", "BACKUP", "RESTORE"})


class ActivityLogWarning(UserWarning):
    """The activity log can't be written now; what it should say is lost, and counted."""


class ActivityLog:
    """Writes notices to a file.

    Attributes:
        path: The file.
        lost: How many lines could not be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, encryption_operations: bool = True, verbose: bool = False) -> None:
        """Open the file, or make it, readable for its owner alone.

        Args:
            path: The file.
            encryption_operations: Write creations, changes of keys and backups too, and not only what failed.
            verbose: Write each unlock that succeeded, too.

        Raises:
            UsageError: The file can't be opened for writing.
        """
        self.path = os.path.abspath(path)
        self.lost = 0
        self._encryption_operations = encryption_operations
        self._verbose = verbose
        self._lock = threading.Lock()
        self._file = -1
        try:
            self._open()
        except OSError as error:
            msg = f"the activity log {self.path} can't be written: {error.strerror}"
            raise UsageError(msg) from None

    def _open(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)

    def _wants(self, notice: Notice) -> bool:
        if not notice.success:
            return True
        return self._verbose or (self._encryption_operations and notice.operation in _ENCRYPTION)

    def __call__(self, notice: Notice) -> None:
        """Write a notice, if it is of a kind that is wanted."""
        if self._wants(notice):
            self.write(notice)

    def write(self, notice: Notice) -> None:
        """Write a notice; where that is not possible, warn and count it."""
        document = {
            "time": datetime.now(timezone.utc).isoformat(timespec="microseconds"),
            "operation": notice.operation,
            "path": notice.path,
            "success": notice.success,
            "error": notice.error,
            "pid": os.getpid(),
            **({"details": notice.details} if notice.details else {}),
        }
        line = json.dumps(document, ensure_ascii=True, default=str).encode() + b"\n"
        try:
            with self._lock:
                if self._was_moved():
                    self._open()
                os.write(self._file, line)
        except OSError as error:
            self.lost += 1
            warnings.warn(f"the activity log {self.path} can't be written: {error.strerror}", ActivityLogWarning, stacklevel=2)

    def _was_moved(self) -> bool:
        """Tell whether the file that is open is no longer the one of that name."""
        try:
            there, ours = os.stat(self.path), os.fstat(self._file)
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def close(self) -> None:
        """Close the file, and listen no more."""
        notices.unlisten(self)
        with self._lock, contextlib.suppress(OSError):
            if self._file >= 0:
                os.close(self._file)
            self._file = -1


_open_logs: dict[str, ActivityLog] = {}


def open_log(path: str | os.PathLike[str], *, encryption_operations: bool = True, verbose: bool = False) -> ActivityLog:
    """Log to a file from now on, in this process; a file that is logged to already is not logged to twice.

    Args:
        path: The file.
        encryption_operations: See `ActivityLog`.
        verbose: See `ActivityLog`.

    Raises:
        UsageError: The file can't be opened for writing.
    """
    where = os.path.abspath(path)
    known = _open_logs.get(where)
    if known is not None:
        known.close()
    log = _open_logs[where] = ActivityLog(where, encryption_operations=encryption_operations, verbose=verbose)
    notices.listen(log)
    return log
