"""Threads that share a connection wait for each other call by call, whatever is called."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import heliosvfs.dbapi2 as sqlite3
from heliosvfs.vfs import files_of

COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10) SELECT count(*) FROM n"


class Parts:
    """A shared connection and what was made of it.

    Attributes:
        con: The connection.
        cur: A cursor none of whose rows has been fetched.
        blob: An open blob.
        dump: An iterator over its statements.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self.con = sqlite3.connect(path, key=key, check_same_thread=False, isolation_level=None)
        self.con.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
        self.con.executemany("INSERT INTO t VALUES(?, ?)", [(1, b"abcdef"), (2, b"")])
        self.cur = self.con.execute("SELECT id FROM t")
        self.blob = self.con.blobopen("t", "x", 1)
        self.dump = self.con.iterdump()

    def drop(self) -> None:
        """Drop what is half-read."""
        self.cur.fetchone()
        del self.cur, self.blob
        gc.collect()


@pytest.fixture
def parts(path: Path, key: bytes) -> Iterator[Parts]:
    parts = Parts(path, key)
    yield parts
    parts.con.close()


def rewrite(parts: Parts) -> None:
    parts.blob[0] = 65
    parts.blob[1:3] = b"BC"


CALLS: dict[str, Callable[[Parts], Any]] = {
    "description": lambda parts: parts.cur.description,
    "cursor": lambda parts: parts.con.cursor(),
    "in_transaction": lambda parts: parts.con.in_transaction,
    "total_changes": lambda parts: parts.con.total_changes,
    "iterdump": lambda parts: list(parts.dump),
    "blob.read": lambda parts: parts.blob.read(),
    "blob.write": lambda parts: parts.blob.write(b"ABC"),
    "blob.seek": lambda parts: parts.blob.seek(-1, 2),
    "blob.tell": lambda parts: parts.blob.tell(),
    "blob length": lambda parts: len(parts.blob),
    "blob item": lambda parts: (parts.blob[0], parts.blob[1:5:2]),
    "blob assignment": rewrite,
    "blob.close": lambda parts: parts.blob.close(),
    "with blob": lambda parts: parts.blob.__enter__().__exit__(None, None, None),
    "nothing any more": Parts.drop,
}


def run(call: Callable[[], Any], failures: list[BaseException]) -> threading.Thread:
    def within() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)

    thread = threading.Thread(target=within)
    thread.start()
    return thread


@pytest.mark.timeout(60)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_waits_for_the_statement_of_another_thread(parts: Parts, call: str) -> None:
    started, proceed = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def wait() -> int:
        started.set()
        return proceed.wait(30)

    parts.con.create_function("wait", 0, wait)
    first = run(lambda: parts.con.execute("SELECT wait()").fetchall(), failures)
    assert started.wait(30)
    second = run(lambda: CALLS[call](parts), failures)
    second.join(0.05)
    assert second.is_alive()
    proceed.set()
    first.join()
    second.join()
    assert failures == []


@pytest.mark.timeout(60)
def test_a_statement_waits_for_the_dump_of_another_thread(parts: Parts) -> None:
    started, proceed = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def wait() -> int:
        started.set()
        proceed.wait(30)
        return 0

    parts.con.set_progress_handler(wait, 1)
    first = run(lambda: list(parts.dump), failures)
    assert started.wait(30)
    second = run(lambda: parts.con.execute(COUNT).fetchone(), failures)
    second.join(0.5)  # APSW alone gives up after a third of a second
    proceed.set()
    first.join()
    second.join()
    assert failures == []


@pytest.mark.timeout(60)
def test_a_statement_waits_for_the_blob_of_another_thread(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    parts.con.execute("PRAGMA cache_size = 0")
    parts.con.execute("INSERT INTO t VALUES(3, zeroblob(1000000))")
    large = parts.con.blobopen("t", "x", 3)
    started, proceed = threading.Event(), threading.Event()
    failures: list[BaseException] = []
    file = files_of(parts.con._session.db)[0]
    read = file.xRead

    def wait(amount: int, offset: int) -> Any:
        started.set()
        proceed.wait(30)
        return read(amount, offset)

    monkeypatch.setattr(file, "xRead", wait)
    first = run(lambda: large.write(bytes(1000000)), failures)
    assert started.wait(30)
    second = run(lambda: parts.con.execute(COUNT).fetchone(), failures)
    second.join(0.5)
    proceed.set()
    first.join()
    second.join()
    assert failures == []
    large.close()


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("freeing")
def test_blobs_and_half_read_cursors_disturb_no_other_thread(path: Path, key: bytes) -> None:
    """Each of their calls, and dropping them, calls into the VFS: that lets other threads run while SQLite is busy."""
    con = sqlite3.connect(path, key=key, check_same_thread=False)
    con.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    con.executemany("INSERT INTO t VALUES(?, ?)", [(number, bytes(3000)) for number in range(500)])
    con.commit()
    con.execute("PRAGMA cache_size = 5")
    failures: list[BaseException] = []
    done = threading.Event()

    def use() -> None:
        while not done.is_set():
            cursor = con.execute("SELECT id FROM t")
            assert cursor.fetchone() == (0,)
            blob = con.blobopen("t", "x", 1, readonly=True)
            assert blob.read(3) == bytes(3)
            del cursor, blob

    def write() -> None:
        try:
            for number in range(300):
                con.execute("UPDATE t SET x = ? WHERE id = 5", (bytes((number % 256,)) * 3000,))
                con.commit()
        finally:
            done.set()

    threads = [run(use, failures), run(use, failures), run(write, failures)]
    for thread in threads:
        thread.join()
    assert failures == []
    con.close()


def test_the_description_may_be_read_in_another_thread_though_it_is_checked() -> None:
    con = sqlite3.connect(":memory:")
    cur = con.execute("SELECT 1 AS a")
    seen: list[Any] = []
    failures: list[BaseException] = []
    run(lambda: seen.append(cur.description), failures).join()
    assert failures == []
    assert seen == [(("a", None, None, None, None, None, None),)]
    con.close()
