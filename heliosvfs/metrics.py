"""Counters and gauges of this process in Prometheus' text format, version 0.0.4 (docs/MONITORING.md).

https://prometheus.io/docs/instrumenting/exposition_formats/: the format is a few lines of text, so no library is needed for it.

Whoever asks is not the thread that works, and APSW refuses whichever of two threads comes second to a connection. So nothing here
calls a method of an application's connection: figures come from counts of open files, from notices, and from the log's own
connection.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import tempfile
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from heliosvfs import activity, notices
from heliosvfs.errors import UsageError
from heliosvfs.locks import ProcessLock
from heliosvfs.notices import Notice
from heliosvfs.vfs import files_of, open_files, tallies

if TYPE_CHECKING:
    from heliosvfs.connection import Connection
    from heliosvfs.vfs import DatabaseFile

__all__ = [
    "MetricsWarning",
    "application",
    "handler",
    "note_closing",
    "render",
    "watch",
    "write",
    "write_last",
    "write_regularly",
]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_HELP = {
    "heliosvfs_pages_opened_total": ("counter", "Pages and WAL frames that were read, authenticated and decrypted."),
    "heliosvfs_pages_sealed_total": ("counter", "Pages and WAL frames that were encrypted and written."),
    "heliosvfs_authentication_failures_total": ("counter", "Pages, frames, journals and superblocks that failed authentication."),
    "heliosvfs_unlocks_total": ("counter", "Database files that a key was presented for, by result."),
    "heliosvfs_key_source_failures_total": ("counter", "Key sources that gave no key."),
    "heliosvfs_key_changes_total": ("counter", "Changes of key slots and data keys."),
    "heliosvfs_rotations_total": ("counter", "Rotations of data keys that have ended, by result."),
    "heliosvfs_backups_total": ("counter", "Backups that have ended, by result."),
    "heliosvfs_activity_lines_lost_total": ("counter", "Lines that could not be written to the activity log."),
    "heliosvfs_connections": ("gauge", "Connections to encrypted databases that are open, the audit log's own among them."),
    "heliosvfs_memory_bytes": ("gauge", "Memory that SQLite uses."),
    "heliosvfs_audit_events_total": ("counter", "Events in the audit log of a database, of all processes: the last one's id."),
    "heliosvfs_audit_events_waiting": ("gauge", "Events of this process that are not in the audit log yet."),
    "heliosvfs_key_age_days": ("gauge", "Age of a database's data key."),
    "heliosvfs_key_rotation_due": ("gauge", "Whether a database's data key is to be rotated: 1, it is."),
}
_BY_RESULT = {
    "UNLOCK": "heliosvfs_unlocks_total",
    "ROTATION": "heliosvfs_rotations_total",
    "BACKUP": "heliosvfs_backups_total",
}
_PLAIN = {
    "AUTHENTICATION FAILURE": "heliosvfs_authentication_failures_total",
    "KEY SOURCE": "heliosvfs_key_source_failures_total",
    "KEYS CHANGED": "heliosvfs_key_changes_total",
}
_INTERVAL = 15.0  # seconds between two writings of a file: Prometheus asks every 15 to 60 seconds


class MetricsWarning(UserWarning):
    """The file of the metrics can't be written now."""


@dataclass
class _Watched:
    connection: weakref.ref[Connection]
    path: str
    file: DatabaseFile | None  # None: it is not encrypted
    found: dict[str, float] = field(default_factory=dict)

    def is_open(self) -> bool:
        """Tell whether the connection is open, as far as that matters here."""
        auditor = getattr(self.connection(), "auditor", None)
        return not (auditor is not None and auditor.is_closed) and (self.file is None or open_files.is_open(self.file))


_lock = ProcessLock()
_counters: dict[tuple[str, str], int] = {}
_watched: list[_Watched] = []
_written: set[str] = set()  # files that are written regularly


def _start_again() -> None:
    """Forget what the parent has counted: it counts it, and its connections are not to be used here."""
    _counters.clear()
    _watched.clear()
    _written.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again)


def _note(notice: Notice) -> None:
    key = None
    if notice.operation in _BY_RESULT:
        key = _BY_RESULT[notice.operation], 'result="ok"' if notice.success else 'result="failed"'
    elif notice.operation in _PLAIN:
        key = _PLAIN[notice.operation], ""
    if key is not None:
        with _lock:
            _counters[key] = _counters.get(key, 0) + 1


notices.listen(_note)


def watch(connection: Connection) -> None:
    """Show gauges of this connection's main database, as long as the connection is open.

    Call it in the thread that uses the connection.
    """
    files = files_of(connection)
    path = connection.db_filename("main")
    watched = _Watched(weakref.ref(connection), path, next((file for file in files if file.path == path), None))
    with _lock:
        _watched.append(watched)


def note_closing(connection: apsw.Connection) -> None:
    """Show no more gauges of a connection that is about to close."""
    with _lock:
        _watched[:] = [watched for watched in _watched if watched.connection() not in (None, connection)]


def _last_event(connection: Connection) -> int | None:
    """Return the id of the last event on disk; None: it can't be asked for now."""
    auditor = getattr(connection, "auditor", None)
    number: int | None = None if auditor is None else auditor.last_event()
    return number


def _ask(watched: _Watched, connection: Connection) -> None:
    found = watched.found
    if watched.file is not None and not watched.file.access.is_empty:
        created = datetime.fromisoformat(watched.file.access.superblock.epoch.created.replace("Z", "+00:00"))
        age = (datetime.now(timezone.utc) - created).total_seconds() / 86_400
        found["heliosvfs_key_age_days"] = round(age, 3)
        if connection.rotation_interval_days is not None:
            found["heliosvfs_key_rotation_due"] = int(age >= connection.rotation_interval_days)
    auditor = getattr(connection, "auditor", None)
    if auditor is not None:
        found["heliosvfs_audit_events_waiting"] = auditor.unwritten()
        number = _last_event(connection)
        if number is not None:
            found["heliosvfs_audit_events_total"] = number


def _gauges() -> Iterator[tuple[str, str, float]]:
    """Yield name, label and value: of connections to the same database the sum of what waits, else the greatest."""
    with _lock:
        _watched[:] = [watched for watched in _watched if watched.connection() is not None and watched.is_open()]
        there = list(_watched)
    by_path: dict[str, dict[str, float]] = {}
    for watched in there:
        connection = watched.connection()
        if connection is None:
            continue
        _ask(watched, connection)
        values = by_path.setdefault(watched.path, {})
        for name, value in watched.found.items():
            waits = name == "heliosvfs_audit_events_waiting"
            values[name] = values.get(name, 0) + value if waits else max(values.get(name, 0), value)
    for path, values in sorted(by_path.items()):
        for name, value in values.items():
            yield name, f'database="{_escaped(path)}"', value


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def render() -> str:
    """Return all metrics as text, in the order of docs/MONITORING.md."""
    with _lock:
        values: dict[tuple[str, str], float] = dict(_counters)
    for name in _PLAIN.values():
        values.setdefault((name, ""), 0)
    for name in _BY_RESULT.values():
        for result in ("ok", "failed"):
            values.setdefault((name, f'result="{result}"'), 0)
    for kind, (opened, sealed) in tallies.totals().items():
        values["heliosvfs_pages_opened_total", f'file="{kind}"'] = opened
        values["heliosvfs_pages_sealed_total", f'file="{kind}"'] = sealed
    values["heliosvfs_activity_lines_lost_total", ""] = activity.lost_lines()
    values["heliosvfs_connections", ""] = open_files.connection_count()
    values["heliosvfs_memory_bytes", ""] = apsw.memory_used()
    values.update({(name, labels): value for name, labels, value in _gauges()})
    samples: dict[str, list[str]] = {name: [] for name in _HELP}
    for (name, labels), value in sorted(values.items()):
        samples[name].append(f"{name}{{{labels}}} {value}" if labels else f"{name} {value}")
    lines = []
    for name, (kind, text) in _HELP.items():
        if samples[name]:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *samples[name]]
    return "\n".join(lines) + "\n"


def write(path: str | os.PathLike[str]) -> None:
    """Write the metrics to a file at once, for the textfile collector of Prometheus' node_exporter.

    Raises:
        OSError: The file can't be written.
    """
    where = Path(path)
    with tempfile.NamedTemporaryFile("w", dir=where.parent, prefix=f".{where.name}.", delete=False, encoding="utf-8") as file:
        try:
            file.write(render())
            file.flush()
            os.chmod(file.name, 0o644)  # the collector is another user
            os.replace(file.name, where)
        except BaseException:
            os.unlink(file.name)
            raise


def write_regularly(path: str | os.PathLike[str], interval: float = _INTERVAL) -> None:
    """Write the metrics to a file now, every so often from now on, and when the process ends.

    Later failures are warnings: node_exporter tells the file's age (node_textfile_mtime_seconds).

    Args:
        path: The file; a second call for it changes nothing.
        interval: Seconds between two writings.

    Raises:
        UsageError: It can't be written now.
    """
    where = os.path.abspath(path)
    with _lock:
        if where in _written:
            return
        try:
            write(where)
        except OSError as error:
            msg = f"the metrics can't be written to {where}: {error.strerror}"
            raise UsageError(msg) from None
        _written.add(where)
    threading.Thread(target=_keep_writing, args=(where, interval), name="heliosvfs metrics", daemon=True).start()


def _keep_writing(path: str, interval: float) -> None:
    while not _ending.wait(interval):
        _try_to_write(path)


def _try_to_write(path: str) -> None:
    try:
        write(path)
    except OSError as error:
        with contextlib.suppress(MetricsWarning):  # where warnings are errors, nobody is there to catch it
            warnings.warn(f"the metrics can't be written to {path}: {error.strerror}", MetricsWarning, stacklevel=2)


_ending = threading.Event()


def write_last() -> None:
    """Write the files that are written regularly once more, and then no more: the process ends."""
    _ending.set()
    for path in sorted(_written):
        _try_to_write(path)


atexit.register(write_last)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Answer as a WSGI application (PEP 3333)."""
    if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
        start_response("405 Method Not Allowed", [("Allow", "GET, HEAD")])
        return []
    body = render().encode()
    start_response("200 OK", [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))])
    return [body] if environ["REQUEST_METHOD"] == "GET" else []


def handler() -> type[BaseHTTPRequestHandler]:
    """Return a handler for `http.server` that answers GET /metrics."""
    return _Handler


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # http.server's name
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        body = render().encode()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Scrapes are not worth a line each."""
