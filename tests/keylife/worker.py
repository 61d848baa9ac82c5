"""Processes that read, write or rotate one database until they are told to stop, or killed (see test_rotation_under_load.py).

    python worker.py ROLE PATH BUSY_SECONDS

The key, 32 bytes, comes first on standard input; end of input tells a reader or writer to stop. Reports are lines of JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from typing import Any

import apsw

import heliosvfs
from heliosvfs.rotation import rotate


def body(number: int) -> bytes:
    """Return the content of a row, which its number tells."""
    return hashlib.shake_128(str(number).encode()).digest(1000)


def report(**facts: Any) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def read(connection: heliosvfs.Connection, stop: threading.Event) -> None:
    """Read everything, again and again: each number from 1 on is there once, with its content, and none is ever lost."""
    seen, rounds = 0, 0
    while True:
        finished = stop.is_set()
        last = 0
        for number, content in connection.execute("SELECT number, content FROM ledger ORDER BY number"):
            last += 1
            assert (number, content) == (last, body(last))
        assert last >= seen
        seen, rounds = last, rounds + 1
        if rounds == 1:
            report(ready=True)
        if finished:
            break
    report(rounds=rounds, rows=seen)


def write(connection: heliosvfs.Connection, stop: threading.Event) -> None:
    """Add rows, each in a transaction of its own, and count the times that the database was busy."""
    written = int(connection.execute("SELECT max(number) FROM ledger").get)
    busy = 0
    report(ready=True)
    while not stop.is_set():
        try:
            connection.execute("INSERT INTO ledger VALUES(?, ?)", (written + 1, body(written + 1)))
        except apsw.BusyError:
            busy += 1
        else:
            written += 1
    report(rows=written, busy=busy)


def turn(connection: heliosvfs.Connection, stop: threading.Event) -> None:  # noqa: ARG001 - the same for all roles
    """Rotate once, reporting the progress."""
    report(ready=True)
    done = rotate(connection, busy_timeout=60, progress=lambda pages, total: report(pages=pages, total=total))
    report(epoch=done.epoch, pages=done.pages, seconds=done.seconds)


def main(role: str, path: str, busy: str) -> None:
    """Play a role."""
    stop = threading.Event()
    key = os.read(0, 32)  # written in one piece

    def wait() -> None:
        os.read(0, 1)
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    connection = heliosvfs.connect(path, key=key, create=False, busy_timeout=float(busy), cache_mb=1)
    {"read": read, "write": write, "rotate": turn}[role](connection, stop)
    connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
