"""An orderly end on SIGTERM, as containers ask for: events written, WAL checkpointed, databases closed, all within a time.

Python runs a signal handler in the main thread between two bytecodes, perhaps within a call of SQLite's, where nothing can be
closed, and not at all while the main thread is in C. So a thread that waits for nothing else closes the connections; it is woken
through a pipe by the handler, or sooner by Python's own C handler (`signal.set_wakeup_fd`).

A transaction that is open is rolled back by closing its connection, and never before that: the thread that it belongs to would
go on with its next statement outside of it.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import signal
import sys
import threading
import time
import weakref
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import apsw

from heliosaudit.connections import Audited
from heliosaudit.errors import AuditWriteError
from heliosvfs import metrics
from heliosvfs.errors import UsageError
from heliosvfs.notices import tell
from heliosvfs.vfs import reserving

__all__ = ["close_all", "install"]

_PAUSE = 0.001  # seconds between two tries to close what is in use
_PATIENCE = 0.1  # seconds that a try waits for an audited statement to end
_SWITCH = 1e-5  # seconds: with the usual 5 ms a thread that does nothing but SQL gives way only while it is within SQLite
_HANDLED = 255  # written to the pipe by the handler; Python's own C handler writes numbers of signals
_INIT = 1  # process id of the first process in a container, which dies of no signal that it does not handle


@dataclass
class _Installed:
    timeout: float
    before: Any  # the handler that was there
    pipe: int = -1  # end to write to; -1: nobody reads
    has_begun: bool = False
    has_ended: bool = False
    is_restored: threading.Event = field(default_factory=threading.Event)  # the handler has run, and put `before` back
    is_over: threading.Event = field(default_factory=threading.Event)  # the signal was sent again


_installed: _Installed | None = None
_inherited: list[weakref.ref[apsw.Connection]] = []  # connections of the process that this one was forked from


def install(timeout: float) -> None:
    """Close all databases of this process when it gets SIGTERM, then do what was done before: by default, die of it.

    Whoever sets another handler later takes over, and may call `close_all`.

    Args:
        timeout: Seconds that closing may take; the shortest that was asked for counts.

    Raises:
        UsageError: It was not called in the main thread, where Python handles signals.
    """
    global _installed  # noqa: PLW0603 - there is one SIGTERM
    if _installed is not None:
        _installed.timeout = min(timeout, _installed.timeout)
        if _installed.pipe < 0 and threading.current_thread() is threading.main_thread():  # in a forked child
            _listen(_installed)
        return
    if threading.current_thread() is not threading.main_thread():
        msg = "container.enable_shutdown_on_signal: open the first connection in the main thread, where Python handles signals"
        raise UsageError(msg)
    before = signal.getsignal(signal.SIGTERM)
    # None is a handler that is not Python's, and can't be put back by Python
    _installed = _Installed(timeout, signal.SIG_DFL if before is None else before)
    _listen(_installed)
    signal.signal(signal.SIGTERM, _on_signal)
    atexit.register(_wait_for_end, _installed)


def _listen(installed: _Installed) -> None:
    if sys.platform == "win32":  # where Python wakes sockets alone, and SIGTERM comes from nobody but this process
        return
    reader, installed.pipe = os.pipe()
    os.set_blocking(installed.pipe, False)
    threading.Thread(target=_wait, args=(reader, installed), name="heliosvfs shutdown", daemon=True).start()
    others = signal.set_wakeup_fd(installed.pipe, warn_on_full_buffer=False)
    if others != -1:  # an event loop's: then the handler alone wakes us
        signal.set_wakeup_fd(others)


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    installed = _installed
    assert installed is not None  # noqa: S101 - install made it
    signal.signal(signal.SIGTERM, installed.before)  # for the end of this, and for whoever sends it twice
    installed.is_restored.set()
    if installed.has_ended:  # the main thread was in C all the time
        os.kill(os.getpid(), signal.SIGTERM)
    elif installed.pipe >= 0:
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(installed.pipe, bytes([_HANDLED]))
    else:
        _thread.start_new_thread(_end, (installed,))  # a Thread would take locks that the main thread may hold


def _wait(reader: int, installed: _Installed) -> None:
    while True:
        numbers = os.read(reader, 64)
        is_ours = signal.SIGTERM in numbers and signal.getsignal(signal.SIGTERM) is _on_signal
        if is_ours or _HANDLED in numbers or not numbers:
            break
    if numbers:
        _end(installed)


def _end(installed: _Installed) -> None:
    if installed.has_begun:
        return
    installed.has_begun = True
    deadline = time.monotonic() + installed.timeout
    closing = threading.Thread(target=_close_and_tell, args=(installed.timeout,), name="heliosvfs closing", daemon=True)
    closing.start()
    closing.join(installed.timeout)  # it may be waiting for a lock
    installed.has_ended = True
    if installed.is_restored.wait(max(deadline - time.monotonic(), 0.0)):
        os.kill(os.getpid(), signal.SIGTERM)
        if installed.before == signal.SIG_DFL and os.getpid() == _INIT:
            os._exit(128 + signal.SIGTERM)
    elif installed.before == signal.SIG_DFL:  # the main thread is in C, and the time is over; status as a shell gives it
        os._exit(128 + signal.SIGTERM)
    installed.is_over.set()


def _close_and_tell(timeout: float) -> None:
    close_all(timeout)
    metrics.write_last()


def _wait_for_end(installed: _Installed) -> None:
    """Let a main thread whose statement was interrupted, and that ends of it, not be faster than the signal."""
    if installed.has_begun:
        installed.is_over.wait(installed.timeout)


def close_all(timeout: float) -> int:
    """Write what waits, checkpoint and close every connection of this process.

    What another thread is just doing is waited for; a statement of an audited connection outside of a transaction is interrupted.

    Args:
        timeout: Seconds that it may take; what is busy for longer is left as a crash would leave it, which is safe.

    Returns:
        How many connections could not be closed.
    """
    deadline = time.monotonic() + timeout
    lost: list[AuditWriteError] = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        left = _close_until(deadline, lost)
    finally:
        sys.setswitchinterval(interval)
    tell("SHUTDOWN", error=lost[0] if lost else TimeoutError() if left else None, left_open=left)
    return left


def _close_until(deadline: float, lost: list[AuditWriteError]) -> int:
    """Close connections; return how many are left when the time is over."""
    while True:
        inherited = [reference() for reference in _inherited]
        there = [connection for connection in reserving.open_connections() if connection not in inherited]
        audited = [connection for connection in there if isinstance(connection, Audited)]
        left: list[apsw.Connection] = [connection for connection in audited if not _close(connection, lost)]
        if not left:  # among the others are those of audit logs, which an audited connection needs to its end
            left = [connection for connection in there if not _close(connection, lost)]
        if not left or time.monotonic() >= deadline:
            return len(left)
        time.sleep(_PAUSE)


def _close(connection: apsw.Connection, lost: list[AuditWriteError]) -> bool:
    """Close a connection unless it is in use; tell whether it is closed."""
    auditor = connection.auditor if isinstance(connection, Audited) else None
    if auditor is not None and not auditor.gate.lock.acquire(timeout=_PATIENCE):
        if not auditor.ledger.transactions.frames:  # else it could be continued without what an interrupt would undo
            connection.interrupt()
        return False
    try:
        with contextlib.suppress(apsw.Error):  # it is for the WAL's size: nothing is lost without it
            apsw.Connection.wal_checkpoint(connection)
        connection.close()
    except AuditWriteError as error:  # it is closed all the same
        lost.append(error)
        return True
    except Exception:  # noqa: BLE001 - in use by another thread, most often: tried again until the time is over
        return False
    finally:
        if auditor is not None:
            auditor.gate.lock.release()
    return True


def _forget_parent() -> None:
    """Leave the parent's connections and its thread alone in a forked child."""
    _inherited[:] = [weakref.ref(connection) for connection in reserving.open_connections()]
    if _installed is not None and _installed.pipe >= 0:
        ours, _installed.pipe = _installed.pipe, -1
        with contextlib.suppress(ValueError):
            others = signal.set_wakeup_fd(-1)
            if others not in (-1, ours):
                signal.set_wakeup_fd(others)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
