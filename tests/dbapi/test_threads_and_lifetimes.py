"""Threads, use after close, and objects that are dropped while they are in use."""

# ruff: noqa: ARG005 - each call takes a connection and a cursor

from __future__ import annotations

import contextlib
import gc
import os
import resource
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import heliosvfs
import heliosvfs.dbapi2 as sqlite3


def in_a_thread(call: Callable[[], Any]) -> Any:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - handed to the test
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


CALLS: dict[str, Callable[[sqlite3.Connection, sqlite3.Cursor], Any]] = {
    "execute": lambda con, cur: con.execute("SELECT 1"),
    "cursor": lambda con, cur: con.cursor(),
    "commit": lambda con, cur: con.commit(),
    "close": lambda con, cur: con.close(),
    "with": lambda con, cur: con.__enter__(),
    "in_transaction": lambda con, cur: con.in_transaction,
    "iterdump": lambda con, cur: list(con.iterdump()),
    "backup": lambda con, cur: con.backup(con),
    "create_function": lambda con, cur: con.create_function("f", 0, int),
    "cursor.execute": lambda con, cur: cur.execute("SELECT 1"),
    "cursor.executemany": lambda con, cur: cur.executemany("INSERT INTO t VALUES(?)", [(1,)]),
    "cursor.executescript": lambda con, cur: cur.executescript("SELECT 1"),
    "cursor.fetchone": lambda con, cur: cur.fetchone(),
    "cursor.fetchall": lambda con, cur: cur.fetchall(),
    "cursor.fetchmany": lambda con, cur: cur.fetchmany(2),
    "cursor.next": lambda con, cur: next(cur),
    "cursor.iterate": lambda con, cur: list(cur),
    "cursor.close": lambda con, cur: cur.close(),
}


def with_rows(**options: Any) -> tuple[sqlite3.Connection, sqlite3.Cursor]:
    con = sqlite3.connect(":memory:", **options)
    con.execute("CREATE TABLE t(x)")
    con.executemany("INSERT INTO t VALUES(?)", [(i,) for i in range(5)])
    return con, con.execute("SELECT x FROM t")


@pytest.mark.parametrize("name", CALLS)
def test_another_thread_is_refused(name: str) -> None:
    con, cur = with_rows()
    error = in_a_thread(lambda: CALLS[name](con, cur))
    assert isinstance(error, sqlite3.ProgrammingError)
    assert "SQLite objects created in a thread can only be used in that same thread." in str(error)
    assert cur.fetchall() == [(i,) for i in range(5)]
    con.close()


@pytest.mark.parametrize("name", [name for name in CALLS if name != "backup"])
def test_another_thread_is_not_refused_if_it_is_not_checked(name: str) -> None:
    con, cur = with_rows(check_same_thread=False)
    result = in_a_thread(lambda: CALLS[name](con, cur))
    assert not isinstance(result, BaseException)
    con.close()


@pytest.mark.parametrize("name", [name for name in CALLS if name != "close"])
def test_use_after_close_is_refused(name: str) -> None:
    for options in ({}, {"check_same_thread": False}):
        con, cur = with_rows(**options)
        con.close()
        con.close()
        with pytest.raises(sqlite3.ProgrammingError, match="Cannot operate on a closed database"):
            CALLS[name](con, cur)


@pytest.mark.parametrize("name", [name for name in CALLS if name.startswith("cursor.") and name != "cursor.close"])
def test_a_closed_cursor_is_refused(name: str) -> None:
    con, cur = with_rows()
    cur.close()
    cur.close()
    with pytest.raises(sqlite3.ProgrammingError, match="Cannot operate on a closed cursor"):
        CALLS[name](con, cur)
    con.close()


def test_threads_that_share_a_connection_wait_for_each_other(path: Path, key: bytes) -> None:
    con = sqlite3.connect(path, key=key, check_same_thread=False, isolation_level=None)
    con.execute("CREATE TABLE t(x)")
    # seconds of work in one statement, during which the others come: APSW alone gives up after a third of a second
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500000) SELECT count(*) FROM n"
    failures: list[BaseException] = []
    started = threading.Event()

    def count() -> None:
        started.set()
        try:
            assert con.execute(slow).fetchone() == (1500000,)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)

    def insert() -> None:
        started.wait()
        try:
            for number in range(20):
                cursor = con.execute("INSERT INTO t VALUES(?)", (number,))
                assert cursor.rowcount == 1
                assert con.total_changes > 0
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)

    threads = [threading.Thread(target=count), *(threading.Thread(target=insert) for _ in range(3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert con.execute("SELECT count(*) FROM t").fetchone() == (60,)
    con.close()


def test_another_thread_may_interrupt() -> None:
    con = sqlite3.connect(":memory:")
    con.create_function("stop", 0, lambda: in_a_thread(con.interrupt))
    with pytest.raises(sqlite3.OperationalError, match="interrupt") as caught:
        con.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE stop() IS NOT NULL")
    assert caught.value.sqlite_errorname == "SQLITE_INTERRUPT"
    con.close()


@pytest.mark.usefixtures("freeing")
def test_a_dropped_cursor_gives_up_its_locks() -> None:
    con, cur = with_rows()
    cur.fetchone()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        con.execute("DROP TABLE t")
    del cur
    gc.collect()
    con.execute("DROP TABLE t")
    con.close()


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")  # from Python 3.13 on, as sqlite3
def test_a_cursor_keeps_its_database_open_and_nothing_keeps_a_dropped_connection() -> None:
    con, cur = with_rows()
    gone = weakref.ref(con)
    database = weakref.ref(con._session)
    del con
    assert gone() is not None  # the cursor's connection attribute
    assert cur.fetchall() == [(i,) for i in range(5)]
    del cur
    assert gone() is None
    assert database() is None


def test_a_subclass_that_does_not_call_init_is_told_so() -> None:
    class Connection(sqlite3.Connection):
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

    class Cursor(sqlite3.Cursor):
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

    with pytest.raises(sqlite3.ProgrammingError, match=r"Base Connection\.__init__ not called"):
        sqlite3.connect(":memory:", factory=Connection).execute("SELECT 1")
    con = sqlite3.connect(":memory:")
    with pytest.raises(sqlite3.ProgrammingError, match=r"Base Cursor\.__init__ not called"):
        con.cursor(Cursor).execute("SELECT 1")
    con.close()


def test_a_cursor_used_by_what_it_executes_is_refused() -> None:
    con, cur = with_rows()
    con.create_function("again", 0, lambda: cur.execute("SELECT 1"))
    seen: list[BaseException] = []

    def parameters() -> Any:
        try:
            cur.execute("SELECT 1")
        except sqlite3.ProgrammingError as error:
            seen.append(error)
        yield (1,)

    cur.executemany("INSERT INTO t VALUES(?)", parameters())
    assert "Recursive use of cursors" in str(seen[0])
    con.close()


def test_importing_the_module_does_not_import_sqlite3() -> None:
    program = "import heliosvfs.dbapi2, sys; sys.exit('sqlite3' in sys.modules or '_sqlite3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _open_files() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cycles", [300, pytest.param(100_000, marks=pytest.mark.soak)])
@pytest.mark.usefixtures("freeing")
def test_openings_leak_nothing(path: Path, key: bytes, cycles: int) -> None:
    def cycle(times: int) -> None:
        for number in range(times):
            where: Any = ":memory:" if number % 4 else path
            con = sqlite3.connect(where, key=None if number % 4 else key)
            con.create_function("f", 1, lambda x: x)
            cur = con.execute("SELECT f(?), 2", (number,))
            cur.row_factory = sqlite3.Row
            assert cur.fetchone()[0] == number
            left = con.execute("SELECT 1 UNION SELECT 2")
            next(left)
            if number % 2:
                con.close()

    made = sqlite3.connect(path, key=key)
    made.execute("CREATE TABLE t(x)")
    made.close()
    cycle(100 + cycles // 50)
    gc.collect()
    objects, memory, files = len(gc.get_objects()), _memory(), _open_files()
    cycle(cycles)
    gc.collect()
    assert len(gc.get_objects()) - objects < 200
    assert _open_files() <= files
    assert _memory() - memory < 8 * 1024  # KiB; in the long form a hundred bytes a cycle would be more


@pytest.mark.timeout(60)
def test_a_connection_that_waits_for_a_lock_lets_other_threads_run() -> None:
    """The thread that holds the lock may be one of them."""
    done, turns = threading.Event(), 0

    def wait() -> None:
        assert heliosvfs._default_vfs.xSleep(1_000_000) >= 1_000_000
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    while not done.wait(0.001):
        turns += 1
    thread.join()
    assert turns > 5  # with the interpreter's lock held, at most those before and after the sleep


def test_threads_that_write_wait_for_each_other_and_all_succeed(path: Path, key: bytes) -> None:
    made = sqlite3.connect(path, key=key, isolation_level=None)
    made.execute("CREATE TABLE t(x)")
    failures: list[BaseException] = []

    def insert() -> None:
        con = sqlite3.connect(path, key=key, isolation_level=None, timeout=60)
        try:
            for number in range(10):
                con.execute("INSERT INTO t VALUES(?)", (number,))
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)
        con.close()

    threads = [threading.Thread(target=insert) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert made.execute("SELECT count(*) FROM t").fetchone() == (40,)
    made.close()


def rows_and_then_a_failure() -> Iterator[tuple[int]]:
    yield (50,)
    raise ZeroDivisionError


FAILURES: dict[str, Callable[[sqlite3.Cursor], Any]] = {
    "syntax": lambda cur: cur.execute("SELEC"),
    "constraint": lambda cur: cur.execute("INSERT INTO t VALUES(1)"),
    "number of values": lambda cur: cur.execute("SELECT ?", (1, 2)),
    "type of a value": lambda cur: cur.execute("SELECT ?", (object(),)),
    "rows": lambda cur: cur.executemany("INSERT INTO t VALUES(?)", [(2,), (2,)]),
    "a generator": lambda cur: cur.executemany("INSERT INTO t VALUES(?)", rows_and_then_a_failure()),
    "a script": lambda cur: cur.executescript("INSERT INTO t VALUES(1)"),
    "a row": lambda cur: list(cur.execute("SELECT abs(-9223372036854775807 - i) FROM (SELECT 0 AS i UNION ALL SELECT 1)")),
    "the log": lambda cur: cur.execute("DELETE FROM __audit_log"),
    "no cursor any more": lambda cur: (cur.close(), cur.execute("SELECT 1")),
}


@pytest.mark.parametrize("audit", [None, "hipaa"])
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.usefixtures("freeing")
def test_an_error_keeps_no_cursor_alive(tmp_path: Path, failure: str, audit: str | None) -> None:
    """In a reference cycle with the error's frames it would wait for the garbage collector, which may free it in any thread."""
    connection = sqlite3.connect(tmp_path / "db", key=bytes(32), audit=audit)
    connection.executescript("CREATE TABLE t(i INTEGER PRIMARY KEY); INSERT INTO t VALUES(1)")
    gc.collect()
    gc.disable()
    try:
        cursor = connection.cursor()
        place = weakref.ref(cursor)
        with contextlib.suppress(sqlite3.Error, ZeroDivisionError):
            FAILURES[failure](cursor)
        del cursor
        assert place() is None
    finally:
        gc.enable()
        connection.close()
