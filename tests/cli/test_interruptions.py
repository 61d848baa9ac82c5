"""Commands that are stopped in the middle, and streams that are closed: nothing half-made stays, and nobody sees a traceback."""

from __future__ import annotations

import hashlib
import os
import pty
import select
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import heliosvfs

KEY = bytes(range(32))
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
FOR_EVER = "SELECT count(*) FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c);"


@pytest.fixture
def _default_signals() -> Iterator[None]:
    """Have processes that are started begin with the usual handlers: nohup, or a shell's &, has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def running(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, *map(str, arguments)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@POSIX
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("command", ["encrypt", "decrypt"])
def test_a_signal_in_the_middle_leaves_the_source_and_nothing_else(
    tmp_path: Path, key_file: Path, command: str, name: str
) -> None:
    source, number = tmp_path / "source.db", getattr(signal, name)
    with closing(sqlite3.connect(source) if command == "encrypt" else heliosvfs.connect(source, key=KEY)) as connection:
        connection.execute("CREATE TABLE t AS SELECT zeroblob(20000000) AS x")
    before = hashlib.sha256(source.read_bytes()).digest()
    handler = "default_int_handler" if name == "SIGINT" else "SIG_DFL"  # nohup, or a shell's &, has it ignored
    program = f"import signal; signal.signal({number}, signal.{handler}); from heliosvfs.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, command, source, tmp_path / "copy.db", "--key-file", key_file],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "copy.db.partial").exists() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert {path.name for path in tmp_path.iterdir()} == {"key", "source.db"}
    assert hashlib.sha256(source.read_bytes()).digest() == before


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_closed_stream_is_no_error(tmp_path: Path, key_file: Path, closed: str) -> None:
    heliosvfs.connect(tmp_path / "db", key=KEY).close()
    words = [sys.executable, "-m", "heliosvfs", "check", str(tmp_path / "db"), "--key-file", str(key_file)]
    ended = subprocess.run(["sh", "-c", f"{shlex.join(words)} {closed}"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_no_python_code_runs_where_an_interrupt_would_be_lost(tmp_path: Path) -> None:
    """APSW can hand on no exception from xSectorSize and xDeviceCharacteristics: a signal handler's would be printed there."""
    called: set[str] = set()
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x)")
        sys.setprofile(lambda frame, event, _: called.add(frame.f_code.co_name) if event == "call" else None)
        try:
            for mode in ("delete", "wal"):
                connection.pragma("journal_mode", mode)
                connection.execute("INSERT INTO t SELECT zeroblob(9000) UNION ALL SELECT x FROM t")
            connection.execute("VACUUM")
        finally:
            sys.setprofile(None)
    assert called >= {"read_page", "write_page", "write_frame"}
    assert not called & {"xDeviceCharacteristics", "xSectorSize"}


@POSIX
@pytest.mark.usefixtures("_default_signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("what", ["shell", "check", "encrypt"])
def test_what_sqlite_computes_is_stopped(tmp_path: Path, key_file: Path, what: str, name: str) -> None:
    """integrity_check computes these constraints for half a minute, from a few pages."""
    path, number = tmp_path / "db", getattr(signal, name)
    with closing(sqlite3.connect(path) if what == "encrypt" else heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("CREATE TABLE t(x CHECK(length(hex(zeroblob(300000))) > x))")
        connection.execute(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 100000) INSERT INTO t SELECT n FROM n"
        )
        if what == "encrypt":
            connection.commit()
    further = {"shell": [FOR_EVER], "check": [], "encrypt": [tmp_path / "copy.db"]}[what]
    with running("-m", "heliosvfs", what, path, *further, "--key-file", key_file) as process:
        time.sleep(2.5)
        assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=6)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("copy*"))


class Terminal:
    """A shell at a terminal."""

    def __init__(self, home: Path, *arguments: object) -> None:
        self.process, self._end = pty.fork()
        if not self.process:
            words = [sys.executable, "-m", "heliosvfs", *map(str, arguments)]
            os.execve(sys.executable, words, {**os.environ, "HOME": str(home), "TERM": "dumb", "NO_COLOR": "1"})

    def read(self, what: str = "sqlite> ", patience: float = 10) -> str:
        """Return what is shown until there is ``what``."""
        shown, until = "", time.monotonic() + patience
        while what not in shown and select.select([self._end], [], [], max(until - time.monotonic(), 0))[0]:
            shown += os.read(self._end, 4096).decode()
        assert what in shown
        return shown

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def run(self, sql: str) -> str:
        self.type(f"{sql}\n")
        return self.read()

    def end(self) -> int:
        """Wait for its end; return its status."""
        with suppress(OSError):  # the terminal is gone with the child
            while os.read(self._end, 4096):
                pass
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def close(self) -> None:
        """Leave nothing of it."""
        os.close(self._end)
        with suppress(ChildProcessError):
            if os.waitpid(self.process, os.WNOHANG) == (0, 0):
                os.kill(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)


@POSIX
@pytest.mark.usefixtures("_default_signals")
@pytest.mark.parametrize("audit", [None, "hipaa"])
def test_the_shell_goes_on_after_an_interrupt_and_says_what_became_of_the_transaction(
    tmp_path: Path, key_file: Path, audit: str | None
) -> None:
    heliosvfs.connect(tmp_path / "db", key=KEY, audit=audit).close()
    with closing(Terminal(tmp_path, "shell", tmp_path / "db", "--key-file", key_file)) as shell:
        shell.read()
        shell.run("CREATE TABLE t(x); BEGIN; INSERT INTO t VALUES(1);")
        for by_terminal in (True, False):
            shell.type(f"{FOR_EVER}\n")
            time.sleep(0.5)
            if by_terminal:
                shell.type("\x03")
            else:
                os.kill(shell.process, signal.SIGINT)
            shown = shell.read()
            assert "interrupted" in shown
            assert "rolled back" not in shown
        assert "one row" in shell.run("SELECT 'one row' FROM t;").partition(";")[2]
        shell.type(f"INSERT INTO t {FOR_EVER}\n")
        time.sleep(0.5)
        shell.type("\x03")
        assert "interrupted: its transaction is rolled back" in shell.read()
        assert "no rows" in shell.run("SELECT 'no rows' WHERE (SELECT count(*) FROM t) = 0;").partition(";")[2]
        assert "ok" in shell.run("PRAGMA integrity_check;").partition(";")[2]
        shell.type(f"{FOR_EVER}\n")
        time.sleep(0.5)
        os.kill(shell.process, signal.SIGTERM)
        assert shell.end() == 128 + signal.SIGTERM


@POSIX
@pytest.mark.usefixtures("_default_signals")
def test_a_script_ends_where_it_is_interrupted(tmp_path: Path, key_file: Path) -> None:
    words = ("-m", "heliosvfs", "shell", "--create", tmp_path / "db", "--key-file", key_file)
    with running(*words, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(f"CREATE TABLE t(x);\n{FOR_EVER}\nINSERT INTO t VALUES(1);\n")
        process.stdin.flush()
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=6)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        assert connection.execute("SELECT count(*) FROM t").get == 0
