"""SIGTERM: what waits is written, nothing committed is lost, what is open is rolled back, and the process ends as it should."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import heliosvfs
from heliosaudit.verifications import verify
from heliosvfs import shutdowns
from tests.observing.ended import KEY

PROGRAM = Path(__file__).with_name("ended.py")
LIMIT = 90  # seconds until a process counts as hanging

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    where = tmp_path / "bank.db"
    with closing(heliosvfs.connect(where, key=KEY, audit="soc2")) as connection:
        connection.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER)")
        connection.execute("INSERT INTO account VALUES(1, 1000), (2, 0)")
    return where


def end(path: Path, scenario: str, prefix: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """Run a scenario until it is ready, send SIGTERM; return its exit code and what it printed."""
    command = [*prefix, sys.executable, "-W", "ignore::DeprecationWarning", str(PROGRAM), str(path), scenario]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROGRAM.parents[2]) as process:
        assert process.stdout is not None
        lines = []
        while "ready\n" not in lines:
            line = process.stdout.readline()
            assert line, "it ended by itself"
            lines.append(line)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text() if prefix else str(process.pid)
        os.kill(int(children), signal.SIGTERM)
        try:
            rest, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return process.returncode, [line.strip() for line in [*lines, *rest.splitlines(keepends=True)] if line != "ready\n"]


def read(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Query the database after all; its audit log has to verify."""
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        assert verify(connection).ok
        return connection.execute(sql).fetchall()


def said(path: Path) -> dict[str, Any]:
    """Return the last line of the activity log."""
    return dict(json.loads(Path(f"{path}.log").read_text().splitlines()[-1]))


def test_an_idle_process_writes_what_waits_and_dies_of_the_signal(path: Path) -> None:
    code, _ = end(path, "idle")
    assert code == -signal.SIGTERM
    assert not Path(f"{path}-wal").exists()
    assert read(path, "SELECT operation FROM __audit_log ORDER BY id DESC LIMIT 2") == [("CLOSE",), ("SELECT",)]
    assert (said(path)["operation"], said(path)["success"]) == ("SHUTDOWN", True)
    assert "heliosvfs_connections 0\n" in Path(f"{path}.prom").read_text()


def test_an_event_loop_is_no_obstacle(path: Path) -> None:
    code, _ = end(path, "event_loop")
    assert code == -signal.SIGTERM
    assert read(path, "SELECT operation FROM __audit_log ORDER BY id DESC LIMIT 2") == [("CLOSE",), ("SELECT",)]


def test_an_open_transaction_is_rolled_back_and_recorded_as_such(path: Path) -> None:
    code, _ = end(path, "in_transaction")
    assert code == -signal.SIGTERM
    assert read(path, "SELECT balance FROM account") == [(1000,), (0,)]
    assert read(path, "SELECT rolled_back FROM __audit_log WHERE operation = 'UPDATE'") == [(1,)]


def test_no_statement_slips_out_of_a_transaction_that_is_ended(path: Path) -> None:
    """Each thread ignores all failures: what followed a rollback would be committed by itself."""
    for _ in range(3):
        code, _ = end(path, "transfers")
        assert code == -signal.SIGTERM
        assert read(path, "SELECT sum(balance) FROM account") == [(1000,)]
    assert read(path, "SELECT balance > 0 FROM account WHERE id = 2") == [(1,)]


def test_a_main_thread_within_a_long_query_is_no_obstacle(path: Path) -> None:
    code, _ = end(path, "long_query")
    assert code == -signal.SIGTERM
    assert not Path(f"{path}-wal").exists()


def test_the_handler_that_was_there_before_comes_last(path: Path) -> None:
    assert end(path, "own_handler") == (7, ["ConnectionClosedError"])
    assert not Path(f"{path}-wal").exists()


def test_a_handler_that_was_set_later_comes_alone_and_may_close_all(path: Path) -> None:
    assert end(path, "later_handler") == (8, ["[(2,)]", "0"])
    assert not Path(f"{path}-wal").exists()


def test_a_statement_that_does_not_end_is_left_when_the_time_is_over(path: Path) -> None:
    code, _ = end(path, "stuck")
    assert code == -signal.SIGTERM
    assert read(path, "SELECT balance FROM account") == [(1000,), (0,)]


def test_the_first_process_of_a_container_ends_too(path: Path) -> None:
    """It dies of no signal by default (pid_namespaces(7)), so that a default handler put back would leave it running, closed."""
    command = ("unshare", "--pid", "--fork")
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespaces here")
    code, _ = end(path, "idle", command)
    assert code == 128 + signal.SIGTERM
    assert not Path(f"{path}-wal").exists()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no fork here")
def test_a_forked_child_ends_without_its_parent(path: Path) -> None:
    code, printed = end(path, "forked")
    assert printed == [str(-signal.SIGTERM)]
    assert code == -signal.SIGTERM
    assert read(path, "SELECT balance FROM account WHERE id = 2") == [(2,)]


def test_it_is_installed_in_the_main_thread_or_not_at_all() -> None:
    found: list[BaseException] = []

    def install() -> None:
        try:
            shutdowns.install(1.0)
        except heliosvfs.UsageError as error:
            found.append(error)

    thread = threading.Thread(target=install)
    thread.start()
    thread.join()
    assert "main thread" in str(found[0])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
