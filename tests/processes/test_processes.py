"""Several processes and threads on one database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import heliosvfs

KEY = bytes(range(32))
WORKER = Path(__file__).with_name("worker.py")


class Process:
    """A worker process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )

    def say(self, *command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, *command: Any) -> Any:
        self.say(*command)
        return self.answer()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.close()


def start(processes: list[Process], count: int, path: Path, mode: str) -> list[Process]:
    new = [Process() for _ in range(count)]
    processes.extend(new)
    for process in new:
        process.say("open", str(path), KEY.hex(), mode)
    assert [process.answer() for process in new] == ["open"] * count
    return new


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_processes_that_write_at_once_lose_nothing(tmp_path: Path, processes: list[Process], mode: str, count: int) -> None:
    path, times = tmp_path / "db", 60
    with closing(heliosvfs.connect(path, key=KEY, journal_mode=mode)) as connection:
        connection.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, amount); CREATE TABLE move(who, n, filler)")
        connection.executemany("INSERT INTO account VALUES(?, 100)", ((n,) for n in range(10)))
        workers = start(processes, count, path, mode)
        for who, worker in enumerate(workers):
            worker.say("transfer", who, times)
        assert [worker.answer() for worker in workers] == [times] * count
        assert connection.execute("SELECT sum(amount) FROM account").get == 1000
        moves = connection.execute("SELECT who, n FROM move ORDER BY who, n").fetchall()
        assert moves == [(who, n) for who in range(count) for n in range(times)]
        assert connection.pragma("integrity_check") == "ok"


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_processes_that_create_the_same_file_at_once_get_one_database(
    tmp_path: Path, processes: list[Process], mode: str
) -> None:
    workers = [Process() for _ in range(3)]
    processes.extend(workers)
    for round_ in range(15):
        path = tmp_path / f"db{round_}"
        for worker in workers:
            worker.say("open", str(path), KEY.hex(), mode)
        assert [worker.answer() for worker in workers] == ["open"] * 3
        for number, worker in enumerate(workers):
            worker.say("sql", f"CREATE TABLE t{number}(x); INSERT INTO t{number} VALUES({number})")
        assert [worker.answer() for worker in workers] == [[]] * 3
        with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
            for number in range(3):
                assert connection.execute(f"SELECT x FROM t{number}").get == number
            assert connection.pragma("integrity_check") == "ok"


def test_a_log_that_another_process_restarted_is_recovered_after_all_are_killed(tmp_path: Path, processes: list[Process]) -> None:
    """The one that joined never read the new header; what it wrote under the new salts must be there afterwards."""
    path = tmp_path / "db"
    first, second = start(processes, 2, path, "wal")
    assert first.ask("sql", "CREATE TABLE t(x); INSERT INTO t VALUES('old')") == []
    assert second.ask("sql", "SELECT * FROM t") == [["old"]]
    assert first.ask("sql", "PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0
    assert first.ask("sql", "INSERT INTO t VALUES('by first')") == []
    assert second.ask("sql", "INSERT INTO t VALUES('by second')") == []
    for process in (first, second):
        process.kill()
        processes.remove(process)
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert [x for (x,) in connection.execute("SELECT x FROM t ORDER BY rowid")] == ["old", "by first", "by second"]


def test_a_killed_writer_in_a_transaction_is_rolled_back_by_the_next_process(tmp_path: Path, processes: list[Process]) -> None:
    path = tmp_path / "db"
    (writer,) = start(processes, 1, path, "delete")
    assert writer.ask("sql", "CREATE TABLE t(x); INSERT INTO t VALUES(1); PRAGMA cache_size = 2") == []
    assert (
        writer.ask("sql", "BEGIN; UPDATE t SET x = 2; INSERT INTO t SELECT zeroblob(3000) FROM (VALUES(1),(2),(3),(4),(5),(6))")
        == []
    )
    writer.kill()
    processes.remove(writer)
    assert (tmp_path / "db-journal").exists()
    (reader,) = start(processes, 1, path, "delete")
    assert reader.ask("sql", "SELECT x FROM t") == [[1]]


def test_threads_with_a_connection_each_lose_nothing(tmp_path: Path) -> None:
    path, errors = tmp_path / "db", []
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("CREATE TABLE t(who, n)")

        def work(who: int) -> None:
            try:
                with closing(heliosvfs.connect(path, key=KEY, busy_timeout=60)) as own:
                    for n in range(50):
                        own.execute("INSERT INTO t VALUES(?, ?)", (who, n))
                        own.execute("SELECT count(*) FROM t").fetchall()
            except Exception as error:  # noqa: BLE001 - shown by the assertion below
                errors.append(error)

        threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert connection.execute("SELECT count(*), count(DISTINCT who || ' ' || n) FROM t").fetchall() == [(200, 200)]


def test_a_forked_child_with_its_own_connection_draws_other_nonces(tmp_path: Path) -> None:
    """Nonces are kept in store, and two processes that used the same ones would break the encryption."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x)")
    script = f"""
import os, sys
from heliosvfs.pages import FileKeys, Sealer, KIND_DATABASE
sealer = Sealer(FileKeys.ephemeral(os.urandom), KIND_DATABASE, 512, os.urandom)
sealer.seal(bytes(480), b"")
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, bytes(sealer.seal(bytes(480), b"")[-16:-4]))
    os._exit(0)
os.wait()
child = os.read(read, 12)
own = bytes(sealer.seal(bytes(480), b"")[-16:-4])
assert len(child) == 12 and child != own, "the child used its parent's nonce"
import heliosvfs
if os.fork() == 0:
    connection = heliosvfs.connect({str(path)!r}, key=bytes(range(32)))
    connection.execute("INSERT INTO t VALUES('child')")
    connection.close()
    os._exit(0)
assert os.wait()[1] == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        assert connection.execute("SELECT x FROM t").get == "child"


def test_the_interpreter_ends_well_with_connections_open(tmp_path: Path) -> None:
    """Objects that are torn down in any order must not be called by SQLite (rule 16)."""
    script = f"""
import heliosvfs, apsw
kept = [heliosvfs.connect({str(tmp_path)!r} + f"/db{{n}}", key=bytes(32)) for n in range(3)]
for connection in kept:
    connection.execute("CREATE TABLE t(x); BEGIN; INSERT INTO t VALUES(1)")
cursor = kept[0].execute("SELECT 1 UNION SELECT 2")
next(cursor)
loop = [kept]; loop.append(loop)
print("end")
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
