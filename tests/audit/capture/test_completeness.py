"""Each statement has exactly one event, or is counted in one (A1): compared with SQLite's own trace of what it started."""

from __future__ import annotations

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit.connections import AuditedConnection

POLICY = heliosaudit.Policy(log_select=True, log_transactions=True)
OWN = ("GENESIS", "OPEN", "CLOSE", "CLOCK STEP", "ROLLED BACK EVENTS")
BAD = [
    "SELEC 1",
    "SELECT * FROM missing",
    "INSERT INTO t VALUES(1, 2, 3, 4)",
    "DELETE FROM __audit_log",
    "DROP TABLE __audit_log",
]


class Counting:
    """What SQLite starts on a connection, counted by its own trace, and what it refuses to prepare, counted by the workload."""

    def __init__(self, path: str) -> None:
        self.started: Counter[str] = Counter()
        self.refused = 0
        self.connection = heliosaudit.connect(path, POLICY)
        secret = self.connection.auditor.writer.secret

        def trace(event: dict[str, Any]) -> None:
            if not event["trigger"] and secret not in event["sql"]:
                self.started[event["sql"].split()[0].upper()] += 1

        apsw.Connection.trace_v2(self.connection, apsw.SQLITE_TRACE_STMT, trace, id="count")


def work(counting: Counting, seed: int, statements: int, table: str) -> None:
    """Run statements of all kinds, by all doors; what fails is a part of it."""
    rnd = random.Random(seed)
    counting.connection.execute(f"CREATE TABLE IF NOT EXISTS {table}(i INTEGER PRIMARY KEY, a, b UNIQUE)")
    cursor = counting.connection.cursor()
    for number in range(statements):
        try:
            step(counting, cursor, rnd, table, number)
        except (apsw.SQLError, apsw.AuthError):
            counting.refused += 1  # it was not even prepared
        except (apsw.ConstraintError, apsw.LockedError, apsw.BusyError, ZeroDivisionError):
            pass
        if counting.connection.in_transaction:  # a savepoint that a failure left open
            counting.connection.execute("ROLLBACK")
    cursor.close()


def step(counting: Counting, cursor: apsw.Cursor, rnd: random.Random, table: str, number: int) -> None:
    connection: AuditedConnection = counting.connection
    kind = rnd.randrange(15)
    row = (rnd.randrange(500), "text", rnd.randrange(400))
    if kind < 4:
        connection.execute(f"INSERT INTO {table} VALUES(?, ?, ?)", row)
    elif kind == 4:
        connection.execute(f"UPDATE {table} SET a = ? WHERE i < ?", ("x", row[0] // 10))
    elif kind == 5:
        connection.execute(f"SELECT * FROM {table} WHERE i < ?", (row[0],)).fetchall()
        cursor.execute(f"SELECT * FROM {table} ORDER BY i").fetchone()
    elif kind == 6:
        connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES(?, ?, ?)", [(row[0] + n, "m", None) for n in range(3)])
    elif kind == 7:
        with connection:
            connection.execute(f"DELETE FROM {table} WHERE i = ?", (row[0],))
            if rnd.random() < 0.5:
                raise ZeroDivisionError
    elif kind == 8:
        connection.execute(f"SAVEPOINT s; DELETE FROM {table} WHERE i % 97 = 1; ROLLBACK TO s; RELEASE s").fetchall()
    elif kind == 9:
        connection.execute(rnd.choice(BAD))
    elif kind == 10:
        cursor.execute(f"INSERT INTO {table}(a) VALUES(1), (2), (3) RETURNING i")
        next(cursor, None)
    elif kind == 11:
        connection.execute(f"CREATE TABLE {table}_{number % 5}(x)", can_cache=False)  # or it may fail only when it runs
        connection.execute(f"DROP TABLE {table}_{number % 5}", can_cache=False)
    elif kind == 12:
        connection.pragma("user_version", row[0])
    elif kind == 13:
        connection.execute(f"INSERT OR FAIL INTO {table}(i, b) VALUES(?, 1), (?, 1)", (row[0] + 1000, row[0] + 1001))
    else:
        connection.execute("-- nothing\n;").fetchall()


def counted(path: str) -> tuple[int, int, Counter[str]]:
    """Return how many statements the log speaks of that ran, that were refused, and the first words of those that ran."""
    ran = refused = 0
    operations: Counter[str] = Counter()
    with closing(apsw.Connection(path)) as connection:
        rows = connection.execute("SELECT operation, success, error, record FROM __audit_log ORDER BY id").fetchall()
    for operation, success, error, record in rows:
        if operation in OWN or operation.endswith("(INTENT)"):
            continue
        count = ((json.loads(record)[21] or {}).get("count")) or 1
        if not success and error.startswith(("SQLError", "AccessDenied")):
            refused += count
        else:
            ran += count
            operations[operation.split()[0]] += count
    return ran, refused, operations


def test_no_event_is_missing_and_none_is_there_twice(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    statements = 5000 if request.config.getoption("--soak") else 700
    path = str(tmp_path / "db")
    with closing(apsw.Connection(path)) as connection:
        connection.pragma("journal_mode", "wal")
    countings = [Counting(path) for _ in range(4)]
    try:
        work(countings[0], 0, statements, "t")
        for counting in countings[1:]:
            counting.connection.set_busy_timeout(60_000)
        with ThreadPoolExecutor() as pool:
            futures = [
                pool.submit(work, counting, seed, statements, f"t{seed}") for seed, counting in enumerate(countings[1:], 1)
            ]
            for future in futures:
                future.result()
    finally:
        for counting in countings:
            counting.connection.close()
    ran, refused, operations = counted(path)
    due = sum((counting.started for counting in countings), Counter())
    assert refused == sum(counting.refused for counting in countings)
    assert operations == due
    assert ran == due.total()
