"""A disk that is really full: a tmpfs of one megabyte, mounted in a namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOUNT = ["unshare", "-Urm", "sh", "-c", 'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"', "sh"]

FILL = """
import os, sys
from contextlib import closing
import heliosvfs
from heliosvfs.check import check

path, mode = sys.argv[1], sys.argv[2]
key = bytes(range(32))
with open(path + ".ballast", "wb") as ballast:
    ballast.write(bytes(400_000))
with closing(heliosvfs.connect(path, key=key, journal_mode=mode)) as connection:
    connection.pragma("cache_size", 10)
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES('kept')")
    committed = 1
    try:
        while True:
            connection.execute("INSERT INTO t VALUES(randomblob(20000))")
            committed += 1
    except heliosvfs.DiskFullError as error:
        assert error.file.startswith(path) and error.file in str(error), error
        print(error.file.removeprefix(path) or "database")
    assert committed > 5
    assert connection.execute("SELECT count(*) FROM t").get == committed
    assert connection.execute("SELECT x FROM t WHERE rowid = 1").get == "kept"
    os.unlink(path + ".ballast")  # as the message says: make room
    connection.execute("DELETE FROM t WHERE rowid > 1")
    connection.execute("INSERT INTO t VALUES('later')")
    assert connection.execute("SELECT x FROM t ORDER BY rowid").fetchall() == [("kept",), ("later",)]
assert check(path, key=key).ok
"""


OPEN = """
import os, sys
import heliosvfs
from heliosvfs.check import check

path, key = sys.argv[1], bytes(range(32))
with heliosvfs.connect(path, key=key) as connection:
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES('kept')")
connection.close()
with open(path + ".ballast", "wb", buffering=0) as ballast:
    try:
        while True:
            ballast.write(bytes(4096))
    except OSError:
        pass
for work in (
    lambda: heliosvfs.connect(path, key=key), lambda: heliosvfs.connect(path + "2", key=key), lambda: check(path, key=key)
):
    try:
        work()
    except heliosvfs.DiskFullError as error:
        print(os.path.basename(error.file))
os.unlink(path + ".ballast")
connection = heliosvfs.connect(path, key=key)
assert connection.execute("SELECT x FROM t").get == "kept"
connection.close()
heliosvfs.connect(path + "2", key=key).close()
"""


def on_a_small_disk(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "audit")])}
    return subprocess.run([*MOUNT, str(folder), *command], capture_output=True, text=True, check=False, env=own)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if shutil.which("unshare") is None or on_a_small_disk(tmp_path, "true").returncode:
        pytest.skip("no tmpfs can be mounted here: needs user namespaces (unshare -Urm)")
    return tmp_path


@pytest.mark.parametrize("mode", ["delete", "wal", "truncate"])
def test_a_full_tmpfs_is_named_and_nothing_committed_is_lost(folder: Path, mode: str) -> None:
    done = on_a_small_disk(folder, sys.executable, "-c", FILL, str(folder / "db"), mode)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ({"-wal"} if mode == "wal" else {"database", "-journal"})
    assert not list(folder.iterdir())  # it was the tmpfs that was written


def test_a_database_that_can_not_be_opened_or_made_for_want_of_room_says_so(folder: Path) -> None:
    done = on_a_small_disk(folder, sys.executable, "-c", OPEN, str(folder / "db"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "db-shm",
        "db2-journal",
        "db-shm",
    ]  # the check says so, and calls nothing damaged
