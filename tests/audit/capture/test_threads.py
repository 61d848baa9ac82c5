"""Threads that share one audited connection: a statement and its event are several calls, between which no other thread may come."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit import turns
from heliosaudit.verifications import verify


def test_threads_that_share_a_connection_wait_for_each_other_and_lose_no_event(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    with closing(heliosaudit.connect(tmp_path / "db", heliosaudit.Policy(log_select=True))) as connection:
        connection.pragma("synchronous", "OFF")
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, thread, x UNIQUE)")

        def work(number: int) -> None:
            try:
                for n in range(150):
                    connection.execute("INSERT INTO t(thread, x) VALUES(?, ?)", (number, f"{number} {n}"))
                    connection.execute("SELECT count(*) FROM t").fetchall()
                    if n % 10 == 0:
                        with pytest.raises(apsw.ConstraintError):
                            connection.execute("INSERT INTO t(thread, x) VALUES(?, ?)", (number, f"{number} {n}"))
            except BaseException as error:  # noqa: BLE001 - shown below
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert connection.execute("SELECT count(*) FROM t").get == 600
        connection.auditor.flush()  # type: ignore[union-attr]
        count = connection.execute(
            "SELECT count(*) FILTER (WHERE success), sum(NOT success) FROM __audit_log WHERE operation = 'INSERT'"
        )
        assert count.fetchall() == [(600, 60)]
        assert verify(connection).ok


def test_a_thread_that_stays_within_a_call_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_PATIENCE", 0.1)
    inside, done = threading.Event(), threading.Event()
    with closing(heliosaudit.connect(tmp_path / "db", heliosaudit.Policy())) as connection:

        def wait() -> int:
            inside.set()
            done.wait(20)
            return 1

        connection.create_scalar_function("wait", wait, 0)
        connection.execute("CREATE TABLE t(x)")
        thread = threading.Thread(target=lambda: connection.execute("INSERT INTO t VALUES(wait())"))
        thread.start()
        try:
            assert inside.wait(20)
            with pytest.raises(apsw.ThreadingViolationError, match="give each thread its own"):
                connection.execute("SELECT 1")
        finally:
            done.set()
            thread.join()
        assert connection.execute("SELECT count(*) FROM t").get == 1


def test_a_function_that_uses_its_own_connection_is_let_in(tmp_path: Path) -> None:
    with closing(heliosaudit.connect(tmp_path / "db", heliosaudit.Policy())) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)").fetchall()
        connection.create_scalar_function("size", lambda: connection.execute("SELECT count(*) FROM t").get, 0)
        rows: list[Any] = connection.execute("SELECT size() FROM t").fetchall()
        assert rows == [(1,)]


@pytest.mark.usefixtures("freeing")
def test_an_error_keeps_no_cursor_alive(tmp_path: Path) -> None:
    """In a reference cycle with the error's frames it would wait for the garbage collector, which may free it in any thread."""
    with closing(heliosaudit.connect(tmp_path / "db", heliosaudit.Policy(log_select=True))) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x)")
        connection.set_commit_hook(lambda: True)
        gc.collect()
        gc.disable()
        try:
            cursor = connection.execute("INSERT INTO t VALUES(1, 1), (2, 2) RETURNING i")
            place = weakref.ref(cursor)
            with pytest.raises(apsw.ConstraintError):
                cursor.execute("SELECT 1")  # which ends what is half-read
            del cursor
            assert place() is None
            with suppress(apsw.Error):
                connection.blob_open("main", "t", "x", 99, True)
        finally:
            gc.enable()
        connection.set_commit_hook(None)


_TASKS = """
import asyncio, sys
import heliosaudit

async def work(connection, number):
    with heliosaudit.session(user=f"user {number}"):
        await asyncio.sleep(0)
        connection.execute("INSERT INTO t VALUES(?)", (f"user {number}",))
        await asyncio.to_thread(connection.execute, "INSERT INTO t VALUES(?)", (f"user {number}",))

async def main():
    for run in range(5):
        connection = heliosaudit.connect(f"{sys.argv[1]}-{run}", heliosaudit.Policy(capture_parameters="expanded"))
        connection.execute("PRAGMA synchronous = OFF; CREATE TABLE t(x)").fetchall()
        await asyncio.gather(*(work(connection, number) for number in range(20)))
        connection.close()

asyncio.run(main())
"""


def test_cursors_are_dropped_while_another_thread_is_within_a_call(tmp_path: Path) -> None:
    """APSW then puts off freeing them, and `close()` of the connection once met what was half-freed: a segmentation fault."""
    subprocess.run([sys.executable, "-X", "faulthandler", "-c", _TASKS, str(tmp_path / "db")], check=True, timeout=60)
    for run in range(5):
        with closing(apsw.Connection(str(tmp_path / f"db-{run}"))) as other:
            found = other.execute("SELECT user, query FROM __audit_log WHERE operation = 'INSERT'").fetchall()
            assert len(found) == 40
            assert all(str(user) in str(query) for user, query in found)
