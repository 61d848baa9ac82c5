"""A process that writes until it is killed (see test_kill.py).

    python -m tests.crash.writer SUBJECT PATH JOURNAL LEVEL SPILLED

The key of an encrypted database comes on standard input. After each COMMIT the last row's number is reported.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys

import apsw

__all__ = ["body", "connect"]

HELIOS_KEY_BYTES = 32


def body(sequence: int) -> bytes:
    """Return the content of a row: about a third of a page, or now and then two pages."""
    return hashlib.shake_128(str(sequence).encode()).digest(9000 if sequence % 11 == 0 else 1400)


def connect(subject: str, path: str, key: bytes) -> apsw.Connection:
    """Open the database."""
    if subject == "plain":
        return apsw.Connection(path)
    import heliosvfs  # noqa: PLC0415 - the plain writer does without

    return heliosvfs.connect(path, key=key)


def main(subject: str, path: str, journal: str, level: str, spilled: str) -> None:
    """Write until killed; with SPILLED "yes" commit one transaction that overflows the cache, and die at once."""
    connection = connect(subject, path, sys.stdin.buffer.read(HELIOS_KEY_BYTES))
    assert connection.pragma("journal_mode", journal) == journal
    connection.pragma("synchronous", level)
    connection.pragma("cache_size", 5)
    connection.execute("CREATE TABLE IF NOT EXISTS ledger (seq INTEGER PRIMARY KEY, body BLOB)")
    last = len(connection.execute("SELECT seq FROM ledger").fetchall())
    while True:
        connection.execute("BEGIN")
        for _ in range(60 if spilled == "yes" else 1 + last % 7):
            last += 1
            connection.execute("INSERT INTO ledger VALUES (?, ?)", (last, body(last)))
        connection.execute("COMMIT")
        os.write(1, f"{last}\n".encode())
        if spilled == "yes":
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
