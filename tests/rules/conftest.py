"""Databases as a crash leaves them, and what must not happen to them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs

KEY = bytes(range(32))
ROWS = 400

Crash = Callable[..., Path]


def files_of_database(path: Path) -> dict[str, bytes]:
    """Return the bytes of a database's files; -shm is an index that SQLite makes anew."""
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}


@pytest.fixture
def crashed(tmp_path: Path) -> Crash:
    """Return a function that makes a database whose writer died: in a WAL, or in the middle of a transaction."""

    def make(mode: str, *, page_size: int = 512, key: heliosvfs.keyring.Key = KEY, synchronous: str = "full") -> Path:
        live = tmp_path / f"live-{mode}.db"
        with closing(heliosvfs.connect(live, key=key, journal_mode=mode, page_size=page_size, cache_mb=0.01)) as connection:
            connection.pragma("synchronous", synchronous)
            connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, state TEXT, filler BLOB)")
            with connection:
                connection.executemany("INSERT INTO t VALUES(?, 'committed', randomblob(60))", ((n,) for n in range(ROWS)))
            if mode == "wal":
                connection.execute("UPDATE t SET state = 'committed later' WHERE id < 100")
            else:
                connection.execute("BEGIN; UPDATE t SET state = 'never committed', filler = randomblob(80)")
            folder = tmp_path / f"crashed-{mode}"
            folder.mkdir()
            for suffix in ("", "-wal", "-journal"):
                if os.path.exists(f"{live}{suffix}"):
                    shutil.copy(f"{live}{suffix}", folder / f"db{suffix}")
        return folder / "db"

    return make


def states(path: Path, key: heliosvfs.keyring.Key = KEY, vfs: str = "heliosvfs") -> dict[str, int]:
    """Open a database and count its rows by state."""
    with closing(heliosvfs.connect(path, key=key, create=False, vfs=vfs)) as connection:
        assert connection.pragma("integrity_check") == "ok"
        return dict(connection.execute("SELECT state, count(*) FROM t GROUP BY state").fetchall())


EXPECTED = {
    "wal": {"committed": ROWS - 100, "committed later": 100},
    "delete": {"committed": ROWS},
    "truncate": {"committed": ROWS},
    "persist": {"committed": ROWS},
}
