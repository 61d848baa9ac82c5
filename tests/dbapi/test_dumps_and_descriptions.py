"""What iterdump() and a cursor's description raise, and when a description is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import heliosvfs
import heliosvfs.dbapi2 as sqlite3


@pytest.fixture
def other(path: Path, key: bytes, connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("CREATE TABLE t(a)")
    connection.execute("INSERT INTO t VALUES(1)")
    connection.execute("CREATE TABLE u(b)")
    connection.commit()
    connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(path, key=key, timeout=0)
    yield other
    other.close()


# -- iterdump() ------------------------------------------------------------------------------------------------------


def test_a_dump_of_a_locked_database_fails_as_sqlite3_has_it(connection: sqlite3.Connection, other: sqlite3.Connection) -> None:
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="database is locked") as caught:
        list(connection.iterdump())
    assert caught.value.sqlite_errorname == "SQLITE_BUSY"
    other.rollback()
    assert "CREATE TABLE t(a);" in list(connection.iterdump())


def test_a_dump_that_may_not_read_fails_as_sqlite3_has_it(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t(a)")
    connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        list(connection.iterdump())


def test_a_dump_that_is_interrupted_fails_as_sqlite3_has_it(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t(a)")
    connection.executemany("INSERT INTO t VALUES(?)", [(1,), (2,), (3,)])
    dump = connection.iterdump()
    assert [next(dump) for _ in range(3)] == ["BEGIN TRANSACTION;", "CREATE TABLE t(a);", 'INSERT INTO "t" VALUES(1);']
    connection.set_progress_handler(lambda: 1, 1)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        next(dump)


def test_a_dump_of_text_that_is_not_utf8_fails_as_sqlite3_has_it(connection: sqlite3.Connection) -> None:
    connection.executescript("CREATE TABLE t(a); INSERT INTO t VALUES(CAST(x'ff' AS TEXT))")
    with pytest.raises(sqlite3.OperationalError, match="Could not decode to UTF-8"):
        list(connection.iterdump())


def test_a_dump_without_the_key_fails_as_any_statement(path: Path, connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t(a)")
    without = sqlite3.connect(path)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        list(without.iterdump())
    without.close()
    assert isinstance(caught.value, heliosvfs.KeyUnavailableError)


def test_a_dump_ends_with_its_connection(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t(a)")
    dump = connection.iterdump()
    next(dump)
    connection.close()
    with pytest.raises(sqlite3.ProgrammingError, match="Cannot operate on a closed database"):
        next(dump)


# -- description -----------------------------------------------------------------------------------------------------


def read(connection: sqlite3.Connection, sql: str) -> sqlite3.Cursor:
    cursor = connection.execute(sql)
    cursor.fetchall()
    return cursor


def drop(connection: sqlite3.Connection, other: sqlite3.Connection) -> None:
    other.execute("DROP TABLE t")
    connection.execute("SELECT * FROM u").fetchall()


GONE: dict[str, tuple[str, Callable[[sqlite3.Connection, sqlite3.Connection], Any]]] = {
    "a table": ("SELECT a FROM t", drop),
    "a function": ("SELECT f()", lambda con, _: con.create_function("f", 0, None)),
    "a right": ("SELECT a FROM t", lambda con, _: con.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)),
}


@pytest.mark.parametrize("what", GONE)
def test_a_description_that_can_not_be_had_any_more_is_an_error_of_sqlite3(
    path: Path, key: bytes, other: sqlite3.Connection, what: str
) -> None:
    sql, remove = GONE[what]
    connection = sqlite3.connect(path, key=key, cached_statements=0)  # a statement that is still prepared has it
    connection.create_function("f", 0, lambda: 1)
    cursor = read(connection, sql)
    remove(connection, other)
    with pytest.raises(sqlite3.DatabaseError, match=r"no such|not authorized"):
        cursor.description  # noqa: B018 - a property that may fail
    connection.close()


@pytest.mark.parametrize("what", GONE)
@pytest.mark.parametrize("fetch", ["fetchone", "fetchall", "next"])
def test_a_row_factory_needs_no_second_look_at_the_statement(
    path: Path, key: bytes, other: sqlite3.Connection, what: str, fetch: str
) -> None:
    sql, remove = GONE[what]
    connection = sqlite3.connect(path, key=key, cached_statements=0)
    connection.create_function("f", 0, lambda: 1)
    connection.row_factory = sqlite3.Row
    cursor = connection.execute(sql)
    name = sql.split()[1]
    row = cursor.fetchall()[0] if fetch == "fetchall" else next(cursor) if fetch == "next" else cursor.fetchone()
    remove(connection, other)
    assert (row.keys(), row[name], cursor.description[0][0]) == ([name], 1, name)
    connection.close()


def test_converters_and_row_factories_have_the_statement_prepared_once(path: Path, key: bytes) -> None:
    connection = sqlite3.connect(path, key=key, detect_types=sqlite3.PARSE_COLNAMES, cached_statements=0)
    sqlite3.register_converter("half", lambda value: int(value) / 2)
    asked: list[Any] = []
    connection.set_authorizer(lambda *arguments: asked.append(arguments) or sqlite3.SQLITE_OK)
    cursor = connection.cursor()
    cursor.row_factory = lambda cursor, row: {column[0]: value for column, value in zip(cursor.description, row, strict=True)}
    assert cursor.execute('SELECT 3 AS "x [half]"').fetchone() == {"x": 1.5}
    assert [arguments[0] for arguments in asked] == [sqlite3.SQLITE_SELECT]
    connection.close()
