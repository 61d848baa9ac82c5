"""After a power cut each row has its event and each event of a committed change its row, and the chain holds (A2, A6)."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from random import Random

import apsw
import pytest

import heliosaudit
from heliosaudit import chains
from heliosaudit.verifications import verify
from tests.crash.disks import after_power_cut, after_process_death
from tests.crash.recorder import Log, RecordingVFS

MODES = [("wal", "full"), ("wal", "normal"), ("delete", "full"), ("truncate", "normal"), ("persist", "extra")]


def work(path: Path, vfs: str, journal_mode: str, synchronous: str) -> None:
    with closing(apsw.Connection(str(path), vfs=vfs)) as plain:
        plain.pragma("journal_mode", journal_mode)
    policy = heliosaudit.Policy(log_select=True, flush_interval=3600, async_buffer_size=7)
    with closing(heliosaudit.connect(path, policy, vfs=vfs)) as connection:
        connection.pragma("synchronous", synchronous)
        connection.pragma("journal_mode", journal_mode)
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x)")
        for number in range(0, 60, 3):
            connection.execute("INSERT INTO t VALUES(?, ?)", (number, "x" * 300))
            connection.execute("SELECT * FROM t WHERE i = ?", (number,)).fetchall()
            with connection:
                connection.execute("INSERT INTO t VALUES(?, ?)", (number + 1, "y" * 30))
                connection.execute("SAVEPOINT s; INSERT INTO t VALUES(-1, 0); ROLLBACK TO s; RELEASE s").fetchall()
                connection.execute("INSERT INTO t VALUES(?, ?)", (number + 2, "z"))
            if number % 9 == 0:
                connection.execute(f"CREATE TABLE u{number}(x)")


def check(path: Path) -> int:
    """Hold rows, tables and events against each other; returns how many rows there are."""
    with closing(apsw.Connection(str(path))) as connection:
        assert connection.execute("PRAGMA integrity_check").get == "ok"
        if not connection.table_exists("main", "__audit_log"):
            assert connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
            return 0
        log = connection.execute("SELECT id, record, checksum FROM __audit_log ORDER BY id").fetchall()
        tables = {
            row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'") if row[0][:2] != "__"
        }
        rows = [row[0] for row in connection.execute("SELECT i FROM t ORDER BY i")] if "t" in tables else []
        assert verify(connection).ok
    previous = chains.ROOT
    inserted, created = [], set()
    for number, (found, record, checksum) in enumerate(log, 1):
        previous = chains.checksum(previous, number, record.encode())
        assert (found, checksum) == (number, previous)
        fields = json.loads(record)
        if fields[8] and not fields[15] and fields[4] == "INSERT":
            inserted.append(int(fields[6][len("INSERT INTO t VALUES(") :].split(",")[0]))
        if fields[8] and fields[4] == "CREATE TABLE":
            created.add(fields[5])
    assert sorted(inserted) == rows
    assert created == tables
    return len(rows)


@pytest.mark.parametrize(("journal_mode", "synchronous"), MODES)
def test_rows_and_events_survive_a_crash_together(
    tmp_path: Path, journal_mode: str, synchronous: str, request: pytest.FixtureRequest
) -> None:
    count = max(110, (request.config.getoption("--power-cuts") or 0) // len(MODES))
    folder = tmp_path / "disk"
    folder.mkdir()
    recorder = RecordingVFS(f"audit-{journal_mode}-{synchronous}")
    try:
        recorder.log = log = Log()
        work(folder / "db", recorder.name, journal_mode, synchronous)
        recorder.log = None
    finally:
        recorder.unregister()
    seen = set()
    for crash in range(count):
        rng = Random(f"{journal_mode} {synchronous} {crash}")
        point = rng.randint(0, len(log))
        if crash % 5 == 0:
            files = after_process_death(log, point)
        else:
            files = after_power_cut(log, point, rng, psow=True, ordered=synchronous != "extra")
        shutil.rmtree(folder)
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        try:
            seen.add(check(folder / "db"))
        except Exception as error:
            message = f"crash {crash} at {point} of {len(log)}: {type(error).__name__}: {error}"
            raise AssertionError(message) from error
    assert len(seen) > 10
