"""A session that ended without a word leaves a gap, with the most that it can have lost; one that closed, or lives, leaves none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit import presences
from heliosaudit.verifications import verify

POLICY = heliosaudit.Policy(log_select=True, async_buffer_size=77)
LIVES = """
import sys, heliosaudit
c = heliosaudit.connect(sys.argv[1], heliosaudit.Policy(log_select=True, async_buffer_size=77, flush_interval=60))
c.execute("CREATE TABLE IF NOT EXISTS t(x)")
for _ in range(5): c.execute("SELECT * FROM t").fetchall()
print("there", flush=True)
sys.stdin.readline()
c.close()
"""


def begin(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", LIVES, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    return process


def gaps(path: Path) -> list[Any]:
    with closing(apsw.Connection(str(path))) as plain:
        return plain.execute(
            "SELECT record->>21->>'pid', record->>21->>'lost_at_most', record->>21->>'user' FROM __audit_log WHERE operation = 'GAP'"
        ).fetchall()


def open_rows(path: Path) -> int:
    with closing(apsw.Connection(str(path))) as plain:
        return int(plain.execute("SELECT count(*) FROM __audit_open").get)  # type: ignore[arg-type]


def test_a_killed_session_is_told_once_with_what_its_buffer_held(tmp_path: Path) -> None:
    process = begin(tmp_path / "db")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    for _ in range(3):
        with closing(heliosaudit.connect(tmp_path / "db", POLICY)) as connection:
            connection.execute("SELECT 1").fetchall()
    [(pid, most, user)] = gaps(tmp_path / "db")
    assert (pid, most) == (process.pid, 77)
    assert user
    assert open_rows(tmp_path / "db") == 0
    with closing(apsw.Connection(str(tmp_path / "db"))) as plain:
        assert verify(plain).ok


def test_a_session_that_closed_and_one_that_lives_are_no_gaps(tmp_path: Path) -> None:
    process = begin(tmp_path / "db")
    with closing(heliosaudit.connect(tmp_path / "db", POLICY)), closing(heliosaudit.connect(tmp_path / "db", POLICY)):
        assert open_rows(tmp_path / "db") == 3
    assert open_rows(tmp_path / "db") == 1
    process.communicate("\n")
    assert process.returncode == 0
    heliosaudit.connect(tmp_path / "db", POLICY).close()
    assert gaps(tmp_path / "db") == []
    assert open_rows(tmp_path / "db") == 0


@pytest.mark.parametrize(
    ("change", "is_gone"),
    [("boot = 'another'", True), ("started = '1'", True), ("host = 'another'", False), ("buffer = 5", False)],
)
def test_another_process_of_that_number_and_another_machine_are_told_apart(tmp_path: Path, change: str, is_gone: bool) -> None:
    if not presences._boot() or not presences._started(os.getpid()):
        pytest.skip("this system does not say when a process began")
    process = begin(tmp_path / "db")
    with closing(apsw.Connection(str(tmp_path / "db"))) as plain:
        plain.execute(f"UPDATE __audit_open SET {change}")
    heliosaudit.connect(tmp_path / "db", POLICY).close()
    assert (len(gaps(tmp_path / "db")) == 1) == is_gone
    process.communicate("\n")


def test_a_busy_database_is_opened_all_the_same(tmp_path: Path) -> None:
    heliosaudit.connect(tmp_path / "db", POLICY).close()
    with closing(apsw.Connection(str(tmp_path / "db"))) as other:
        other.execute("BEGIN IMMEDIATE")
        connection = heliosaudit.connect(tmp_path / "db", POLICY)
        other.execute("ROLLBACK")
    connection.execute("CREATE TABLE t(x)")
    connection.close()
    with closing(apsw.Connection(str(tmp_path / "db"))) as plain:
        assert plain.execute("SELECT count(*) FROM __audit_log WHERE operation IN ('OPEN', 'CLOSE')").get == 4
    assert gaps(tmp_path / "db") == []


def test_a_log_from_before_there_were_gaps_gets_its_table(tmp_path: Path) -> None:
    heliosaudit.connect(tmp_path / "db", POLICY).close()
    with closing(apsw.Connection(str(tmp_path / "db"))) as plain:
        plain.execute("DROP TABLE __audit_open")
    with closing(heliosaudit.connect(tmp_path / "db", POLICY)):
        assert open_rows(tmp_path / "db") == 1
