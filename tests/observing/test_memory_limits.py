"""Memory limits, each in a process of its own: they hold for a process, and for good."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heliosvfs import UsageError, memory_limits

WORK = """
import json, sys
import apsw, heliosvfs
from heliosvfs import memory_limits

path, megabytes = sys.argv[1], int(sys.argv[2])
if megabytes:
    memory_limits.limit(megabytes)
found = {}
connections = []
for number in range(6):  # their caches together are more than the limit
    c = heliosvfs.connect(f"{path}{number}", key=bytes(32), cache_mb=memory_limits.cache_share(megabytes or 64))
    connections.append(c)
    c.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)")
    with c:
        c.executemany("INSERT INTO t VALUES(?, randomblob(2000))", ((i,) for i in range(4000)))
    found["sum"] = c.execute("SELECT sum(length(b)) FROM t").get
    c.execute("SELECT sum(length(b)) FROM (SELECT b FROM t ORDER BY b)").fetchall()
found["highest"] = apsw.memory_high_water()
try:
    connections[0].execute("SELECT length(hex(zeroblob(30000000)))").fetchall()
    found["large"] = "answered"
except apsw.NoMemError:
    found["large"] = "refused"
found["after"] = connections[0].execute("SELECT count(*) FROM t").get  # what was refused has broken nothing
print(json.dumps(found))
"""


def run(tmp_path: Path, megabytes: int) -> dict[str, Any]:
    command = [sys.executable, "-c", WORK, str(tmp_path / "db"), str(megabytes)]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout))


def test_sqlite_stays_below_its_limit_and_answers_all_the_same(tmp_path: Path) -> None:
    found = run(tmp_path, 8)
    assert found["highest"] <= 8 << 20
    assert (found["sum"], found["after"]) == (8_000_000, 4000)
    assert found["large"] == "refused"


def test_without_a_limit_the_same_work_takes_more(tmp_path: Path) -> None:
    found = run(tmp_path, 0)
    assert found["highest"] > 16 << 20
    assert (found["sum"], found["after"], found["large"]) == (8_000_000, 4000, "answered")


def test_a_limit_is_only_ever_lowered() -> None:
    script = """
import apsw
from heliosvfs import memory_limits
for megabytes in (64, 16, 32):
    memory_limits.limit(megabytes)
print(apsw.hard_heap_limit(-1) >> 20, apsw.soft_heap_limit(-1) >> 20)
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "16 8\n"


def test_a_limit_is_a_positive_number() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        memory_limits.limit(0)


@pytest.mark.parametrize(("limit", "share"), [(4, 1.0), (8, 2.0), (64, 16.0), (4096, 16.0)])
def test_a_connection_takes_a_quarter_and_no_more_than_usual(limit: int, share: float) -> None:
    assert memory_limits.cache_share(limit) == share
