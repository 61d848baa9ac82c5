"""Which audited connections are open, and which have ended without a word (AUDIT.md, "Gaps").

Each has a row in ``__audit_open`` from its OPEN event to its CLOSE event. A row whose process is gone is a session that was never
closed: a crash, a kill, a power cut. What that session's buffer held is lost, so whoever opens next records a gap, with the most
that it can have been.
"""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Any

import apsw

from heliosaudit import outsiders
from heliosaudit.events import Event, event_of
from heliosaudit.policies import Policy
from heliosaudit.schemas import OPEN
from heliosaudit.sessions import current

__all__ = ["Presence"]

_INSERT = f"INSERT INTO main.{OPEN}(connection, opened, user, host, boot, pid, started, buffer) VALUES(?, ?, ?, ?, ?, ?, ?, ?)"
_ROWS = f"SELECT connection, opened, user, host, boot, pid, started, buffer FROM main.{OPEN}"
_DELETE = f"DELETE FROM main.{OPEN} WHERE connection = ?"


def _boot() -> str:
    """Return what names this run of this machine, "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process began, in the kernel's ticks, so that another with its number is known for another; "": not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_gone(host: str, boot: str, pid: int, started: str) -> bool:
    """Tell whether a process has certainly ended; one on another machine may be alive."""
    if host != socket.gethostname():
        return False
    if boot != _boot():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return bool(started) and _started(pid) != started


class Presence:
    """The row of one connection."""

    def __init__(self, policy: Policy) -> None:
        self._name = secrets.token_hex(8)
        self._buffer = policy.async_buffer_size
        self._is_there = False

    def arrive(self, cursor: apsw.Cursor, opened: str) -> list[Event]:
        """Put the row there, in the transaction that is open; returns events of lost sessions, and of outsiders.

        Args:
            cursor: Of the recorder's connection.
            opened: When the connection was opened.
        """
        gaps: list[Event] = []
        others = 0
        for name, when, user, host, boot, pid, started, buffer in cursor.execute(_ROWS).fetchall():
            if _is_gone(str(host), str(boot), int(pid), str(started)):  # type: ignore[arg-type] # an INTEGER column
                cursor.execute(_DELETE, (name,))
                gaps.append(_gap(name, when, user, pid, buffer))
            else:
                others += 1
        if not gaps and not others:
            gaps += outsiders.compare(cursor)
        outsiders.forget(cursor)
        row = (
            self._name,
            opened,
            current().user,
            socket.gethostname(),
            _boot(),
            os.getpid(),
            _started(os.getpid()),
            self._buffer,
        )
        cursor.execute(_INSERT, row)
        self._is_there = True
        return gaps

    def leave(self, cursor: apsw.Cursor) -> None:
        """Take the row away, in the transaction that is open."""
        if self._is_there:
            cursor.execute(_DELETE, (self._name,))

    def settle(self, cursor: apsw.Cursor) -> None:
        """Note what the file is like, as the last act of the transaction of the last that leaves."""
        if self._is_there and not cursor.execute(f"SELECT count(*) FROM main.{OPEN}").get:
            outsiders.note(cursor)


def _gap(name: Any, opened: Any, user: Any, pid: Any, buffer: Any) -> Event:
    session = current()
    details = {"connection": name, "opened": opened, "user": user, "pid": pid, "lost_at_most": buffer}
    return event_of("GAP", event_class="AUDIT", user=session.user, session_id=session.id, details=details)
