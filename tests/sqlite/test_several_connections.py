"""Three connections to one file, a random step at a time, do on an encrypted database what they do on plain SQLite.

Their transactions outgrow the cache, are rolled back in part or whole, and meet each other's: what a VFS keeps in memory of one
transaction must not show in another.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.sqlite.workload import Encrypted, Plain, folders

CONNECTIONS = 3


def opened(subject: Plain | Encrypted, journal_mode: str, autocheckpoint: int) -> list[apsw.Connection]:
    connections = [subject.open("db") for _ in range(CONNECTIONS)]
    connections[0].pragma("journal_mode", journal_mode)
    connections[0].execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB, y); CREATE INDEX i ON t(y); CREATE TABLE one(n)")
    connections[0].execute("INSERT INTO one VALUES(0)")
    for connection in connections:
        connection.set_busy_timeout(0)
        connection.pragma("cache_size", 5)
        connection.pragma("wal_autocheckpoint", autocheckpoint)
        assert connection.execute("SELECT n FROM one").fetchall() == [(0,)]  # a checkpoint does nothing before the first read
    return connections


def drawn(draws: random.Random) -> tuple[str, list[tuple[object, ...]]]:
    """Draw a statement, and its bindings: for one run, or for many where there are rows."""
    kinds = {
        "begin": (4, ["BEGIN", "BEGIN IMMEDIATE"]),
        "end": (5, ["COMMIT", "ROLLBACK", "ROLLBACK"]),
        "savepoint": (5, [f"{what} {name}" for what in ("SAVEPOINT", "ROLLBACK TO", "ROLLBACK TO", "RELEASE") for name in "abc"]),
        "insert": (9, ["INSERT INTO t(x, y) VALUES(?, ?)"]),
        "update": (4, [f"UPDATE t SET x = CAST(x || x'00' AS BLOB), y = y + 1 WHERE y % 7 = {n} RETURNING id" for n in range(7)]),
        "delete": (2, [f"DELETE FROM t WHERE y % 9 = {n}" for n in range(9)]),
        "one": (9, ["UPDATE one SET n = n + 1"]),  # one frame, where it is a transaction
        "read": (4, ["SELECT n FROM one", "SELECT id, x, y FROM t", "SELECT y, count(*) FROM t GROUP BY y"]),
        "checkpoint": (1, [f"PRAGMA wal_checkpoint({mode})" for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE")]),
    }
    (kind,) = draws.choices(list(kinds), [weight for weight, _ in kinds.values()])
    rows: list[tuple[object, ...]] = []
    if kind == "insert":
        rows = [(draws.randbytes(draws.choice([20, 200, 1500])), draws.randrange(50)) for _ in range(draws.choice([1, 5, 40]))]
    return draws.choice(kinds[kind][1]), rows


def outcome(connection: apsw.Connection, sql: str, rows: list[tuple[object, ...]]) -> list[tuple[Any, ...]] | str:
    """Return what a statement returns, or the name of its error."""
    try:
        return (connection.executemany(sql, rows) if rows else connection.execute(sql)).fetchall()
    except apsw.Error as error:
        return type(error).__name__


def compare(folder: Path, seed: int, steps: int, journal_mode: str) -> None:
    draws = random.Random(seed)
    page_size = draws.choice([512, 512, 1024, 4096])
    autocheckpoint = draws.choice([0, 0, 30])
    plain, encrypted = folders(folder)
    theirs = opened(Plain(plain, page_size, "none"), journal_mode, autocheckpoint)
    ours = opened(Encrypted(encrypted, page_size, "none"), journal_mode, autocheckpoint)
    done: list[str] = []
    for _ in range(steps):
        number = draws.randrange(CONNECTIONS)
        sql, rows = drawn(draws)
        done.append(f"{number}: {sql} {len(rows)}")
        assert outcome(ours[number], sql, rows) == outcome(theirs[number], sql, rows), f"seed {seed}: {done[-40:]}"
        assert ours[number].in_transaction == theirs[number].in_transaction, f"seed {seed}: {done[-40:]}"
    for connections in (ours, theirs):
        for connection in connections:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    content = "SELECT id, x, y FROM t"
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.execute(content).fetchall() == other.execute(content).fetchall()
        assert mine.pragma("integrity_check") == "ok"
    for connection in (*ours, *theirs):
        connection.close()


@pytest.mark.parametrize("seed", range(24))
def test_three_connections_do_what_they_do_on_plain_sqlite(tmp_path: Path, seed: int) -> None:
    compare(tmp_path, seed, 250, "delete" if seed % 6 == 5 else "wal")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 2500))
def test_many_programs_of_three_connections(tmp_path: Path, seed: int) -> None:
    compare(tmp_path, seed, 600, "delete" if seed % 10 == 9 else "wal")
