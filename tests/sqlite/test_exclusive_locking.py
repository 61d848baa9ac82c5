"""Under locking_mode=EXCLUSIVE one handle writes the journals of many transactions, and the write lock is never given up."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosvfs

KEY = bytes(range(32))


def _steps(seed: int) -> list[list[str]]:
    """Return transactions, of which some spill the cache and some are rolled back, all or in part."""
    choose = random.Random(seed)
    transactions = []
    for _ in range(25):
        steps = ["BEGIN"]
        for _ in range(choose.randrange(1, 5)):
            first = choose.randrange(400)
            steps.append(
                choose.choice(
                    [
                        f"UPDATE t SET x = x || {seed} WHERE i % 97 = {first % 97}",
                        f"INSERT OR REPLACE INTO t VALUES({first}, zeroblob({choose.choice([10, 900, 60_000])}))",
                        f"DELETE FROM t WHERE i BETWEEN {first} AND {first + 9}",
                        f"INSERT INTO big VALUES(zeroblob({choose.choice([5_000, 200_000])}))",
                        "DELETE FROM big",
                        "SAVEPOINT s; INSERT INTO big VALUES(zeroblob(90000)); UPDATE t SET x = 1; ROLLBACK TO s; RELEASE s",
                    ]
                )
            )
        steps.append(choose.choice(["COMMIT", "ROLLBACK"]))
        transactions.append(steps)
    return transactions


def _contents(connection: apsw.Connection) -> list[Any]:
    tables = [connection.execute(f"SELECT rowid, * FROM {table} ORDER BY 1").fetchall() for table in ("t", "big")]
    return [*tables, connection.execute("PRAGMA integrity_check").fetchall()]


def _outcome(open_it: Callable[[], apsw.Connection], mode: str, seed: int) -> list[Any]:
    found = []
    with closing(open_it()) as connection:
        for pragma in (f"journal_mode = {mode}", "locking_mode = exclusive", "cache_size = 10"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x); CREATE INDEX u ON t(x); CREATE TABLE big(b)").fetchall()
        with connection:
            connection.executemany("INSERT INTO t VALUES(?, ?)", ((number, "x" * 100) for number in range(400)))
        for steps in _steps(seed):
            for step in steps:
                connection.execute(step).fetchall()
            found.append(_contents(connection))
    with closing(open_it()) as connection:
        return [*found, _contents(connection)]


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "memory", "wal"])
@pytest.mark.parametrize("seed", [0, 2])
def test_every_rollback_undoes_its_own_transaction_and_all_of_it(tmp_path: Path, mode: str, seed: int) -> None:
    plain = _outcome(lambda: apsw.Connection(str(tmp_path / "plain")), mode, seed)
    ours = _outcome(lambda: heliosvfs.connect(tmp_path / "ours", key=KEY), mode, seed)
    assert ours == plain


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
def test_a_short_transaction_is_rolled_back_whole_after_one_that_spilled(tmp_path: Path, mode: str) -> None:
    """The header of the first one's journal, which was verified, was taken for that of the second."""
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, journal_mode="delete")) as connection:
        for pragma in (f"journal_mode = {mode}", "locking_mode = exclusive", "cache_size = 10"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("CREATE TABLE big(b); CREATE TABLE t(i INTEGER PRIMARY KEY, x)").fetchall()
        connection.executemany("INSERT INTO t VALUES(?, ?)", ((number, "x" * 100) for number in range(400)))
        connection.execute("BEGIN; INSERT INTO big VALUES(zeroblob(200000)); ROLLBACK").fetchall()
        connection.execute("BEGIN; UPDATE t SET x = 'y' WHERE i IN (1, 100, 200, 300, 399); ROLLBACK").fetchall()
        assert connection.execute("SELECT count(*) FROM t WHERE x = 'y'").get == 0
        assert connection.execute("PRAGMA integrity_check").get == "ok"
