"""What earlier transactions left in a persistent journal is not this transaction's, whatever epoch its bytes seem to name.

The journal here has 64 records in its first segment, which fill whole sectors, so that the header of the second follows at once.
Whoever reads a 65th record sees that header for one, and its trailer is the page number that follows the header: from page 512
on that looks like an epoch just above the newest.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs

KEY = bytes(range(32))
PAGE = 512
RECORD = PAGE + 8
SECOND_HEADER = 512 + 64 * RECORD


def change(connection: heliosvfs.Connection, rows: range, letter: str) -> None:
    connection.executemany("UPDATE t SET x = ? WHERE i = ?", ((letter * 400, row) for row in rows))


def letters(connection: heliosvfs.Connection) -> str:
    return "".join(letter for (letter,) in connection.execute("SELECT substr(x, 1, 1) FROM t ORDER BY i"))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Make a database of 800 rows, a page each, and leave a journal of two segments beside it."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, page_size=PAGE, journal_mode="delete")) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x TEXT)")
        with connection:
            connection.executemany("INSERT INTO t VALUES(?, ?)", ((row, "a" * 400) for row in range(800)))
        connection.pragma("journal_mode", "persist")
        with connection:
            change(connection, range(64), "b")
            connection.cache_flush()
            change(connection, range(700, 720), "b")
        journal = Path(f"{path}-journal").read_bytes()
        assert journal[SECOND_HEADER : SECOND_HEADER + 8] == b"\0HELIOSJ"
        assert int.from_bytes(journal[SECOND_HEADER + 512 : SECOND_HEADER + 516], "big") > 512
    return path


COMMITTED = "b" * 64 + "a" * 636 + "b" * 20 + "a" * 80


@pytest.mark.parametrize("synchronous", ["off", "normal", "full"])
def test_a_rollback_ends_where_the_transaction_ended(database: Path, synchronous: str) -> None:
    with closing(heliosvfs.connect(database, key=KEY, journal_mode="persist")) as connection:
        connection.pragma("synchronous", synchronous)
        connection.execute("BEGIN")
        change(connection, range(64), "c")
        connection.execute("ROLLBACK")
        assert letters(connection) == COMMITTED


@pytest.mark.parametrize("synchronous", ["off", "normal", "full"])
def test_a_crashed_transaction_is_rolled_back_though_older_records_follow_its_own(
    database: Path, tmp_path: Path, synchronous: str
) -> None:
    with closing(heliosvfs.connect(database, key=KEY, journal_mode="persist")) as connection:
        connection.pragma("synchronous", synchronous)
        connection.execute("BEGIN")
        change(connection, range(64), "c")
        connection.cache_flush()
        (tmp_path / "crashed").mkdir()
        for suffix in ("", "-journal"):
            shutil.copy(f"{database}{suffix}", tmp_path / "crashed" / f"db{suffix}")
    with closing(heliosvfs.connect(tmp_path / "crashed" / "db", key=KEY, create=False)) as connection:
        assert letters(connection) == COMMITTED
