"""Commands that are stopped in the middle, and streams that are closed: nothing half-made stays, and nobody sees a traceback."""

from __future__ import annotations

import hashlib
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs

KEY = bytes(range(32))


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
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
