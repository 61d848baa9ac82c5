"""What a cursor executed before is over when it executes something else, and with it the snapshot and the locks that it held."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import heliosvfs.dbapi2 as sqlite3


@pytest.fixture
def other(path: Path, key: bytes, connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Return another connection, to a database of three rows; neither waits for the other."""
    connection.execute("PRAGMA busy_timeout = 0")
    connection.execute("CREATE TABLE t(x)")
    connection.execute("CREATE TABLE u(x UNIQUE)")
    connection.executemany("INSERT INTO t VALUES(?)", [(1,), (1,), (2,)])
    connection.commit()
    other = sqlite3.connect(path, key=key, timeout=0)
    yield other
    other.close()


def half_read(connection: sqlite3.Connection) -> sqlite3.Cursor:
    cursor = connection.execute("SELECT x FROM t")
    assert cursor.fetchone() == (1,)
    return cursor


def write(other: sqlite3.Connection) -> None:
    with other:
        other.execute("INSERT INTO t VALUES(9)")


CHANGES: dict[str, Callable[[sqlite3.Cursor], Any]] = {
    "execute": lambda cur: cur.execute("UPDATE t SET x = 5 WHERE x = ?", (1,)),
    "executemany": lambda cur: cur.executemany("UPDATE t SET x = 5 WHERE x = ?", [(1,)]),
}


@pytest.mark.parametrize("level", ["", "IMMEDIATE"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_does_not_begin_on_the_snapshot_of_the_select_before(
    connection: sqlite3.Connection, other: sqlite3.Connection, change: str, level: str
) -> None:
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.isolation_level = level
    cursor = half_read(connection)
    write(other)
    CHANGES[change](cursor)  # SQLITE_BUSY_SNAPSHOT, if the old SELECT were still under way
    connection.commit()
    assert sorted(connection.execute("SELECT x FROM t")) == [(2,), (5,), (5,), (9,)]


def test_the_transaction_of_a_failed_change_has_no_lock_of_the_select_before(
    connection: sqlite3.Connection, other: sqlite3.Connection
) -> None:
    cursor = half_read(connection)
    with pytest.raises(sqlite3.ProgrammingError, match="number of bindings"):
        cursor.execute("INSERT INTO u VALUES(?)", (1, 2))
    assert connection.in_transaction
    write(other)


REFUSED: dict[str, Callable[[sqlite3.Cursor], Any]] = {
    "two statements": lambda cur: cur.execute("SELECT 1; SELECT 2"),
    "syntax": lambda cur: cur.execute("SELEC"),
    "a null character": lambda cur: cur.execute("SELECT \0"),
    "a value": lambda cur: cur.execute("SELECT ?", (object(),)),
    "the number of values": lambda cur: cur.execute("SELECT ?"),
    "executemany: syntax": lambda cur: cur.executemany("SELEC", [()]),
    "executemany: a SELECT": lambda cur: cur.executemany("SELECT 1", [()]),
    "executemany: a value": lambda cur: cur.executemany("INSERT INTO u VALUES(?)", [(object(),)]),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_what_is_refused_ends_the_statement_before(
    connection: sqlite3.Connection, other: sqlite3.Connection, refused: str
) -> None:
    cursor = half_read(connection)
    with pytest.raises(sqlite3.Error):
        REFUSED[refused](cursor)
    write(other)
    assert cursor.fetchone() is None
    assert cursor.description is None
    assert cursor.rowcount == -1
    assert cursor.execute("SELECT count(*) FROM t").fetchone() == (4,)


@pytest.mark.usefixtures("freeing")
@pytest.mark.parametrize("failure", ["a constraint", "a lock", "a value"])
def test_a_failed_executemany_does_not_keep_its_generator(
    connection: sqlite3.Connection, other: sqlite3.Connection, failure: str
) -> None:
    ended = []

    def rows() -> Iterator[Any]:
        try:
            for row in connection.execute("SELECT x FROM t"):
                yield (object(),) if failure == "a value" else row
        finally:
            ended.append(True)

    if failure == "a lock":
        other.execute("BEGIN IMMEDIATE")
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(sqlite3.Error):
            connection.executemany("INSERT INTO u VALUES(?)", rows())
        assert ended == [True]
        other.rollback()
        connection.rollback()
        write(other)
    finally:
        gc.enable()


def test_a_generator_that_fetches_from_the_cursor_of_its_executemany_is_refused(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t(x)")
    connection.execute("INSERT INTO t VALUES(1)")
    cursor = connection.execute("SELECT x FROM t")
    with pytest.raises(sqlite3.ProgrammingError, match="Recursive use of cursors"):
        cursor.executemany("INSERT INTO t VALUES(?)", cursor)


def test_a_cursor_used_by_what_it_executes_is_left_as_it_was(connection: sqlite3.Connection) -> None:
    cursor = connection.cursor()
    refusals = []

    def again() -> int:
        try:
            cursor.execute("SELEC")
        except sqlite3.Error as error:
            refusals.append(error)
        return 7

    connection.create_function("again", 0, again)
    assert cursor.execute("SELECT 1 UNION ALL SELECT again()").fetchall() == [(1,), (7,)]
    assert [str(error) for error in refusals] == ["Recursive use of cursors not allowed."]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_statement_leaves_no_row_of_the_one_before(
    connection: sqlite3.Connection, other: sqlite3.Connection, error: type[BaseException]
) -> None:
    def interrupt() -> None:
        raise error

    connection.create_function("interrupt", 0, interrupt)
    cursor = half_read(connection)
    with pytest.raises(error):
        cursor.execute("SELECT interrupt()")
    assert cursor.fetchone() is None
    write(other)
