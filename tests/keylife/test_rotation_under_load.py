"""Rotation while other processes read and write, and killed at any moment. ``--soak``: 200 MB and 50 kills."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.rotation import rotate
from tests.keylife.examining import KEY, copies, epoch_keys, epochs_on_disk, opened_by
from tests.keylife.worker import body

WORKER = Path(__file__).with_name("worker.py")
PAGE = 4096

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


class Worker:
    """A process that plays a role."""

    def __init__(self, role: str, path: Path, busy: float = 60.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), role, str(path), str(busy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdin is not None
        self.process.stdin.write(KEY)
        self.process.stdin.flush()

    def report(self) -> dict[str, Any]:
        """Return the next line; none comes from one that died."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return dict(json.loads(line)) if line.endswith(b"\n") else {}

    def stop(self) -> dict[str, Any]:
        """Let it end, and return its last report."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        lines = self.process.stdout.read().splitlines()
        assert self.process.wait(timeout=120) == 0, "a worker failed"
        return dict(json.loads(lines[-1]))

    def kill(self) -> None:
        """End it, wherever it is."""
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Close the pipes, and see that it is gone."""
        self.process.kill()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for stream in (self.process.stdin, self.process.stdout):
            try:
                stream.close()
            except BrokenPipeError:
                continue
        self.process.wait()


def fill(path: Path, megabytes: int) -> None:
    """Make a database of a ledger and of ballast."""
    with closing(heliosvfs.connect(path, key=KEY, page_size=PAGE)) as connection:
        connection.execute("CREATE TABLE ledger(number INTEGER PRIMARY KEY, content BLOB); CREATE TABLE ballast(content BLOB)")
        with connection:
            connection.executemany("INSERT INTO ledger VALUES(?, ?)", ((n, body(n)) for n in range(1, 101)))
        for _ in range(megabytes):
            with connection:
                connection.executemany("INSERT INTO ballast VALUES(randomblob(4000))", (() for _ in range(256)))
        connection.pragma("wal_checkpoint", "TRUNCATE")


def require_whole(path: Path, at_least: int) -> int:
    """Require that the database opens, is sound, and has lost no row; return the number of rows."""
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert connection.pragma("integrity_check") == "ok"
        found = connection.execute("SELECT number, content FROM ledger ORDER BY number").fetchall()
    assert found == [(number, body(number)) for number in range(1, len(found) + 1)]
    assert len(found) >= at_least
    return len(found)


def rotate_under_load(path: Path, busy: float) -> None:
    """Rotate once under four readers and a writer, and require all that the issue does."""
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        key, pages = epoch_keys(connection)[1], connection.pragma("page_count")
    assert opened_by(key, path, PAGE) == pages
    workers = [Worker("read", path) for _ in range(4)]
    writer = Worker("write", path, busy)
    try:
        for worker in (*workers, writer):
            assert worker.report() == {"ready": True}
        with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
            report = rotate(connection, busy_timeout=60)
            assert report.epoch == 2
            assert report.pages >= pages
        written = writer.stop()
        reports = [worker.stop() for worker in workers]
    finally:
        for worker in (*workers, writer):
            worker.close()
    assert all(report["rounds"] >= 2 for report in reports)
    assert require_whole(path, 0) == written["rows"] > 100
    assert opened_by(key, path, PAGE) == 0
    assert epochs_on_disk(path, PAGE) == {2}
    assert [[epoch.id for epoch in copy.epochs] for copy in copies(path)] == [[2], [2]]
    assert check(path, key=KEY).ok


@pytest.mark.parametrize("busy", [60.0, 0.0])
def test_readers_never_fail_and_a_writer_waits_or_is_told_and_loses_nothing(tmp_path: Path, busy: float) -> None:
    fill(tmp_path / "db", 8)
    rotate_under_load(tmp_path / "db", busy)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_200_megabytes_under_four_readers_and_a_writer(tmp_path: Path) -> None:
    fill(tmp_path / "db", 200)
    rotate_under_load(tmp_path / "db", 60.0)


def kill_again_and_again(path: Path, kills: int, seed: int) -> None:
    """Kill rotations after random reports, a writer going on beside them; then let one end."""
    rng = random.Random(seed)
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        key = epoch_keys(connection)[1]
    rows = 100
    for _ in range(kills):
        rotating, writer = Worker("rotate", path), Worker("write", path)
        try:
            assert writer.report() == {"ready": True}
            for _ in range(rng.randint(0, 12)):
                if "epoch" in rotating.report():
                    break
            try:
                rotating.process.wait(timeout=rng.random() * 0.05)
            except subprocess.TimeoutExpired:
                rotating.kill()  # between two reports, while it opens, copies or checkpoints
            rows = writer.stop()["rows"]
        finally:
            rotating.close()
            writer.close()
        assert require_whole(path, rows) == rows
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        rotate(connection)
        epoch = copies(path)[0].epoch.id
        assert set(epoch_keys(connection)) == {epoch}
    assert opened_by(key, path, PAGE) == 0
    assert epochs_on_disk(path, PAGE) == {epoch}
    assert require_whole(path, rows) == rows
    assert check(path, key=KEY).ok


def test_a_rotation_that_is_killed_leaves_a_database_that_opens_and_the_next_one_ends_it(tmp_path: Path) -> None:
    fill(tmp_path / "db", 16)
    kill_again_and_again(tmp_path / "db", 6, 1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_200_megabytes_killed_fifty_times(tmp_path: Path) -> None:
    fill(tmp_path / "db", 200)
    kill_again_and_again(tmp_path / "db", 50, 2)
