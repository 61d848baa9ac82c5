"""`heliosvfs audit tail -f` goes on through locks and floods of events, and ends where there is nothing more to come."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import heliosvfs
from heliosaudit.retention import prune
from heliosvfs.audit import Policy
from heliosvfs.check import check

KEY = bytes(range(32))
PROGRAM = (  # nohup has SIGHUP ignored, a shell's & SIGINT
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    "from heliosvfs.cli import main; main()"
)
SOON = 20  # seconds that nothing here takes, on a machine that does something else too


class Tail:
    """A command that follows, and its lines as they come; what it says on standard error is in a file."""

    def __init__(self, path: Path, stdout: int = subprocess.PIPE) -> None:
        self.errors = path.with_name("errors")
        command = [sys.executable, "-c", PROGRAM, "audit", "tail", "-f", str(path), "--key-env", "CLINIC_KEY"]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                command, stdout=stdout, stderr=errors, text=True, env={**os.environ, "CLINIC_KEY": KEY.hex()}
            )
        self.lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        if self.process.stdout is not None:
            with self.process.stdout as lines:
                for line in lines:
                    self.lines.put(line)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def until(self, text: str) -> list[str]:
        """Return the lines up to one that holds a text."""
        found = [self.lines.get(timeout=SOON)]
        while text not in found[-1]:
            found.append(self.lines.get(timeout=SOON))
        return found

    def ended(self) -> tuple[int, str]:
        """Wait for its end; returns the status and what it said."""
        status = self.process.wait(SOON)
        said = self.errors.read_text()
        assert "Traceback" not in said
        return status, said


@contextlib.contextmanager
def following(path: Path) -> Iterator[Tail]:
    with closing(Tail(path)) as tail:
        tail.until("READ LOG")
        yield tail


def audited(path: Path, mode: str = "wal") -> heliosvfs.Connection:
    connection = heliosvfs.connect(path, key=KEY, audit=Policy(), journal_mode=mode)
    connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
    return connection


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a rollback-journal database, so that nobody can read."""
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def test_a_lock_is_waited_for_however_long_somebody_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "db"
    audited(path, "delete").close()
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "db").symlink_to(path)
    with following(path) as tail:
        with locked(path):
            late = Tail(tmp_path / "late" / "db")  # which can't even open it
            time.sleep(6.5)  # the busy timeout is five
            states = tail.process.poll(), late.process.poll()
        with closing(late):
            assert states == (None, None)
            late.until("READ LOG")
            with closing(audited(path, "delete")) as connection:
                connection.execute("INSERT INTO t VALUES('later')")
            for each in (tail, late):
                each.until("'later'")
                each.process.send_signal(signal.SIGTERM)
                status, said = each.ended()
                assert said.count("is locked by another program: waiting for it") == 1
                assert (status, said.endswith("stopped\n")) == (143, True)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_it_at_once_while_it_waits_for_a_lock(tmp_path: Path, name: str) -> None:
    audited(tmp_path / "db", "delete").close()
    number = getattr(signal, name)
    with following(tmp_path / "db") as tail, locked(tmp_path / "db"):
        time.sleep(1)  # it has met the lock by now
        began = time.monotonic()
        tail.process.send_signal(number)
        assert tail.ended() == (128 + number, "" if name == "SIGINT" else "\nstopped\n")
    assert time.monotonic() - began < 2


def test_reading_is_recorded_once_the_writer_is_done_and_shown_meanwhile(tmp_path: Path) -> None:
    with closing(audited(tmp_path / "db")) as connection:
        connection.execute("INSERT INTO t VALUES('before')")
        connection.execute("BEGIN IMMEDIATE")
        with closing(Tail(tmp_path / "db")) as tail:
            assert not any("READ LOG" in line for line in tail.until("'before'"))
            connection.execute("COMMIT")
            tail.until("READ LOG")
            tail.process.terminate()
            assert tail.ended() == (143, "\nstopped\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps files that are open")
@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("change", ["deleted", "renamed", "replaced"])
def test_a_database_that_is_deleted_or_replaced_ends_it(tmp_path: Path, mode: str, change: str) -> None:
    path, other = tmp_path / "db", tmp_path / "other"
    audited(path, mode).close()
    audited(other, mode).close()
    with following(path) as tail:
        if change == "deleted":
            path.unlink()
        elif change == "renamed":
            path.rename(tmp_path / "away")
        else:
            other.replace(path)
        status, said = tail.ended()
    assert status == 1
    assert ("was replaced by another file" if change == "replaced" else "was deleted or renamed") in said
    assert said.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps files that are open")
def test_a_link_that_leads_elsewhere_ends_it(tmp_path: Path) -> None:
    audited(tmp_path / "one").close()
    audited(tmp_path / "two").close()
    (tmp_path / "db").symlink_to("one")
    with following(tmp_path / "db") as tail:
        (tmp_path / "link").symlink_to("two")
        (tmp_path / "link").replace(tmp_path / "db")
        assert "was replaced by another file" in tail.ended()[1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps files that are open")
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_the_database_in_its_place_keeps_its_journal(tmp_path: Path, mode: str) -> None:
    """SQLite would roll that back into the file that it has open, and remove it."""
    path, other, kept = tmp_path / "db", tmp_path / "other", "-wal" if mode == "wal" else "-journal"
    audited(path, mode).close()
    connection = audited(other, mode)
    connection.execute("INSERT INTO t VALUES('theirs')")
    connection.pragma("cache_size", 1)
    connection.execute("BEGIN; INSERT INTO t SELECT randomblob(3000) FROM (VALUES(1), (2), (3), (4), (5), (6))")
    with following(path) as tail:
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(f"db{suffix}").unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(tmp_path / f"other{suffix}", tmp_path / f"db{suffix}")
        shutil.copy(other, tmp_path / "copy")
        (tmp_path / "copy").replace(path)
        before = path.with_name(f"db{kept}").read_bytes()
        assert tail.ended()[0] == 1
        assert path.with_name(f"db{kept}").read_bytes() == before
    connection.close()
    with closing(heliosvfs.connect(path, key=KEY)) as copy:
        assert copy.execute("SELECT x FROM t").fetchall() == [("theirs",)]
    assert check(path, key=KEY).ok


def test_a_log_that_was_cut_ends_it(tmp_path: Path) -> None:
    with closing(audited(tmp_path / "db")) as connection:
        connection.executemany("INSERT INTO t VALUES(?)", ((n,) for n in range(9)))
    with following(tmp_path / "db") as tail:
        with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
            connection.execute("DROP TRIGGER __audit_log_no_delete; DELETE FROM __audit_log WHERE id > 5").fetchall()
        status, said = tail.ended()
    assert (status, "the log ends with event 5, and event" in said) == (1, True)


def test_a_flood_of_events_is_followed_as_it_comes(tmp_path: Path) -> None:
    with closing(audited(tmp_path / "db")) as connection, following(tmp_path / "db") as tail:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t VALUES(?)", ((n,) for n in range(30_000)))
        connection.execute("COMMIT")
        began = time.monotonic()
        found = tail.until("VALUES(29999)")
        assert time.monotonic() - began < 10  # thirty looks with half a second between them are fifteen
    numbers = [int(line.partition(" ")[0]) for line in found]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) >= 30_000


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe whose reader is gone is noticed when it is written to")
def test_it_ends_in_silence_when_nobody_reads_its_output_any_more(tmp_path: Path) -> None:
    audited(tmp_path / "db").close()
    reading, writing = os.pipe()
    with closing(Tail(tmp_path / "db", stdout=writing)) as tail:
        os.close(writing)
        shown = b""
        while b"READ LOG" not in shown:
            shown += os.read(reading, 65536)
        os.close(reading)  # and there is no further event to be written
        assert tail.ended() == (1, "")


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_rotation_a_new_key_vacuum_and_prune_are_followed_through(tmp_path: Path, mode: str) -> None:
    with closing(audited(tmp_path / "db", mode)) as connection, following(tmp_path / "db") as tail:
        for work in (connection.rotate, lambda: connection.change_key("another"), lambda: connection.execute("VACUUM")):
            work()
            connection.execute("INSERT INTO t VALUES('afterwards')")
            tail.until("'afterwards'")
        with closing(heliosvfs.connect(tmp_path / "db", key="another")) as other:
            assert prune(other, days=1, archive=None, now=datetime.now(timezone.utc) + timedelta(days=9)).last > 0
        connection.execute("INSERT INTO t VALUES('pruned')")
        tail.until("'pruned'")
