"""Differences from sqlite3 that were found by trying both: each is gone, or is said in docs/DBAPI.md and tried here."""

from __future__ import annotations

import copy
import os
import pickle
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import heliosvfs
import heliosvfs.dbapi2 as sqlite3

# -- opening ---------------------------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "plainly": {},
    "audited": {"audit": "hipaa"},
    "configured": {"config": {"compliance": {"preset": "hipaa"}}},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    return WAYS[request.param]


def test_a_name_that_begins_with_file_is_a_file_unless_it_may_be_a_uri(
    tmp_path: Path, key: bytes, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("file:a.db", "file:b.db?mode=memory"):
        connection = sqlite3.connect(name, key=key, **way)
        connection.execute("CREATE TABLE t(x)")
        connection.close()
    connection = sqlite3.connect("file:c.db?mode=rwc", uri=True, key=key, **way)
    connection.execute("CREATE TABLE t(x)")
    connection.close()
    assert {name for name in os.listdir() if "-" not in name} >= {"file:a.db", "file:b.db?mode=memory", "c.db"}


def test_what_can_not_be_opened_is_an_operational_error(tmp_path: Path, key: bytes, way: dict[str, Any]) -> None:
    for where in (tmp_path / "missing" / "x.db", tmp_path):
        with pytest.raises(sqlite3.OperationalError, match="unable to open database file") as caught:
            sqlite3.connect(where, key=key, **way)
        assert caught.value.sqlite_errorname.startswith("SQLITE_CANTOPEN")
        assert not isinstance(caught.value, sqlite3.ProgrammingError)


@pytest.mark.parametrize("timeout", [1e7, float("inf"), -1, float("nan"), 0])
def test_a_timeout_may_be_any_number(path: Path, key: bytes, way: dict[str, Any], timeout: float) -> None:
    connection = sqlite3.connect(path, key=key, timeout=timeout, **way)
    assert connection.execute("PRAGMA busy_timeout").fetchone()[0] == (2**31 - 1 if timeout > 0 else 0)
    connection.close()


# -- VACUUM INTO -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way_to", ["execute", "executescript", "a value"])
def test_a_database_in_memory_is_vacuumed_into_a_file_under_the_key_of_the_environment(
    tmp_path: Path, key: bytes, monkeypatch: pytest.MonkeyPatch, way_to: str
) -> None:
    monkeypatch.setenv("HELIOSVFS_KEY", key.hex())
    copied = tmp_path / "it's a copy.db"
    connection = sqlite3.connect(":memory:")
    connection.executescript("CREATE TABLE t(x); INSERT INTO t VALUES('patient')")
    name = str(copied).replace("'", "''")
    if way_to == "execute":
        connection.execute(f"-- a copy\nVACUUM main INTO '{name}'; -- done")
    elif way_to == "executescript":
        connection.executescript(f"SELECT 1; VACUUM INTO '{name}'; SELECT 2")
    else:
        connection.execute("vacuum into ?", (str(copied),))
    connection.close()
    assert b"patient" not in copied.read_bytes()
    reader = sqlite3.connect(copied, key=key)
    assert reader.execute("SELECT x FROM t").fetchall() == [("patient",)]
    reader.close()


def test_without_a_key_vacuum_into_says_so_and_leaves_nothing_behind(tmp_path: Path) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t(x)")
    with pytest.raises(sqlite3.DatabaseError, match="HELIOSVFS_KEY") as caught:
        connection.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    assert isinstance(caught.value, heliosvfs.KeyUnavailableError)
    assert os.listdir(tmp_path) == []
    connection.close()


def test_a_vacuum_of_a_file_into_another_takes_its_key(tmp_path: Path, path: Path, key: bytes) -> None:
    connection = sqlite3.connect(path, key=key)
    connection.execute("CREATE TABLE t(x)")
    connection.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    connection.close()
    reader = sqlite3.connect(tmp_path / "copy.db", key=key)
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    reader.close()


# -- errors ----------------------------------------------------------------------------------------------------------


def test_an_extension_that_can_not_be_loaded_is_an_operational_error(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError, match=r"^not authorized$"):
        connection.load_extension("nosuch")
    connection.enable_load_extension(True)
    with pytest.raises(sqlite3.OperationalError, match=r"^nosuch"):
        connection.load_extension("nosuch")


def pickled(error: Any) -> Any:
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - its own


@pytest.mark.parametrize("again", [pickled, copy.copy])
def test_an_error_of_two_kinds_is_still_of_both_when_it_is_copied(
    path: Path, connection: sqlite3.Connection, again: Callable[[Any], Any]
) -> None:
    connection.execute("CREATE TABLE t(x)")
    with pytest.raises(heliosvfs.WrongKeyError) as caught:
        sqlite3.connect(path, key=bytes(32))
    error = again(caught.value)
    assert type(error) is type(caught.value)
    assert isinstance(error, sqlite3.DatabaseError)
    assert (str(error), error.sqlite_errorname) == (str(caught.value), "SQLITE_NOTADB")


# -- cursors ---------------------------------------------------------------------------------------------------------


def test_a_connection_executes_without_asking_an_overridden_cursor() -> None:
    class Connection(sqlite3.Connection):
        def cursor(self, *arguments: Any) -> Any:
            self.execute("PRAGMA foreign_keys = ON")
            return super().cursor(*arguments)

    connection = sqlite3.connect(":memory:", factory=Connection)
    connection.row_factory = sqlite3.Row
    assert connection.execute("SELECT 1 AS x").fetchone()["x"] == 1
    assert connection.executescript("CREATE TABLE t(x)").row_factory is sqlite3.Row
    assert connection.executemany("INSERT INTO t VALUES(?)", [(1,)]).row_factory is sqlite3.Row
    connection.close()


def test_rows_after_one_that_a_row_factory_refuses_are_left_to_be_fetched(connection: sqlite3.Connection) -> None:
    def refuse(_: Any, row: Any) -> Any:
        if row[0] in (2, 5):
            raise ValueError(row)
        return row

    cursor = connection.cursor()
    cursor.row_factory = refuse
    cursor.execute("VALUES(1), (2), (3), (4), (5), (6)")
    with pytest.raises(ValueError, match="2"):
        cursor.fetchall()
    assert cursor.fetchone() == (3,)
    with pytest.raises(ValueError, match="5"):
        cursor.fetchall()
    assert cursor.fetchall() == [(6,)]
    assert cursor.fetchall() == []


@pytest.mark.parametrize("through", ["a converter", "a text factory"])
def test_a_row_whose_conversion_fails_is_passed_over(through: str) -> None:
    def refuse(content: bytes) -> bytes:
        if content == b"2":
            raise ValueError(content)
        return content

    sqlite3.register_converter("refused", refuse)
    connection = sqlite3.connect(":memory:", detect_types=sqlite3.PARSE_DECLTYPES)
    connection.execute("CREATE TABLE t(x refused, y TEXT)")
    connection.executemany("INSERT INTO t VALUES(?1, ?1)", [(text,) for text in "123"])
    if through == "a text factory":
        connection.text_factory = refuse
    cursor = connection.execute(f"SELECT {'x' if through == 'a converter' else 'y'} FROM t")
    assert cursor.fetchone() == (b"1",)
    with pytest.raises(ValueError, match="2"):
        cursor.fetchone()
    assert cursor.fetchall() == [(b"3",)]
    connection.close()


def test_a_row_can_be_neither_copied_nor_pickled(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    row = connection.execute("SELECT 1 AS x").fetchone()
    for call in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot pickle"):
            call(row)


# -- parameters ------------------------------------------------------------------------------------------------------


class Adapted:
    """A value whose adapter fails."""


class Conforming:
    """A value that fails to conform."""

    def __conform__(self, _: Any) -> Any:
        return {}["inner"]


@pytest.fixture
def failing_adapter() -> Iterator[None]:
    sqlite3.register_adapter(Adapted, lambda _: {}["inner"])
    yield
    del sqlite3.adapters[Adapted, sqlite3.PrepareProtocol]


@pytest.mark.usefixtures("failing_adapter")
@pytest.mark.parametrize("kind", [Adapted, Conforming])
def test_a_key_error_of_an_adapter_is_the_adapters_own(connection: sqlite3.Connection, kind: type) -> None:
    connection.execute("CREATE TABLE t(x)")
    with pytest.raises(KeyError, match="inner"):
        connection.execute("SELECT :a", {"a": kind()})
    with pytest.raises(KeyError, match="inner"):
        connection.executemany("INSERT INTO t VALUES(:a)", [{"a": 1}, {"a": kind()}])


class Refusing(dict[str, Any]):
    """A dict that does not find anything."""

    def __missing__(self, name: str) -> Any:
        raise IndexError(name)


@pytest.mark.parametrize("given", [{}, {"b": 1}, {"b": object()}, Refusing()])
def test_a_missing_parameter_is_named(connection: sqlite3.Connection, given: Any) -> None:
    connection.execute("CREATE TABLE t(x)")
    message = "You did not supply a value for binding parameter :a."
    with pytest.raises(sqlite3.ProgrammingError, match=message):
        connection.execute("SELECT :a", given)
    with pytest.raises(sqlite3.ProgrammingError, match=message):
        connection.executemany("INSERT INTO t VALUES(:a)", iter([{"a": 1}, given]))


def test_a_mapping_that_is_no_dict_is_refused(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.ProgrammingError, match="parameters are of unsupported type"):
        connection.execute("SELECT :a", types.MappingProxyType({"a": 1}))


# -- transactions and callbacks --------------------------------------------------------------------------------------


def test_an_isolation_level_of_none_stays_although_its_commit_fails(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("CREATE TABLE t(id PRIMARY KEY, parent REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
    connection.execute("INSERT INTO t VALUES(1, 2)")
    with pytest.raises(sqlite3.IntegrityError):
        connection.isolation_level = None
    assert connection.isolation_level is None
    assert connection.in_transaction
    connection.rollback()
    connection.execute("INSERT INTO t VALUES(3, NULL)")
    assert not connection.in_transaction


class Failing:
    """An aggregate whose every step ends the program."""

    def step(self, _: Any) -> None:
        raise SystemExit

    def finalize(self) -> int:
        return 1


def end(*_: Any) -> Any:
    raise SystemExit


CALLBACKS: dict[str, Callable[[sqlite3.Connection], Any]] = {
    "function": lambda con: con.create_function("f", 1, end),
    "aggregate": lambda con: con.create_aggregate("f", 1, Failing),
    "authorizer": lambda con: con.set_authorizer(end),
    "progress": lambda con: con.set_progress_handler(end, 1),
    "trace": lambda con: con.set_trace_callback(end),
}


@pytest.mark.parametrize("callback", CALLBACKS)
def test_what_ends_the_program_gets_out_of_callbacks(connection: sqlite3.Connection, callback: str) -> None:
    connection.execute("CREATE TABLE t(x)")
    connection.execute("INSERT INTO t VALUES(1)")
    connection.commit()
    connection.create_function("f", 1, str)
    CALLBACKS[callback](connection)
    with pytest.raises(SystemExit):
        connection.execute("SELECT f(x) FROM t").fetchall()
    connection.set_authorizer(None)
    connection.set_progress_handler(None, 1)
    connection.set_trace_callback(None)
    assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
