"""What is timed: the same SQL for every subject.

Runs inside a worker process, in the virtual environment of one subject, so it imports nothing but the standard
library. It leaves opening a database to ``pagebench.subjects`` and statistics to ``pagebench.report``.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

MARKER = "MARKER-visit-note-"
BODY_BYTES = 200
ROW_BYTES = 225  # at most, on a page
PAGE_OVERHEAD = 128  # at most: what a page header and reserved bytes take
BLOBS = 192
BLOB_BYTES = 1 << 16  # more would time the allocator: from 128 KiB on, each result is freshly mapped memory
SMALL_CACHE = 50  # pages: everything but the upper levels of the b-tree comes through the VFS
DEFAULT_CACHE = -2000  # KiB, SQLite's own default
BIG_CACHE = -131072  # KiB: the whole table
COLD_READS = 4000
HOT_READS = 12000
HOT_CALLS = 2000
TRANSACTION_UPDATES = 5000
FULL_COMMITS = 250
NORMAL_COMMITS = 1500  # the log passes 1000 pages: an automatic checkpoint is among them

POINT_READS = """SELECT sum(record.amount) FROM temp.wanted AS wanted
    CROSS JOIN record ON record.id = wanted.id WHERE wanted.position <= ?"""


class Cursor(Protocol):
    """What APSW and DB-API cursors have in common."""

    def fetchall(self) -> list[Any]:
        """Return all remaining rows."""


class Connection(Protocol):
    """What APSW and DB-API connections have in common."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Sequence[Sequence[Any]], /) -> Cursor:
        """Run one statement for each set of parameters."""

    def close(self) -> None:
        """Close the connection."""


@dataclass
class Sample:
    """One timing: seconds of wall clock and of process CPU, for so many units, with a value all subjects must share."""

    wall: float
    cpu: float
    units: int
    check: int


class Stopwatch:
    """Time a ``with`` block by wall clock and by the process's CPU."""

    def __enter__(self) -> Stopwatch:  # noqa: PYI034 - typing.Self is Python 3.11's
        """Start both clocks."""
        self._cpu = time.process_time()
        self._wall = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop both clocks."""
        self.wall = time.perf_counter() - self._wall
        self.cpu = time.process_time() - self._cpu

    def sample(self, units: int, check: int) -> Sample:
        """Return the timing as a sample."""
        return Sample(self.wall, self.cpu, units, check)


@dataclass
class Bench:
    """One database under test, and what the workloads need to know of it."""

    connect: Callable[[], Connection]
    path: Path
    page_size: int
    rows: int
    seed: int
    table_pages: int = field(init=False)
    draws: random.Random = field(init=False)
    new_rows: list[tuple[int, int, str]] = field(default_factory=list)
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        """Open the database and seed the draws, alike for all subjects."""
        self.connection = self.connect()
        self.table_pages = self.value("PRAGMA user_version")
        self.draws = random.Random(self.seed)

    def start_over(self) -> None:
        """Replace the database by an empty one."""
        self.connection.close()
        self.path.unlink(missing_ok=True)
        self.connection = self.connect()

    def value(self, sql: str, *parameters: object) -> int:
        """Return the single value of a query."""
        return int(self.connection.execute(sql, parameters).fetchall()[0][0])

    def run(self, sql: str) -> None:
        """Run a statement to its end."""
        self.connection.execute(sql).fetchall()

    def cache(self, size: int) -> None:
        """Set the page cache to ``size`` (SQLite's unit) and drop what it holds."""
        self.run(f"PRAGMA cache_size = {size}")
        self.run("PRAGMA shrink_memory")

    def wanted(self, count: int) -> list[int]:
        """Draw ``count`` random row ids."""
        return self.draws.choices(range(1, self.rows + 1), k=count)

    def wal_bytes(self) -> int:
        """Return the size of the write-ahead log."""
        return self.path.with_name(self.path.name + "-wal").stat().st_size


def settle(connection: Connection) -> None:
    """Give a fresh connection the settings that all subjects share, and see that they took."""
    for pragma, value, reads_back in (
        ("journal_mode", "WAL", "wal"),
        ("synchronous", "NORMAL", "1"),
        ("temp_store", "MEMORY", "2"),
        ("secure_delete", "OFF", "0"),
        ("cache_size", DEFAULT_CACHE, str(DEFAULT_CACHE)),
        ("wal_autocheckpoint", "1000", "1000"),
    ):
        connection.execute(f"PRAGMA {pragma} = {value}").fetchall()
        got = str(connection.execute(f"PRAGMA {pragma}").fetchall()[0][0])
        if got != reads_back:
            message = f"PRAGMA {pragma} is {got}, wanted {reads_back}"
            raise RuntimeError(message)
    connection.execute("PRAGMA mmap_size = 0").fetchall()


def _new_rows(bench: Bench) -> list[tuple[int, int, str]]:
    filler = (BODY_BYTES - len(MARKER)) // 2
    randrange, randbytes = bench.draws.randrange, bench.draws.randbytes
    return [(n, randrange(1 << 30), MARKER + randbytes(filler).hex()) for n in range(1, bench.rows + 1)]


def bulk_insert(bench: Bench) -> Sample:
    """Insert all rows into a new database in one transaction; SQLite's automatic checkpoint is in the time."""
    bench.start_over()
    bench.run("CREATE TABLE record(id INTEGER PRIMARY KEY, amount INTEGER, body TEXT)")
    rows = bench.new_rows = bench.new_rows or _new_rows(bench)
    with Stopwatch() as watch:
        bench.run("BEGIN")
        bench.connection.executemany("INSERT INTO record VALUES (?, ?, ?)", rows)
        bench.run("COMMIT")
    if bench.value("PRAGMA page_size") != bench.page_size:
        message = "the page size did not take"
        raise RuntimeError(message)
    bench.table_pages = bench.value("PRAGMA page_count")
    bench.run(f"PRAGMA user_version = {bench.table_pages}")
    return watch.sample(bench.rows, bench.value("SELECT sum(amount) FROM record"))


def prepare(bench: Bench) -> Sample:
    """Add what the read workloads need (untimed in the report) and move everything into the database file."""
    bench.new_rows.clear()
    with Stopwatch() as watch:
        bench.run("CREATE TABLE picture(id INTEGER PRIMARY KEY, body BLOB)")
        bench.run("BEGIN")
        for number in range(1, BLOBS + 1):
            body = bench.draws.randbytes(BLOB_BYTES)
            bench.connection.execute("INSERT INTO picture VALUES (?, ?)", (number, body)).fetchall()
        bench.run("COMMIT")
        bench.run("PRAGMA wal_checkpoint(TRUNCATE)")
    if bench.wal_bytes():
        message = "the checkpoint left something in the log"
        raise RuntimeError(message)
    return watch.sample(1, bench.value("SELECT count(*) FROM picture"))


def cold_scan(bench: Bench) -> Sample:
    """Read the whole table with a small cache."""
    bench.cache(SMALL_CACHE)
    with Stopwatch() as watch:
        check = bench.value("SELECT sum(amount) FROM record")
    return watch.sample(bench.table_pages, check)


def cold_points(bench: Bench) -> Sample:
    """Read random rows with a small cache, in one statement."""
    bench.cache(SMALL_CACHE)
    with Stopwatch() as watch:
        check = bench.value(POINT_READS, COLD_READS)
    return watch.sample(COLD_READS, check)


def cold_blobs(bench: Bench) -> Sample:
    """Fetch big values whole; SQLite reads their overflow pages directly, past its cache."""
    bench.cache(SMALL_CACHE)
    execute, check = bench.connection.execute, 0
    with Stopwatch() as watch:
        for number in range(1, BLOBS + 1):
            check += len(execute("SELECT body FROM picture WHERE id = ?", (number,)).fetchall()[0][0])
    return watch.sample(BLOBS * BLOB_BYTES // bench.page_size, check)


def want(bench: Bench) -> Sample:
    """Keep row ids in memory, so that one statement can read them all (untimed in the report)."""
    with Stopwatch() as watch:
        bench.run("CREATE TEMP TABLE wanted(position INTEGER PRIMARY KEY, id INTEGER)")
        rows = list(enumerate(bench.wanted(HOT_READS), start=1))
        bench.connection.executemany("INSERT INTO temp.wanted VALUES (?, ?)", rows)
    return watch.sample(1, bench.value("SELECT sum(id) FROM temp.wanted"))


def warm(bench: Bench) -> Sample:
    """Fill a big cache (untimed in the report)."""
    bench.cache(BIG_CACHE)
    with Stopwatch() as watch:
        check = bench.value("SELECT sum(amount) FROM record")
    return watch.sample(1, check)


def hot_points(bench: Bench) -> Sample:
    """Read random rows from a warm cache, in one statement: the cost of the VFS where it should have none."""
    with Stopwatch() as watch:
        check = bench.value(POINT_READS, HOT_READS)
    return watch.sample(HOT_READS, check)


def hot_calls(bench: Bench) -> Sample:
    """Read random rows from a warm cache, one statement each, every one a read transaction."""
    execute, check, wanted = bench.connection.execute, 0, bench.wanted(HOT_CALLS)
    with Stopwatch() as watch:
        for number in wanted:
            check += execute("SELECT amount FROM record WHERE id = ?", (number,)).fetchall()[0][0]
    return watch.sample(HOT_CALLS, check)


def transaction_updates(bench: Bench) -> Sample:
    """Update random rows in one transaction."""
    bench.cache(DEFAULT_CACHE)
    changes = [(number % 1000, number) for number in bench.wanted(TRANSACTION_UPDATES)]
    with Stopwatch() as watch:
        bench.run("BEGIN")
        bench.connection.executemany("UPDATE record SET amount = ? WHERE id = ?", changes)
        bench.run("COMMIT")
    return watch.sample(TRANSACTION_UPDATES, bench.value("SELECT sum(amount) FROM record"))


def _commits(bench: Bench, count: int) -> Sample:
    bench.cache(DEFAULT_CACHE)
    bench.run("PRAGMA wal_checkpoint(TRUNCATE)")
    execute, wanted = bench.connection.execute, bench.wanted(count)
    with Stopwatch() as watch:
        for number in wanted:
            execute("UPDATE record SET amount = amount + 1 WHERE id = ?", (number,)).fetchall()
    return watch.sample(count, bench.value("SELECT sum(amount) FROM record"))


def full_commits(bench: Bench) -> Sample:
    """Update random rows, each its own transaction, synced at each commit."""
    bench.run("PRAGMA synchronous = FULL")
    sample = _commits(bench, FULL_COMMITS)
    bench.run("PRAGMA synchronous = NORMAL")
    return sample


def normal_commits(bench: Bench) -> Sample:
    """Update random rows, each its own transaction, synced at checkpoints only."""
    return _commits(bench, NORMAL_COMMITS)


def rewrite(bench: Bench) -> Sample:
    """Change one row on every page in one transaction: each page is read once and written once, into the log."""
    bench.cache(DEFAULT_CACHE)
    bench.run("PRAGMA wal_checkpoint(TRUNCATE)")
    bench.run("PRAGMA wal_autocheckpoint = 0")
    # A stride below the number of rows that any subject gets onto a page hits every page.
    stride = (bench.page_size - PAGE_OVERHEAD) // ROW_BYTES
    with Stopwatch() as watch:
        bench.run("BEGIN")
        bench.run(f"UPDATE record SET amount = amount + 1 WHERE id % {stride} = 0")
        bench.run("COMMIT")
    frames = bench.wal_bytes() // (24 + bench.page_size)
    if frames < bench.table_pages * 9 // 10:
        message = f"only {frames} frames written for {bench.table_pages} pages"
        raise RuntimeError(message)
    return watch.sample(frames, bench.value("SELECT sum(amount) FROM record"))


def log_scan(bench: Bench) -> Sample:
    """Read the whole table with a small cache while its pages are in the log, not yet in the database file."""
    return cold_scan(bench)


def checkpoint(bench: Bench) -> Sample:
    """Move the log into the database file: each page is read once and written once, then both files are synced."""
    if not bench.wal_bytes():
        rewrite(bench)
    frames = bench.wal_bytes() // (24 + bench.page_size)
    with Stopwatch() as watch:
        bench.run("PRAGMA wal_checkpoint(TRUNCATE)")
    return watch.sample(frames, bench.value("SELECT sum(amount) FROM record"))


@dataclass(frozen=True)
class Workload:
    """A row of the table; ``passes`` says how often a process times it, ``unit`` is empty for preparations."""

    name: str
    label: str
    unit: str
    run: Callable[[Bench], Sample]
    passes: int = 1


WRITES = (
    Workload("bulk_insert", "bulk insert, one transaction", "row", bulk_insert, passes=3),
    Workload("prepare", "", "", prepare),
    Workload("transaction_updates", "update in a transaction", "row", transaction_updates, passes=3),
    Workload("full_commits", "autocommit update, FULL", "commit", full_commits, passes=8),
    Workload("normal_commits", "autocommit update, NORMAL", "commit", normal_commits, passes=4),
    Workload("rewrite", "one row changed on every page", "page", rewrite, passes=3),
    Workload("log_scan", "cold full scan of the WAL", "page", log_scan, passes=3),
    Workload("checkpoint", "checkpoint", "page", checkpoint, passes=3),
)
# Where a process's memory happens to lie moves these by several per cent, so each round starts several processes.
READS = (
    Workload("want", "", "", want),
    Workload("cold_scan", "cold full scan", "page", cold_scan, passes=3),
    Workload("cold_points", "cold point reads", "read", cold_points, passes=3),
    Workload("cold_blobs", "cold 64 KiB blobs", "page", cold_blobs, passes=3),
    Workload("warm", "", "", warm),
    Workload("hot_points", "hot point reads, one statement", "read", hot_points, passes=10),
    Workload("hot_calls", "hot point reads, one call each", "read", hot_calls, passes=10),
)
BY_NAME = {workload.name: workload for workload in (*READS, *WRITES)}
