"""Counters and gauges of this process in Prometheus' text format, version 0.0.4 (docs/MONITORING.md).

https://prometheus.io/docs/instrumenting/exposition_formats/: the format is a few lines of text, so no library is needed for it.
Pages are counted by SQLite itself (https://sqlite.org/c3ref/c_dbstatus_options.html), which costs nothing: a page that SQLite
reads past its cache was opened, one that it writes was sealed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from heliosvfs import notices
from heliosvfs.notices import Notice
from heliosvfs.vfs import reserving

if TYPE_CHECKING:
    from heliosvfs.connection import Connection

__all__ = ["application", "handler", "note_closing", "render", "watch", "write"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_HELP = {
    "heliosvfs_pages_opened_total": ("counter", "Pages that were read, authenticated and decrypted."),
    "heliosvfs_pages_sealed_total": ("counter", "Pages that were encrypted and written, checkpoints not counted."),
    "heliosvfs_authentication_failures_total": ("counter", "Pages, frames and superblocks that failed authentication."),
    "heliosvfs_unlocks_total": ("counter", "Unlocks of databases, by result."),
    "heliosvfs_key_source_failures_total": ("counter", "Key sources that gave no key."),
    "heliosvfs_key_changes_total": ("counter", "Changes of key slots and data keys."),
    "heliosvfs_connections": ("gauge", "Connections that are open."),
    "heliosvfs_memory_bytes": ("gauge", "Memory that SQLite uses."),
    "heliosvfs_audit_events": ("gauge", "Id of the last event in the audit log of a database."),
    "heliosvfs_key_age_days": ("gauge", "Age of a database's data key."),
    "heliosvfs_key_rotation_due": ("gauge", "Whether a database's data key is to be rotated: 1, it is."),
}
_lock = threading.Lock()
_counters: dict[tuple[str, str], int] = {}
_closed = {"opened": 0, "sealed": 0}  # pages of connections that are gone
_watched: list[weakref.ref[Connection]] = []
_last: dict[str, dict[str, float]] = {}  # of watched databases: what was found when they were last asked


def _count(name: str, labels: str = "", number: int = 1) -> None:
    with _lock:
        _counters[name, labels] = _counters.get((name, labels), 0) + number


def _note(notice: Notice) -> None:
    if notice.operation == "AUTHENTICATION FAILURE":
        _count("heliosvfs_authentication_failures_total")
    elif notice.operation == "UNLOCK":
        _count("heliosvfs_unlocks_total", 'result="ok"' if notice.success else 'result="refused"')
    elif notice.operation == "KEY SOURCE" and not notice.success:
        _count("heliosvfs_key_source_failures_total")
    elif notice.operation == "KEYS CHANGED":
        _count("heliosvfs_key_changes_total")


notices.listen(_note)


def _pages_of(connection: apsw.Connection) -> tuple[int, int]:
    """Return pages opened and sealed so far; a connection that is busy in another thread, or closed, tells none."""
    try:
        opened = connection.status(apsw.SQLITE_DBSTATUS_CACHE_MISS)[0]
        return opened, connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]
    except (apsw.Error, AssertionError):
        return 0, 0


def note_closing(connection: apsw.Connection) -> None:
    """Take over the counts of a connection that is about to close."""
    opened, sealed = _pages_of(connection)
    with _lock:
        _closed["opened"] += opened
        _closed["sealed"] += sealed


def watch(connection: Connection) -> None:
    """Show gauges of this connection's database, as long as it is open."""
    with _lock:
        _watched.append(weakref.ref(connection))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _gauges() -> Iterable[tuple[str, str, float]]:
    with _lock:
        _watched[:] = [reference for reference in _watched if reference() is not None]
        connections = [connection for reference in _watched if (connection := reference()) is not None]
    seen = set()
    for connection in connections:
        try:
            path = connection.db_filename("main")
        except apsw.ConnectionClosedError:
            continue
        if path in seen:
            continue
        seen.add(path)
        with contextlib.suppress(apsw.Error):  # in use by another thread: what it said before still stands
            _last[path] = _asked(connection)
        for name, value in _last.get(path, {}).items():
            yield name, f'database="{_escaped(path)}"', value


def _asked(connection: Connection) -> dict[str, float]:
    from heliosvfs.rotation import epoch_time  # noqa: PLC0415 - it opens connections, which are counted here

    found: dict[str, float] = {}
    info = connection.get_storage_info()
    if info["encryption_enabled"]:
        age = datetime.now(timezone.utc) - epoch_time(info["key_epoch_created"])
        found["heliosvfs_key_age_days"] = round(age.total_seconds() / 86_400, 3)
        found["heliosvfs_key_rotation_due"] = int(info.get("rotation_is_due", False))
    number = connection.last_event()
    if number is not None:
        found["heliosvfs_audit_events"] = number
    return found


def render() -> str:
    """Return all metrics as text, in the order of docs/MONITORING.md."""
    opened = sealed = count = 0
    for connection in reserving.open_connections():
        with contextlib.suppress(apsw.Error):
            connection.db_filename("main")  # a closed one raises
            count += 1
        pages = _pages_of(connection)
        opened, sealed = opened + pages[0], sealed + pages[1]
    with _lock:
        values = dict(_counters)
        values["heliosvfs_pages_opened_total", ""] = opened + _closed["opened"]
        values["heliosvfs_pages_sealed_total", ""] = sealed + _closed["sealed"]
    for name in ("heliosvfs_authentication_failures_total", "heliosvfs_key_source_failures_total", "heliosvfs_key_changes_total"):
        values.setdefault((name, ""), 0)
    for result in ("ok", "refused"):
        values.setdefault(("heliosvfs_unlocks_total", f'result="{result}"'), 0)
    found: dict[str, list[tuple[str, float]]] = {name: [] for name in _HELP}
    for (name, labels), value in sorted(values.items()):
        found[name].append((labels, value))
    found["heliosvfs_connections"].append(("", count))
    found["heliosvfs_memory_bytes"].append(("", apsw.memory_used()))
    for name, labels, value in _gauges():
        found[name].append((labels, value))
    lines = []
    for name, samples in found.items():
        kind, text = _HELP[name]
        if samples:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{{{labels}}} {value}" if labels else f"{name} {value}" for labels, value in samples]
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

    class Handler(BaseHTTPRequestHandler):
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

        def log_message(self, *_: Any) -> None:
            """Scrapes are not worth a line each."""

    return Handler
