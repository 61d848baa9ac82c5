"""Measure heliosvfs.dbapi2 beside Python's own sqlite3: ``python bench/dbapi.py``.

Each timing goes round all subjects before the next begins, so that a slow moment of the machine hits all alike; a subject's
figure is its best. Shown are microseconds for each row or execution, and the ratio to Python's own sqlite3 on the same kind of
database. ``apsw`` is there for comparison, on the same VFS: what a layer above it can't undercut. Outside a transaction each
SELECT takes and gives back SQLite's locks, which are calls into Python with a rollback journal and hardly any in WAL mode.
"""

# ruff: noqa: ARG001 - each workload takes a connection, a cursor and rows

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # this source tree, whatever is installed

import apsw  # noqa: E402

import heliosvfs  # noqa: E402
from heliosvfs import dbapi2  # noqa: E402

CACHE = "PRAGMA cache_size = -65536"  # hot: all of the table is in the cache
POINTS = 1_000
HEADER = b"SQLite format 3\0"


class Subject(NamedTuple):
    """What is measured, and on which kind of database."""

    name: str
    where: str
    connection: Any


def subjects_in(folder: Path) -> list[Subject]:
    """Open the databases: in memory, files in WAL mode, files with a rollback journal; all but sqlite3's files encrypted."""
    key = os.urandom(32)
    subjects = [
        Subject("sqlite3", "memory", sqlite3.connect(":memory:", isolation_level=None)),
        Subject("dbapi2", "memory", dbapi2.connect(":memory:", isolation_level=None)),
        Subject("apsw", "memory", apsw.Connection(":memory:")),
    ]
    for where, mode in (("file", "wal"), ("file, rollback", "delete")):
        opened = [
            Subject("sqlite3", where, sqlite3.connect(folder / f"plain-{mode}.db", isolation_level=None)),
            Subject("dbapi2", where, dbapi2.connect(folder / f"encrypted-{mode}.db", isolation_level=None, key=key)),
            Subject("apsw", where, heliosvfs.connect(folder / f"apsw-{mode}.db", key=key, journal_mode=mode)),
        ]
        for subject in opened:
            subject.connection.cursor().execute(f"PRAGMA journal_mode = {mode}").fetchall()
        subjects += opened
    return subjects


def fill(connection: Any, rows: list[tuple[Any, ...]]) -> None:
    """Make the tables."""
    cursor = connection.cursor()
    cursor.execute(CACHE)
    cursor.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, amount REAL)")
    cursor.execute("CREATE TABLE u(id INTEGER PRIMARY KEY, name TEXT, amount REAL)")
    cursor.execute("BEGIN")
    cursor.executemany("INSERT INTO t VALUES(?, ?, ?)", rows)
    cursor.execute("COMMIT")


def point_select(connection: Any, cursor: Any, rows: list[tuple[Any, ...]]) -> int:
    """Execute a SELECT of one row by its key, and fetch it."""
    execute = cursor.execute
    for number in range(POINTS):
        execute("SELECT * FROM t WHERE id = ?", (number,)).fetchone()
    return POINTS


def connection_execute(connection: Any, cursor: Any, rows: list[tuple[Any, ...]]) -> int:
    """Do the same with a new cursor each time."""
    execute = connection.execute
    for number in range(POINTS):
        execute("SELECT * FROM t WHERE id = ?", (number,)).fetchone()
    return POINTS


def fetchall(connection: Any, cursor: Any, rows: list[tuple[Any, ...]]) -> int:
    """Fetch all rows at once."""
    assert len(cursor.execute("SELECT * FROM t").fetchall()) == len(rows)  # noqa: S101 - or the figure means nothing
    return len(rows)


def iterate(connection: Any, cursor: Any, rows: list[tuple[Any, ...]]) -> int:
    """Iterate over all rows."""
    for _ in cursor.execute("SELECT * FROM t"):
        pass
    return len(rows)


def executemany(connection: Any, cursor: Any, rows: list[tuple[Any, ...]]) -> int:
    """Insert all rows in one transaction, which is rolled back."""
    cursor.execute("BEGIN")
    cursor.executemany("INSERT INTO u VALUES(?, ?, ?)", rows)
    cursor.execute("ROLLBACK")
    return len(rows)


def executemany_generator(connection: Any, cursor: Any, rows: list[tuple[Any, ...]]) -> int:
    """Insert what a generator gives."""
    cursor.execute("BEGIN")
    cursor.executemany("INSERT INTO u VALUES(?, ?, ?)", (row for row in rows))
    cursor.execute("ROLLBACK")
    return len(rows)


def insert(connection: Any, cursor: Any, rows: list[tuple[Any, ...]]) -> int:
    """Insert rows one by one in one transaction, which is rolled back."""
    cursor.execute("BEGIN")
    for row in rows[:POINTS]:
        cursor.execute("INSERT INTO u VALUES(?, ?, ?)", row)
    cursor.execute("ROLLBACK")
    return POINTS


class Workload(NamedTuple):
    """Something to measure, and how often in each round.

    Attributes:
        run: Does it, and returns how many units it was.
        passes: How often in each round.
        most: The ratio to Python's own sqlite3 that is allowed, in memory and on a file in WAL mode.
    """

    run: Callable[[Any, Any, list[tuple[Any, ...]]], int]
    passes: int
    most: float | None = None


WORKLOADS = [
    Workload(point_select, 8, 1.2),
    Workload(connection_execute, 8),
    Workload(insert, 8),
    Workload(fetchall, 1, 1.0),
    Workload(iterate, 1),
    Workload(executemany, 1, 1.0),
    Workload(executemany_generator, 1),
]


def measure(subjects: list[Subject], rows: list[tuple[Any, ...]], rounds: int) -> dict[str, dict[Subject, float]]:
    """Return each subject's best time for one unit of each workload, in microseconds."""
    best: dict[str, dict[Subject, float]] = {}
    cursors = {subject: subject.connection.cursor() for subject in subjects}
    for workload in WORKLOADS:
        times = best[workload.run.__name__] = dict.fromkeys(subjects, float("inf"))
        for number in range(rounds * workload.passes):
            for subject in subjects[number % len(subjects) :] + subjects[: number % len(subjects)]:
                started = time.perf_counter()
                units = workload.run(subject.connection, cursors[subject], rows)
                times[subject] = min(times[subject], (time.perf_counter() - started) / units * 1e6)
                cursors[subject].execute("SELECT 1").fetchall()  # so that APSW gives up its lock
    return best


def main() -> int:
    """Measure and print; 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often everything is measured (default 7)")
    parser.add_argument("--rows", type=int, default=100_000, help="rows in the table (default 100000)")
    parser.add_argument("--dir", type=Path, help="where databases are made (default: the temporary directory)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    rows = [(number, f"name {number}", number * 0.5) for number in range(arguments.rows)]
    with tempfile.TemporaryDirectory(prefix="dbapi-", dir=arguments.dir) as folder:
        subjects = subjects_in(Path(folder))
        for subject in subjects:
            fill(subject.connection, rows)
        best = measure(subjects, rows, arguments.rounds)
        for subject in subjects:
            subject.connection.close()
        heads = [(Path(folder) / name).read_bytes()[: len(HEADER)] for name in ("plain-wal.db", "encrypted-wal.db")]
    assert heads[0] == HEADER != heads[1]  # noqa: S101 - or the figures mean nothing
    return report(best, arguments)


def report(best: dict[str, dict[Subject, float]], arguments: argparse.Namespace) -> int:
    """Print the figures and their ratios, write them where asked, and judge them."""
    print(
        f"Python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores; sqlite3 with SQLite "
        f"{sqlite3.sqlite_version}, APSW with {apsw.sqlite_lib_version()}; {arguments.rows} rows, {arguments.rounds} rounds\n"
    )
    print(f"{'µs for each row or execution':30}{'database':16}{'sqlite3':>9}{'apsw':>9}{'dbapi2':>9}{'ratio':>8}")
    records, missed = [], 0
    for workload in WORKLOADS:
        name = workload.run.__name__
        times = {(subject.name, subject.where): value for subject, value in best[name].items()}
        for where in ("memory", "file", "file, rollback"):
            theirs, ours, floor = (times[subject, where] for subject in ("sqlite3", "dbapi2", "apsw"))
            ratio = ours / theirs
            verdict = ""
            if workload.most is not None and where != "file, rollback":
                verdict = f"  {'met   ' if ratio <= workload.most else 'MISSED'} at most {workload.most}"
                missed += ratio > workload.most
            print(f"{name:30}{where:16}{theirs:9.3f}{floor:9.3f}{ours:9.3f}{ratio:8.2f}{verdict}")
            records.append({"workload": name, "where": where, "sqlite3": theirs, "apsw": floor, "dbapi2": ours, "ratio": ratio})
    print("\nfile: sqlite3's is plain, the others' are encrypted; WAL unless said; hot, the whole table is in the page cache")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": arguments.rows, "records": records}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
