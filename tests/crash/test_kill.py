"""A real writer on real files, killed again and again: what it reported as committed is there, at every level."""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.writer import HELIOS_KEY_BYTES, body, connect

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


def _killed(subject: str, path: Path, key: bytes, journal: str, level: str, *, reports: int, spilled: bool = False) -> int:
    """Run a writer, kill it after some reports, and return the last row that it reported."""
    arguments = [subject, str(path), journal, level, "yes" if spilled else "no"]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.writer", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(key)
        writer.stdin.close()
        lines = [writer.stdout.readline() for _ in range(reports)]
        if not spilled:
            writer.kill()  # wherever it is by now
        lines += writer.stdout.readlines()
    assert writer.returncode == -signal.SIGKILL
    return int([line for line in lines if line.endswith(b"\n")][-1])


def _rows(subject: str, path: Path, key: bytes) -> int:
    """Open what the killed writer left, require that it is whole, and return the last row."""
    with contextlib.closing(connect(subject, str(path), key)) as connection:
        assert connection.pragma("integrity_check") == "ok"
        rows = connection.execute("SELECT seq, body FROM ledger ORDER BY seq").fetchall()
    assert rows == [(sequence, body(sequence)) for sequence in range(1, len(rows) + 1)]
    return len(rows)


@pytest.mark.parametrize("subject", ["plain", "helios"])
@pytest.mark.parametrize(
    ("journal", "level"),
    [("wal", "normal"), ("wal", "off"), ("delete", "full"), ("truncate", "off"), ("persist", "normal")],
)
def test_a_killed_writer_loses_no_reported_commit(subject: str, journal: str, level: str, tmp_path: Path) -> None:
    """Several kills of writers of one file, the first while it is new."""
    key, path = secrets.token_bytes(HELIOS_KEY_BYTES), tmp_path / "main"
    for reports in (1, 9, 4):
        reported = _killed(subject, path, key, journal, level, reports=reports)
        assert _rows(subject, path, key) >= reported


@pytest.mark.parametrize("subject", ["plain", "helios"])
@pytest.mark.parametrize("level", ["normal", "off"])
def test_a_spilled_commit_survives_a_kill_right_after_it(subject: str, level: str, tmp_path: Path) -> None:
    """SQLite ends such a commit in the WAL by rewriting frame headers, without a sync: nothing may be held back."""
    key, path = secrets.token_bytes(HELIOS_KEY_BYTES), tmp_path / "main"
    for _ in range(3):
        reported = _killed(subject, path, key, "wal", level, reports=1, spilled=True)
        assert _rows(subject, path, key) == reported
