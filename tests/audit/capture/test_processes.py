"""Several processes, and processes that are killed: one chain, each row with its event and each event with its row (A2, A5, A6)."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TextIO

import apsw
import pytest

import heliosaudit
import heliosvfs
from heliosaudit import chains
from heliosaudit.retention import prune
from heliosaudit.verifications import verify
from tests.audit.capture.writer import KEY

ROOT = Path(__file__).parents[3]
WRITER = Path(__file__).with_name("writer.py")


def make(path: Path, journal_mode: str, kind: str) -> None:
    if kind == "encrypted":
        connection: apsw.Connection = heliosvfs.connect(path, key=KEY, journal_mode=journal_mode, audit=heliosaudit.Policy())
    else:
        with closing(apsw.Connection(str(path))) as plain:
            plain.pragma("journal_mode", journal_mode)
        connection = heliosaudit.connect(path, heliosaudit.Policy())
    connection.execute("CREATE TABLE t(writer, number)")
    connection.close()


def start(path: Path, name: str, count: int, kind: str, out: int | TextIO = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, str(WRITER), str(path), name, str(count), kind]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "audit")])}
    return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True, env=environment)


def reader(path: Path, kind: str) -> apsw.Connection:
    return heliosvfs.connect(path, key=KEY, create=False) if kind == "encrypted" else apsw.Connection(str(path))


def check(path: Path, kind: str) -> tuple[int, int]:
    """Hold rows against events, and the chain against a naive computation; returns rows, and reads that were recorded."""
    with closing(reader(path, kind)) as connection:
        rows = sorted(connection.execute("SELECT writer, number FROM t"))
        log = connection.execute("SELECT id, record, checksum FROM __audit_log ORDER BY id").fetchall()
        assert verify(connection).ok
        assert connection.execute("PRAGMA integrity_check").get == "ok"
    assert [row[0] for row in log] == list(range(1, len(log) + 1))
    previous = chains.ROOT
    events = []
    reads = 0
    for number, record, checksum in log:
        previous = chains.checksum(previous, number, record.encode())
        assert previous == checksum
        fields = json.loads(record)
        reads += fields[4] == "SELECT"
        if fields[4] == "INSERT" and fields[8] and not fields[15]:
            values = fields[6][len("INSERT INTO t VALUES(") : -1]
            writer, _, count = values.partition(", ")
            events.append((writer.strip("'"), int(count)))
    assert sorted(events) == rows
    return len(rows), reads


@pytest.mark.parametrize(("journal_mode", "kind"), [("wal", "plain"), ("delete", "plain"), ("wal", "encrypted")])
def test_four_processes_make_one_chain(tmp_path: Path, journal_mode: str, kind: str) -> None:
    path = tmp_path / "db"
    make(path, journal_mode, kind)
    processes = [start(path, f"w{number}", 60, kind) for number in range(4)]
    for process in processes:
        out, _ = process.communicate(timeout=200)
        assert out.splitlines()[-1:] == ["done"], out[-2000:]
    rows, reads = check(path, kind)
    assert rows >= 240
    assert reads > 0


@pytest.mark.parametrize(("journal_mode", "kind"), [("wal", "plain"), ("delete", "plain"), ("wal", "encrypted")])
def test_a_killed_process_leaves_rows_and_events_together(
    tmp_path: Path, journal_mode: str, kind: str, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "db"
    make(path, journal_mode, kind)
    rnd = random.Random(7)
    for life in range(100 if request.config.getoption("--soak") else 4):
        process = start(path, f"life{life}", 1_000_000, kind)
        assert process.stdout is not None
        for _ in range(rnd.randrange(1, 60)):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    rows, _ = check(path, kind)
    assert rows > 0


class Writers:
    """Four processes that write; one that is killed has a successor."""

    def __init__(self, path: Path, kind: str, folder: Path) -> None:
        self._path = path
        self._kind = kind
        self._folder = folder
        self._lives = 0
        self._running: list[tuple[subprocess.Popen[str], Path]] = [self._start() for _ in range(4)]

    def _start(self) -> tuple[subprocess.Popen[str], Path]:
        self._lives += 1
        said = self._folder / f"writer{self._lives}"
        with said.open("w") as out:
            return start(self._path, f"life{self._lives}", 1_000_000, self._kind, out), said

    def write(self) -> None:
        """Wait until each has written a few rows more."""
        before = [said.stat().st_size for _, said in self._running]
        deadline = time.monotonic() + 100
        while any(said.stat().st_size < size + 20 for (_, said), size in zip(self._running, before, strict=True)):
            self.require_alive()
            assert time.monotonic() < deadline, "a writer writes no more"
            time.sleep(0.01)

    def require_alive(self) -> None:
        for process, said in self._running:
            assert process.poll() is None, said.read_text()[-2000:]

    def kill(self, number: int) -> None:
        """Kill one, and start another in its place."""
        self._end(number)
        self._running[number] = self._start()

    def kill_all(self) -> None:
        for number in range(len(self._running)):
            self._end(number)

    def _end(self, number: int) -> None:
        process, _ = self._running[number]
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["plain", "encrypted"])
def test_there_is_no_false_alarm_while_four_processes_write_and_are_killed_under_retention_and_vacuum(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """The short form has six rounds, the long one (``--soak``) goes on for ten minutes."""
    path = tmp_path / "db"
    make(path, "wal", kind)
    rnd = random.Random(11)
    end = time.monotonic() + 600 if request.config.getoption("--soak") else 0.0
    writers = Writers(path, kind, tmp_path)
    pruned = vacuumed = rounds = 0
    try:
        while rounds < 6 or time.monotonic() < end:
            rounds += 1
            writers.write()
            for number in rnd.sample(range(4), rnd.randrange(1, 4)):
                writers.kill(number)
            with closing(reader(path, kind)) as connection:
                connection.set_busy_timeout(30_000)
                report = verify(connection)
                assert report.ok, (rounds, report)
                if rounds % 2:
                    later = datetime.now(timezone.utc) + timedelta(days=30)
                    pruned += prune(connection, days=1, archive=tmp_path / f"archive{rounds}.gz", now=later).last > 0
                else:
                    connection.execute("VACUUM")
                    vacuumed += 1
                assert verify(connection, since=report.head if not rounds % 2 else None).ok
    finally:
        writers.kill_all()
    assert pruned >= 3
    assert vacuumed >= 3
    with closing(reader(path, kind)) as connection:
        report = verify(connection)
        assert report.ok, report
        assert connection.execute("PRAGMA integrity_check").get == "ok"
        events = connection.execute("SELECT max(id) FROM __audit_log").get
    print(f"{kind}: {rounds} rounds, {events} events, {pruned} times pruned, {vacuumed} times vacuumed")
