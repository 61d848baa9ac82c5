"""KeyboardInterrupt at any moment: no lock is left held, no change is without its event, no event without its change or twice."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit.verifications import verify

_PACKAGE = str(Path(heliosaudit.__file__).parent)
_UNTOLD = ("__del__", "_remove", "<genexpr>")  # nobody is told of what is raised there: the last, when it is closed


class Interrupt(KeyboardInterrupt):
    """Raised where the interpreter might have run a signal's handler."""


def interrupted(moment: int, work: Callable[[], object]) -> bool:
    """Do some work; raise at the nth moment at which CPython may run a signal's handler within the audit; tell whether it came.

    That is where a function is entered, and where a function written in C has returned.
    """
    passed = 0

    def is_ours(frame: FrameType | None) -> bool:
        found = False
        while frame is not None and frame.f_code is not interrupted.__code__:
            if frame.f_code.co_name in _UNTOLD:
                return False
            found = found or frame.f_code.co_filename.startswith(_PACKAGE)
            frame = frame.f_back
        return found

    def see(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal passed
        if event not in ("call", "c_return") or not is_ours(frame):
            return
        passed += 1
        if passed == moment:
            sys.setprofile(None)
            raise Interrupt

    sys.setprofile(see)
    try:
        work()
    except Interrupt:
        return True
    except apsw.Error:
        return passed >= moment
    finally:
        sys.setprofile(None)
    return passed >= moment


def _numbers(first: int, *others: int) -> Iterator[tuple[int]]:
    for number in (first, *others):
        yield (number,)


def _in_block(connection: apsw.Connection) -> None:
    with connection:
        connection.execute("INSERT INTO t VALUES(2, 0)")


def _by_blob(connection: apsw.Connection) -> None:
    with connection.blob_open("main", "t", "x", 1, True) as blob:
        blob.write(b"b")


_WORK: dict[str, Callable[[apsw.Connection], object]] = {
    "a statement": lambda connection: connection.execute("INSERT INTO t VALUES(2, 0)"),
    "two rows": lambda connection: connection.execute("INSERT INTO t VALUES(2, 0), (4, 0)"),
    "returning": lambda connection: connection.execute("INSERT INTO t VALUES(2, 0) RETURNING i").fetchall(),
    "many": lambda connection: connection.executemany("INSERT INTO t VALUES(?, 0)", _numbers(2, 4, 5)),
    "a transaction": lambda connection: connection.execute("BEGIN; INSERT INTO t VALUES(2, 0); COMMIT").fetchall(),
    "a savepoint": lambda connection: connection.execute("SAVEPOINT a; INSERT INTO t VALUES(2, 0); RELEASE a").fetchall(),
    "with": _in_block,
    "DDL": lambda connection: connection.execute("CREATE TABLE n(x)"),
    "a failure": lambda connection: connection.execute("INSERT INTO t VALUES(1, 0)"),
    "a blob": _by_blob,
    "a read": lambda connection: connection.execute("SELECT * FROM t").fetchall(),
    "verify": verify,
}


def _open(path: Path) -> heliosaudit.AuditedConnection:
    policy = heliosaudit.Policy(log_select=True, flush_interval=3600, capture_parameters="expanded")
    connection = heliosaudit.connect(path, policy, busy_timeout=0.2)
    connection.execute(
        "PRAGMA synchronous = OFF; CREATE TABLE t(i INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, x'61')"
    ).fetchall()
    return connection


_CHANGED = """
    SELECT 'INSERT ' || i FROM t WHERE i > 1 UNION ALL SELECT 'CREATE TABLE' FROM sqlite_schema WHERE name = 'n'
    UNION ALL SELECT 'BLOB WRITE' FROM t WHERE x = x'62' ORDER BY 1
"""
_TOLD = """
    SELECT operation, query, affected_rows FROM __audit_log
    WHERE id > (SELECT max(id) FROM __audit_log WHERE query LIKE '%x''61''%')
    AND (success OR affected_rows) AND NOT rolled_back AND class IN ('DML', 'DDL')
"""


def _told(connection: apsw.Connection) -> list[str]:
    """Return what the log says was changed."""
    found: list[str] = []
    rows: list[Any] = connection.execute(_TOLD).fetchall()
    for operation, query, affected in rows:
        if operation == "INSERT":
            found += [f"INSERT {values.split(',')[0]}" for values in query.partition("VALUES")[2].replace("(", "").split("), ")]
        elif operation == "CREATE TABLE" or affected:
            found.append(operation)
    return sorted(found)


@pytest.mark.parametrize("work", _WORK.values(), ids=_WORK)
@pytest.mark.usefixtures("freeing")
def test_an_exception_at_any_moment_leaves_each_change_with_one_event(
    tmp_path: Path, work: Callable[[apsw.Connection], object], request: pytest.FixtureRequest
) -> None:
    moment, came = 1, True
    while came:
        path = tmp_path / str(moment)
        with closing(_open(path)) as connection:
            came = interrupted(moment, lambda connection=connection: work(connection))  # type: ignore[misc]
            thread = threading.Thread(target=lambda connection=connection: connection.execute("SELECT 1").fetchall())
            thread.start()
            thread.join()
            with pytest.raises(heliosaudit.AccessDeniedError):
                connection.execute("DELETE FROM __audit_log")
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute("INSERT INTO t VALUES(9, 0)")
            with closing(apsw.Connection(str(path))) as other:
                changed = [name for (name,) in other.execute(_CHANGED)]
        with closing(apsw.Connection(str(path))) as other:
            assert [name for (name,) in other.execute(_CHANGED)] == changed, moment
            assert _told(other) == changed, moment
            assert verify(other).ok
        moment += 1 if request.config.getoption("--soak") else 7
    assert moment > 90  # or nothing was interrupted


@pytest.mark.parametrize(("begin", "ends"), [("BEGIN", "COMMIT"), ("BEGIN", "SAVEPOINT a"), ("SAVEPOINT o", "RELEASE o")])
@pytest.mark.usefixtures("freeing")
def test_a_transaction_whose_end_was_interrupted_and_tried_again_has_each_event_once(
    tmp_path: Path, begin: str, ends: str, request: pytest.FixtureRequest
) -> None:
    moment, came = 1, True
    while came:
        path = tmp_path / str(moment)
        with closing(_open(path)) as connection:
            connection.execute(f"{begin}; INSERT INTO t VALUES(2, 0)").fetchall()
            came = interrupted(moment, lambda connection=connection: connection.execute(ends))  # type: ignore[misc]
            if connection.in_transaction:
                with suppress(apsw.Error):  # if what is in the log is not known
                    connection.execute("RELEASE o" if begin == "SAVEPOINT o" else "COMMIT")
        with closing(apsw.Connection(str(path))) as other:
            assert _told(other) == [name for (name,) in other.execute(_CHANGED)], moment
            assert verify(other).ok
        moment += 1 if request.config.getoption("--soak") else 2
    assert moment > 90


def test_an_interrupted_thread_does_not_keep_the_others_out(tmp_path: Path) -> None:
    with closing(_open(tmp_path / "db")) as connection:
        assert connection.auditor is not None
        threading.Thread(target=connection.auditor.gate.enter).start()  # and its leave() never comes
        assert connection.execute("SELECT count(*) FROM t").get == 1
        connection.execute("INSERT INTO t VALUES(2, 2)")


@pytest.mark.usefixtures("freeing")
def test_closing_that_was_interrupted_is_done_by_closing_again(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    moment, came = 1, True
    while came:
        path = tmp_path / str(moment)
        connection = _open(path)
        connection.execute("SELECT 5").fetchall()
        connection.execute("BEGIN; INSERT INTO t VALUES(3, 3)").fetchall()
        came = interrupted(moment, connection.close)
        connection.close()
        with closing(apsw.Connection(str(path))) as other:
            with suppress(apsw.BusyError):
                other.execute("BEGIN IMMEDIATE")
            assert other.in_transaction, moment
            found = other.execute("""
                SELECT operation, count(*), sum(rolled_back) FROM __audit_log
                WHERE query IN ('SELECT 5', 'INSERT INTO t VALUES(3, 3)') OR operation = 'CLOSE' GROUP BY 1 ORDER BY 1
            """)
            assert found.fetchall() == [("CLOSE", 1, 0), ("INSERT", 1, 1), ("SELECT", 1, 0)], moment
            assert other.execute("SELECT count(*) FROM __audit_open").get == 0
            assert verify(other).ok
        moment += 1 if request.config.getoption("--soak") else 3
    assert moment > 90
