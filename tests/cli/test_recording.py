"""What a command does to a database with an audit log is in that log, whichever command it is."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import heliosvfs
from heliosaudit.verifications import verify

KEY = bytes(range(32))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "app.key").write_text(KEY.hex())
    (tmp_path / "new.key").write_text(os.urandom(32).hex())
    for name in ("app.key", "new.key"):
        (tmp_path / name).chmod(0o600)
    with closing(heliosvfs.connect(tmp_path / "app.db", key=KEY, audit="hipaa")) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)").fetchall()
    (tmp_path / "backups").mkdir()
    return tmp_path


def run(place: Path, *arguments: object) -> str:
    command = [sys.executable, "-m", "heliosvfs", *map(str, arguments), "--key-file", str(place / "app.key")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def events(place: Path) -> list[Any]:
    with closing(heliosvfs.connect(place / "app.db", key=KEY, create=False)) as plain:
        assert verify(plain).ok
        return plain.execute(
            "SELECT operation, target, query, success FROM __audit_log WHERE application_name = 'heliosvfs'"
        ).fetchall()


def operations(place: Path) -> list[str]:
    return [event[0] for event in events(place)]


def test_sql_of_the_shell_is_recorded_once(place: Path) -> None:
    assert run(place, "shell", place / "app.db", "SELECT x FROM t; UPDATE t SET x = 2", ".tables").startswith("1")
    found = events(place)
    assert ("SELECT", "t", "SELECT x FROM t", 1) in found or ("SELECT", "t", "SELECT x FROM t;", 1) in found
    assert [event[0] for event in found].count("UPDATE") == 1
    assert all(event[3] for event in found)


def test_key_slots_are_recorded(place: Path) -> None:
    run(place, "key", "add", place / "app.db", "--label", "second", "--new-key-file", place / "new.key")
    run(place, "key", "revoke", place / "app.db", "--label", "second")
    assert [name for name in operations(place) if "KEY" in name] == ["ADD KEY", "REVOKE KEY"]


def test_rotations_are_recorded(place: Path) -> None:
    run(place, "rotate", place / "app.db")
    assert operations(place).count("ROTATE") == 1
    with closing(heliosvfs.connect(place / "app.db", key=KEY)) as connection:
        assert connection.execute("SELECT x FROM t").get == 1


def test_backups_are_recorded(place: Path) -> None:
    run(place, "backup", place / "app.db", place / "backups")
    assert operations(place).count("BACKUP") == 1


def test_a_database_without_a_log_gets_none(place: Path) -> None:
    heliosvfs.connect(place / "plain.db", key=KEY).close()
    run(place, "shell", place / "plain.db", "CREATE TABLE t(x)")
    with closing(heliosvfs.connect(place / "plain.db", key=KEY)) as connection:
        assert not connection.table_exists("main", "__audit_log")
