"""The activity log: a second stream of key and encryption events, to a file (docs/MONITORING.md).

It is for what can't be recorded inside the encrypted database: failed unlocks, key sources that gave nothing, damaged pages. One
line a notice, JSON, written by one call with O_APPEND, so that processes can share a file. The file is opened for each line, of
which there are few: so it may be moved away or cut short at any time, as logrotate does, and a fork or a daemon that closes all
its files breaks nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import warnings
from datetime import datetime, timezone

from heliosvfs import notices
from heliosvfs.errors import UsageError
from heliosvfs.locks import ProcessLock
from heliosvfs.notices import Notice

__all__ = ["ActivityLog", "ActivityLogWarning", "lost_lines", "open_log"]

_ENCRYPTION = frozenset({"CREATE", "KEYS CHANGED", "ROTATION STARTED", "ROTATION", "BACKUP", "RESTORE"})
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)


class ActivityLogWarning(UserWarning):
    """The activity log can't be written now; what it should say is lost, and counted."""


class ActivityLog:
    """Writes notices to a file.

    Attributes:
        path: The file.
        lost: How many lines could not be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, encryption_operations: bool = True, verbose: bool = False) -> None:
        """Make the file where there is none, readable for its owner alone.

        Args:
            path: The file.
            encryption_operations: Write creations, changes of keys, rotations and backups too, and not only what failed.
            verbose: Write each unlock that succeeded, too.

        Raises:
            UsageError: The file can't be written.
        """
        self.path = os.path.abspath(path)
        self.lost = 0
        self.encryption_operations = encryption_operations
        self.verbose = verbose
        self._was_cut = False  # the last line was written in part
        try:
            os.close(os.open(self.path, _FLAGS, 0o600))
        except OSError as error:
            msg = f"the activity log {self.path} can't be written: {error.strerror}"
            raise UsageError(msg) from None

    def __call__(self, notice: Notice) -> None:
        """Write a notice, if it is of a kind that is wanted."""
        if not notice.success or self.verbose or (self.encryption_operations and notice.operation in _ENCRYPTION):
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
            self._append(b"\n" + line if self._was_cut else line)
        except OSError as error:
            self.lost += 1
            with contextlib.suppress(ActivityLogWarning):  # where warnings are errors, it is not an unlock that has to fail
                msg = f"the activity log {self.path} can't be written: {error.strerror}"
                warnings.warn(msg, ActivityLogWarning, stacklevel=2)

    def _append(self, line: bytes) -> None:
        file = os.open(self.path, _FLAGS, 0o600)
        try:
            written = os.write(file, line)
        finally:
            os.close(file)
        self._was_cut = 0 < written < len(line)
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Listen no more."""
        notices.unlisten(self)


_lock = ProcessLock()
_logs: dict[str, ActivityLog] = {}


def open_log(path: str | os.PathLike[str], *, encryption_operations: bool = True, verbose: bool = False) -> ActivityLog:
    """Log to a file from now on, in this process; a file that is logged to already gets the wishes of both.

    Args:
        path: The file.
        encryption_operations: See `ActivityLog`.
        verbose: See `ActivityLog`.

    Raises:
        UsageError: The file can't be written.
    """
    made = ActivityLog(path, encryption_operations=encryption_operations, verbose=verbose)
    with _lock:
        log = _logs.setdefault(made.path, made)
        log.encryption_operations |= encryption_operations
        log.verbose |= verbose
    notices.listen(log)
    return log


def lost_lines() -> int:
    """Return how many lines this process could not write, in all its logs."""
    with _lock:
        return sum(log.lost for log in _logs.values())
