"""Databases whose every state is known, and ways to damage them.

Each row says which state wrote it, so that whatever a damaged database still answers can be held against what was ever true.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apsw

import heliosvfs
from heliosvfs.superblock import COPY_SIZE

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
PAGE = 512
ROWS = 60
FRAME = 24 + PAGE
FIRST_PAGE = 32 * 1024
SUFFIXES = ("", "-wal", "-journal")

Rows = dict[int, str]
Change = Callable[[dict[str, Any]], object]


def text(row: int, state: int) -> str:
    """Return what state number ``state`` wrote into a row: some rows reach over overflow pages."""
    return f"state {state} of row {row} " + chr(97 + state) * (900 if row % 20 == 0 else 60)


def rows_of(state: int) -> Rows:
    """Return the rows after the commit of a state: each writes the rows that its number tells."""
    return {row: text(row, max(s for s in range(state + 1) if s == 0 or row % (s + 1) == 0)) for row in range(ROWS)}


def write_state(connection: apsw.Connection, state: int) -> None:
    """Bring a database from one state to the next."""
    changed = [(text(row, state), row) for row in range(ROWS) if row % (state + 1) == 0]
    connection.executemany("UPDATE t SET x = ? WHERE i = ?", changed)


@dataclass(frozen=True)
class Sample:
    """A database that its writer left behind, and the states that it has been in.

    Attributes:
        path: The database file; its WAL or journal lies beside it.
        states: What was committed, in order; the last is what recovery finds.
        uncommitted: Rows of a transaction that never committed.
        frames: Frames in the WAL once each state was committed; none where there is no WAL.
    """

    path: Path
    states: tuple[Rows, ...]
    uncommitted: Rows
    frames: tuple[int, ...] = ()

    def state_before(self, frame: int) -> Rows:
        """Return the state that a log holds which ends before a frame, counted from 0."""
        return self.states[sum(end <= frame for end in self.frames) - 1]

    def copy(self, folder: Path) -> Sample:
        """Copy the files, to be damaged there."""
        folder.mkdir(exist_ok=True)
        for suffix in SUFFIXES:
            (folder / f"db{suffix}").unlink(missing_ok=True)
            if os.path.exists(f"{self.path}{suffix}"):
                shutil.copy(f"{self.path}{suffix}", folder / f"db{suffix}")
        (folder / "db-shm").unlink(missing_ok=True)
        return replace(self, path=folder / "db")

    def beside(self, suffix: str) -> Path:
        """Return the path of the WAL or journal."""
        return Path(f"{self.path}{suffix}")


def make(folder: Path, mode: str, *, key: bytes = KEY, states: int = 3) -> Sample:
    """Make a database and leave it as a crash would: with a WAL, with a hot journal, or ("closed") with neither."""
    folder.mkdir(exist_ok=True)
    live = folder / "live"
    wal = mode == "wal"
    with closing(heliosvfs.connect(live, key=key, page_size=PAGE, journal_mode="wal" if wal else "delete")) as connection:
        if not wal and mode != "closed":
            connection.pragma("journal_mode", mode)
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x TEXT)")
        connection.executemany("INSERT INTO t VALUES(?, ?)", sorted(rows_of(0).items()))
        if wal:
            connection.pragma("wal_checkpoint", "TRUNCATE")
        frames = [0]
        for state in range(1, states):
            with connection:
                write_state(connection, state)
            if wal:
                frames.append((os.path.getsize(f"{live}-wal") - 32) // FRAME)
        if mode not in ("wal", "closed"):
            connection.pragma("cache_size", 2)
            connection.execute("BEGIN")
            write_state(connection, states)
        committed = tuple(rows_of(state) for state in range(states))
        return Sample(live, committed, rows_of(states), tuple(frames) if wal else ()).copy(folder / "left")


def read(path: Path, *, key: bytes = KEY, vfs: str = "heliosvfs") -> Rows:
    """Open a database as an application would, recover it, and return all rows."""
    with closing(heliosvfs.connect(path, key=key, create=False, vfs=vfs)) as connection:
        return dict(connection.execute("SELECT i, x FROM t").fetchall())


def outcome(sample: Sample, *, key: bytes = KEY) -> Rows | heliosvfs.HeliosError | apsw.CorruptError:
    """Return all rows, or the error that refused them; rows that came before an error must have been written once.

    Where a transaction was left half rolled back, a long row may have one page from it and the next from before it.

    Raises:
        AssertionError: A row was returned that is not made of what was written.
    """
    found: Rows = {}
    try:
        with closing(heliosvfs.connect(sample.path, key=key, create=False)) as connection:
            for row, value in connection.execute("SELECT i, x FROM t"):
                written = [state[row] for state in (*sample.states, sample.uncommitted) if row in state]
                assert value in written or all(byte in column for byte, *column in zip(value, *written, strict=True)), (
                    f"row {row} holds what nobody wrote"
                )
                found[row] = value
            assert connection.pragma("integrity_check") == "ok"
    except (heliosvfs.HeliosError, apsw.CorruptError) as error:
        return error
    return found


def flip(path: Path, offset: int, mask: int = 1) -> None:
    """Flip bits of a byte in a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def put(path: Path, offset: int, data: bytes) -> None:
    """Overwrite bytes of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def piece(path: Path, offset: int, size: int) -> bytes:
    """Return bytes of a file."""
    return path.read_bytes()[offset : offset + size]


def page_offset(number: int, page_size: int = PAGE) -> int:
    """Return where a page of a small file lies."""
    return max(FIRST_PAGE, page_size) + (number - 1) * page_size


def page_count(path: Path) -> int:
    """Return the number of pages in a small file."""
    return (path.stat().st_size - FIRST_PAGE) // PAGE


def rehash(copy: bytearray) -> bytes:
    """Put the right SHA-256 at the end of a superblock copy: anybody can, without a key."""
    copy[-32:] = hashlib.sha256(copy[:-32]).digest()
    return bytes(copy)


def forge(path: Path, change: Change, copies: tuple[int, ...] = (0, 1), *, sequence: int = 0) -> None:
    """Alter the JSON of superblock copies (``change`` may return the document's bytes) and put the SHA-256 right."""
    for index in copies:
        copy = bytearray(piece(path, index * COPY_SIZE, COPY_SIZE))
        length = int.from_bytes(copy[40:44], "big")
        document = json.loads(copy[64 : 64 + length])
        returned = change(document)
        encoded = returned if isinstance(returned, bytes) else json.dumps(document).encode()
        copy[32:40] = struct.pack(">Q", int.from_bytes(copy[32:40], "big") + sequence)
        copy[40:44] = struct.pack(">I", len(encoded))
        copy[64:-64] = encoded.ljust(COPY_SIZE - 128, b"\0")
        put(path, index * COPY_SIZE, rehash(copy))
