"""A signal whose handler raises in the middle of a statement: nothing half done can be committed.

Signals are handled where Python code runs, which in a long statement is the VFS. SQLite goes on with the transaction after the
SQLITE_ERROR that APSW makes of it, and so committed what was torn: here, and with any VFS in Python.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosvfs
from heliosvfs import dbapi2
from heliosvfs.vfs import Credential, presenting
from tests.rules.conftest import KEY

Door = Callable[[Path], Any]
BODY = bytes(400)


class LateError(Exception):
    """What the handler raises."""


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Have SIGALRM raise."""

    def raise_it(*_: object) -> None:
        raise LateError

    before = signal.signal(signal.SIGALRM, raise_it)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def by_connect(path: Path) -> Any:
    return heliosvfs.connect(path, key=KEY, page_size=512)


def by_audit(path: Path) -> Any:
    return heliosvfs.connect(path, key=KEY, page_size=512, audit=heliosvfs.audit.Policy())


def by_apsw(path: Path) -> Any:
    by_connect(path).close()
    with presenting(Credential(heliosvfs.keyring.as_secret(KEY)), str(path)):
        return apsw.Connection(str(path), vfs="heliosvfs")


def by_dbapi2(path: Path) -> Any:
    by_connect(path).close()
    return dbapi2.connect(path, key=KEY, isolation_level=None)


def interrupted(work: Callable[[], object], seconds: float) -> bool:
    """Work until the alarm; tell whether it came."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        work()
    except LateError:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return False


def in_transaction(connection: Any) -> bool:
    return bool(connection.in_transaction)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a finalizer may meet the signal
@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("door", [by_connect, by_audit, by_apsw, by_dbapi2])
def test_what_goes_on_after_a_signal_commits_nothing_torn(tmp_path: Path, door: Door, mode: str) -> None:
    path = tmp_path / "db"
    undone = 0
    with closing(door(path)) as connection:
        execute = connection.execute
        execute(f"PRAGMA journal_mode = {mode}").fetchall()
        execute("PRAGMA cache_size = 5").fetchall()
        execute("CREATE TABLE t(x INTEGER PRIMARY KEY, y, z)")
        execute("CREATE INDEX i ON t(z)")
        for attempt in range(12):
            execute("BEGIN")
            execute("INSERT INTO t(y, z) VALUES(?, ?)", (b"first", attempt))
            rows = ((BODY, n % 97) for n in range(30_000))
            interrupted(partial(connection.executemany, "INSERT INTO t(y, z) VALUES(?, ?)", rows), 0.004 + attempt * 0.0013)
            undone += not in_transaction(connection)
            if in_transaction(connection):
                try:
                    execute("COMMIT")  # as a program does that keeps what it has when it is stopped
                except (apsw.ConstraintError, heliosvfs.audit.AuditError):  # the audit log lacks an event of what was stopped
                    with suppress(apsw.SQLError):
                        execute("ROLLBACK")
            assert not in_transaction(connection)
            with closing(heliosvfs.connect(path, key=KEY)) as fresh:
                assert fresh.pragma("integrity_check") == "ok"
            assert execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            execute("DELETE FROM t")
    assert undone


def test_a_read_that_is_interrupted_leaves_the_transaction_alone(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(by_connect(path)) as connection:
        connection.pragma("cache_size", 5)
        connection.execute("CREATE TABLE t(x, y)")
        connection.executemany("INSERT INTO t VALUES(?, ?)", ((n, BODY) for n in range(3000)))
        connection.execute("BEGIN; INSERT INTO t VALUES(-1, NULL)")
        query = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 1000) SELECT count(*) FROM n, t"
        assert interrupted(lambda: connection.execute("SELECT sum(t.x) FROM t, t AS u").fetchall(), 0.02)
        assert connection.in_transaction
        assert interrupted(lambda: connection.execute(query).fetchall(), 0.02)
        assert not connection.in_transaction  # WITH may begin a change


def test_an_error_of_a_function_leaves_the_transaction_alone(tmp_path: Path) -> None:
    with closing(by_connect(tmp_path / "db")) as connection:

        def fail(number: int) -> int:
            if number > 50:
                raise LateError
            return number

        connection.create_scalar_function("fail", fail, 1)
        connection.execute("CREATE TABLE t(x); BEGIN; INSERT INTO t VALUES(1)")
        with pytest.raises(LateError):
            connection.execute(
                "INSERT INTO t SELECT fail(value) FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n "
                "LIMIT 99) SELECT value FROM n)"
            )
        assert connection.in_transaction
        connection.execute("COMMIT")
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]


def test_a_context_that_was_torn_raises_what_tore_it(tmp_path: Path) -> None:
    with closing(by_connect(tmp_path / "db")) as connection:
        connection.pragma("cache_size", 5)
        connection.execute("CREATE TABLE t(x)")
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(LateError), connection:
            connection.executemany("INSERT INTO t VALUES(?)", ((BODY,) for _ in range(1_000_000)))
        assert not connection.in_transaction
        with connection:
            connection.execute("INSERT INTO t VALUES(1)")
        assert connection.execute("SELECT count(*) FROM t").get == 1
