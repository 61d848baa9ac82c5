"""Several processes, and processes that are killed: one chain, each row with its event and each event with its row (A2, A5, A6)."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

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


def start(path: Path, name: str, count: int, kind: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(WRITER), str(path), name, str(count), kind]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "audit")])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


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


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
def test_there_is_no_false_alarm_under_kills_retention_and_vacuum(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "db"
    make(path, "wal", kind)
    rnd = random.Random(11)
    later = datetime.now(timezone.utc) + timedelta(days=30)
    pruned = 0
    for life in range(60 if request.config.getoption("--soak") else 3):
        doomed, lucky = start(path, f"doomed{life}", 1_000_000, kind), start(path, f"lucky{life}", 20, kind)
        assert doomed.stdout is not None
        for _ in range(rnd.randrange(1, 40)):
            doomed.stdout.readline()
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
        doomed.stdout.close()
        out, _ = lucky.communicate(timeout=200)
        assert out.splitlines()[-1:] == ["done"], out[-2000:]
        with closing(reader(path, kind)) as connection:
            assert verify(connection).ok
            if life % 2:
                pruned += prune(connection, days=1, archive=tmp_path / f"archive{life}.gz", now=later).last > 0
            connection.execute("VACUUM")
            report = verify(connection)
            assert report.ok, report
    assert pruned
