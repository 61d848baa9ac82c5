"""What auditing costs: the same work on a plain and on an audited connection, in one run.

python bench/audit.py [--encrypted] [--events N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw

import heliosaudit
import heliosvfs
from heliosaudit import stores
from heliosaudit.events import event_of
from heliosaudit.segments import PlainFile
from heliosaudit.verifications import verify

KEY = bytes(range(32))
POLICY = heliosaudit.Policy(log_select=True)
ROUNDS = 5


def connect(folder: Path, *, audited: bool, encrypted: bool) -> apsw.Connection:
    path = folder / ("audited" if audited else "plain")
    if encrypted:
        return heliosvfs.connect(path, key=KEY, audit=POLICY if audited else None)
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    if audited:
        connection.close()
        connection = heliosaudit.connect(path, POLICY)
    return connection


def bulk(connection: apsw.Connection) -> float:
    """Microseconds a row of 50,000 rows in one transaction."""
    connection.execute("DELETE FROM t").fetchall()
    begun = time.perf_counter()
    with connection:
        connection.executemany("INSERT INTO t VALUES(?, ?, ?)", ((n, f"some text {n}", n * 1.5) for n in range(50_000)))
    return (time.perf_counter() - begun) / 50_000 * 1e6


def autocommit(synchronous: str, count: int) -> Callable[[apsw.Connection], float]:
    """Microseconds of an INSERT that is its own transaction."""

    def measure(connection: apsw.Connection) -> float:
        connection.pragma("synchronous", synchronous)
        connection.execute("DELETE FROM u").fetchall()
        begun = time.perf_counter()
        for number in range(count):
            connection.execute("INSERT INTO u VALUES(?, ?)", (number, "abc"))
        return (time.perf_counter() - begun) / count * 1e6

    return measure


def points(connection: apsw.Connection) -> float:
    """Microseconds of a SELECT by rowid."""
    begun = time.perf_counter()
    for number in range(10_000):
        connection.execute("SELECT a FROM t WHERE i = ?", (number,)).fetchall()
    return (time.perf_counter() - begun) / 10_000 * 1e6


def scan(connection: apsw.Connection) -> float:
    """Microseconds a row of a loop over 50,000 rows."""
    begun = time.perf_counter()
    for _ in connection.execute("SELECT * FROM t"):
        pass
    return (time.perf_counter() - begun) / 50_000 * 1e6


WORK: dict[str, Callable[[apsw.Connection], float]] = {
    "bulk, a row": bulk,
    "select by rowid": points,
    "scan, a row": scan,
    "autocommit, FULL": autocommit("full", 300),
    "autocommit, NORMAL": autocommit("normal", 2000),
}


def compare(folder: Path, *, encrypted: bool) -> dict[str, dict[str, float]]:
    both = [connect(folder, audited=audited, encrypted=encrypted) for audited in (False, True)]
    for connection in both:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, a, b); CREATE TABLE u(i INTEGER PRIMARY KEY, a)").fetchall()
    found: dict[str, dict[str, float]] = {}
    for name, measure in WORK.items():
        times = [[measure(connection) for connection in both] for _ in range(ROUNDS)]
        plain, audited = (statistics.median(column) for column in zip(*times, strict=True))
        found[name] = {"plain": plain, "audited": audited, "added": audited - plain, "ratio": audited / plain}
    for connection in both:
        connection.close()
    return found


def log_of(folder: Path, events: int) -> dict[str, float]:
    """Verification, filters and size of a log of many events."""
    with closing(apsw.Connection(str(folder / "log"))) as connection:
        connection.pragma("journal_mode", "wal")
        connection.execute("BEGIN IMMEDIATE")
        stores.create(connection, "root")
        connection.execute("COMMIT")
        begun = time.perf_counter()
        for start in range(0, events, 20_000):
            made = [
                event_of(
                    "INSERT" if n % 100 else "DELETE",
                    event_class="DML",
                    user=f"u{n % 5000}",
                    target=f"t{n % 3000}",
                    query=f"INSERT INTO t VALUES({n}, 'some text')",
                    affected_rows=1,
                    success=bool(n % 9973),
                )
                for n in range(start, min(start + 20_000, events))
            ]
            stores.in_transaction(connection, made)
        written = time.perf_counter() - begun
        report = verify(connection)
        assert report.ok and report.head is not None  # noqa: PT018, S101
        found = {
            "events": report.events,
            "written, events/s (events made by hand, too)": events / written,
            "verified, events/s": report.events / report.seconds,
            "verified on two cores, events/s": report.events
            / verify(connection, workers=2, opener=PlainFile(str(folder / "log"))).seconds,
            "verified since the head, ms": verify(connection, since=report.head).seconds * 1000,
            "bytes an event": int(connection.pragma("page_count")) * int(connection.pragma("page_size")) / events,
        }
        moment = connection.execute("SELECT timestamp FROM __audit_log WHERE id = ?", (events // 2,)).get
        filters = {
            "user": "\"user\" = 'u77'",
            "target": "target = 't77'",
            "operation, newest 100": "operation = 'DELETE' ORDER BY id DESC LIMIT 100",
            "failures": "success = 0",
            "time, 100 events": f"timestamp >= '{moment}' ORDER BY timestamp LIMIT 100",
        }
        for name, where in filters.items():
            begun = time.perf_counter()
            connection.execute(f"SELECT id, query FROM __audit_log WHERE {where}").fetchall()
            found[f"filter by {name}, ms"] = (time.perf_counter() - begun) * 1000
    return found


_MEMORY = """
import sys, heliosaudit
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
connection = heliosaudit.connect(sys.argv[1], heliosaudit.Policy())
connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, a, b)").fetchall()
before = peak()
connection.execute("BEGIN").fetchall()
connection.executemany("INSERT INTO t VALUES(?, ?, ?)", ((n, f"some text {n}", n * 1.5) for n in range(int(sys.argv[2]))))
connection.execute(sys.argv[3]).fetchall()
print(peak() - before)
connection.close()
"""


def memory_of(folder: Path, events: int) -> dict[str, float]:
    """MiB that a process needs more for one transaction of many events (Linux tells the peak)."""
    if not Path("/proc/self/status").exists():
        return {}
    found = {}
    for end in ("COMMIT", "ROLLBACK"):
        with closing(apsw.Connection(str(folder / end))) as connection:
            connection.pragma("journal_mode", "wal")
        arguments = [sys.executable, "-c", _MEMORY, str(folder / end), str(events), end]
        said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        found[f"memory of {events:,} events until {end}, MiB"] = float(said)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encrypted", action="store_true", help="on heliosvfs, not on plain files")
    parser.add_argument("--events", type=int, default=1_000_000, help="size of the log that is verified and filtered")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work, log = compare(Path(folder), encrypted=options.encrypted), log_of(Path(folder), options.events)
        log |= memory_of(Path(folder), options.events)
    print(f"{'':22}{'plain':>10}{'audited':>10}{'added':>10}{'ratio':>8}   (microseconds, medians of {ROUNDS})")
    for name, row in work.items():
        print(f"{name:22}{row['plain']:10.2f}{row['audited']:10.2f}{row['added']:10.2f}{row['ratio']:8.2f}")
    for name, value in log.items():
        print(f"{name:46}{value:14,.2f}")
    if options.json:
        options.json.write_text(json.dumps({"work": work, "log": log}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
