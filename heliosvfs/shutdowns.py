"""An orderly end on SIGTERM, as containers ask for: events written, WAL checkpointed, databases closed, all within a time.

A transaction that is open is rolled back, which is what would become of it without this, too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import apsw

from heliosvfs.errors import UsageError
from heliosvfs.vfs import reserving

__all__ = ["close_all", "install"]

_installed: dict[str, Any] = {}


def install(timeout: float) -> None:
    """Close all databases of this process when it gets SIGTERM, then do what was done before: by default, die of it.

    Args:
        timeout: Seconds that closing may take; the shortest that was asked for counts.

    Raises:
        UsageError: It was not called in the main thread, where Python handles signals.
    """
    if "timeout" in _installed:
        _installed["timeout"] = min(timeout, _installed["timeout"])
        return
    if threading.current_thread() is not threading.main_thread():
        msg = "container.enable_shutdown_on_signal: open the first connection in the main thread, where Python handles signals"
        raise UsageError(msg)
    _installed["timeout"] = timeout
    _installed["before"] = signal.signal(signal.SIGTERM, _on_signal)


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, _installed["before"])  # for the end of this, and for whoever sends it twice
    # The handler runs between two bytecodes of the main thread, perhaps within a call of SQLite's: there nothing can be closed.
    # So another thread does it, and the main thread goes on to where its statement is interrupted.
    threading.Thread(target=_end, name="heliosvfs shutdown", daemon=True).start()


def _end() -> None:
    close_all(_installed["timeout"])
    os.kill(os.getpid(), signal.SIGTERM)


def close_all(timeout: float) -> int:
    """Write what waits, checkpoint and close every connection of this process.

    Args:
        timeout: Seconds that it may take; what is busy for longer is left as a crash would leave it, which is safe.

    Returns:
        How many connections could not be closed.
    """
    deadline = time.monotonic() + timeout
    waiting = list(reserving.open_connections())
    for connection in waiting:
        with contextlib.suppress(apsw.Error):
            connection.interrupt()
    while waiting and time.monotonic() < deadline:
        waiting = [connection for connection in waiting if not _closed(connection)]
        if waiting:
            time.sleep(0.01)
    return len(waiting)


def _closed(connection: apsw.Connection) -> bool:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        with contextlib.suppress(apsw.BusyError, apsw.LockedError):
            connection.wal_checkpoint()
        connection.close()
    except apsw.ConnectionClosedError:
        return True
    except Exception:  # noqa: BLE001 - in use, or its log can't be written yet: asked again until the time is over
        return False
    return True
