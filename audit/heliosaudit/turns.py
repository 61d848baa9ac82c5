"""Whose turn it is on a connection that threads share (AUDIT.md, "Threads").

A statement and its event are several calls of SQLite, so other threads wait for them all: APSW alone would refuse whichever comes
second. What one call takes and another gives back stays taken where an exception comes in between, as KeyboardInterrupt may
anywhere. So whoever waits looks now and then whether the thread that has the turn is within a call of ours, and takes it over if
it is not.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import apsw

__all__ = ["Turn", "closes_within_call"]

_PATIENCE = 5  # seconds
_PAUSE = 0.01  # seconds after which it is looked whether the turn was left behind
_WRAPPERS = frozenset({"execute", "executemany", "__next__", "fetchone"})  # of the cursor: they call what takes the turn
_PACKAGE = __name__.partition(".")[0]


class Turn:
    """A lock whose owner may enter it again, and which is not lost with an exception.

    Attributes:
        owner: The thread that has it; 0: none.
    """

    def __init__(self) -> None:
        self.owner = 0
        self._mutex = threading.RLock()  # of what follows, and of who becomes its owner; nobody waits while holding it
        self._queue: deque[tuple[int, threading.Lock]] = deque()  # who waits, and what each waits for
        self._kept: list[bool] = []  # what `acquire` found

    @property
    def is_mine(self) -> bool:
        """Whether this thread has it."""
        return self.owner == threading.get_ident()

    def enter(self) -> bool:
        """Take it; returns whether this thread has had it before.

        Raises:
            apsw.ThreadingViolationError: Another thread has it, and keeps it.
        """
        thread = threading.get_ident()
        if self.owner == thread:
            if not self._queue or self._kept or _is_nested():
                return True
            self.leave(False)  # noqa: FBT003 - an exception left it to this thread, and others wait
        with self._mutex:
            if not self.owner:
                self.owner = thread
                return False
        if self._wait(thread, _PATIENCE):
            return False
        msg = f"another thread has used this audited connection for {_PATIENCE} seconds: give each thread its own"
        raise apsw.ThreadingViolationError(msg)

    def leave(self, was: bool) -> None:  # noqa: FBT001 - what enter() returned
        """Give it back: to the thread that has waited longest, or it might wait for ever beside one that never rests."""
        if was:
            return
        with self._mutex:
            if not self._queue:
                self.owner = 0
                return
            self.owner, baton = self._queue.popleft()
            baton.release()

    def acquire(self, *, timeout: float) -> bool:
        """Take it for longer than a call of ours lasts; returns whether that was possible."""
        thread = threading.get_ident()
        was = self.owner == thread
        if was or self._wait(thread, timeout):
            self._kept.append(was)
            return True
        return False

    def release(self) -> None:
        """Give back what `acquire` took."""
        self.leave(self._kept.pop())

    @contextmanager
    def closed(self) -> Iterator[bool]:
        """Keep other threads from taking it; yields whether it was free."""
        with self._mutex:
            is_free = not self.owner
            if is_free:
                self.owner = threading.get_ident()
        try:
            yield is_free
        finally:
            self.leave(not is_free)

    def _wait(self, thread: int, seconds: float) -> bool:
        """Wait until it is given to this thread, or was left behind; returns whether this thread has it now."""
        end = time.monotonic() + seconds
        baton = threading.Lock()
        baton.acquire()
        place = (thread, baton)
        self._queue.append(place)
        try:
            while True:
                with self._mutex:
                    if not self.owner or self.owner == thread or self._is_left_behind(thread):
                        self.owner = thread
                        return True
                if time.monotonic() >= end:
                    break
                baton.acquire(timeout=_PAUSE)
        finally:
            with self._mutex, contextlib.suppress(ValueError):
                self._queue.remove(place)
        return self.owner == thread

    def _is_left_behind(self, heir: int) -> bool:
        """Tell whether an exception has ended its owner's call in the middle of taking it, or of giving it back."""
        owner = self.owner
        if self._kept or _is_within(owner):
            return False
        self.owner = heir  # from now on its owner waits like anybody else, unless it has just begun another call
        if _is_within(owner):
            self.owner = owner
            return False
        return True


def _is_nested() -> bool:
    """Tell whether the call that asks for the turn may have been made within another of ours."""
    frame: FrameType | None = sys._getframe(3)  # noqa: SLF001 - what called the one that calls `enter`
    while frame is not None and frame.f_code.co_name in _WRAPPERS and _is_ours(frame):
        frame = frame.f_back
    return _is_any_ours(frame)


def closes_within_call() -> bool:
    """Tell whether what closes a connection was called within a call of ours, by a function of the application's, say."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - CPython's way of asking
    while frame is not None and _is_ours(frame) and frame.f_code.co_name in ("close", "__del__"):
        frame = frame.f_back
    return _is_any_ours(frame)


def _is_within(thread: int) -> bool:
    """Tell whether a thread is within a call of ours."""
    return _is_any_ours(sys._current_frames().get(thread))  # noqa: SLF001 - CPython's way of asking, which APSW runs on alone


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == _PACKAGE


def _is_any_ours(frame: FrameType | None) -> bool:
    """Tell whether a frame is of our code, or any that led to it."""
    while frame is not None:
        if _is_ours(frame):
            return True
        frame = frame.f_back
    return False
