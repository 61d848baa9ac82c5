"""Locks of this process that are free in a child process, whatever other threads held at the fork."""

from __future__ import annotations

import os
import threading

__all__ = ["ProcessLock"]


class ProcessLock:
    """A reentrant lock for ``with``; make one per module, for as long as the process lives.

    A forked child has only the thread that forked. A lock that another thread held would stay locked there for ever.
    """

    def __init__(self) -> None:
        """Make it, free."""
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._free)

    def __enter__(self) -> None:
        """Wait for the lock and take it."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        """Give it up."""
        self._lock.release()

    def _free(self) -> None:
        """Replace the lock if a thread holds it that was not copied into this child; the forking thread keeps its own."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = threading.RLock()
