"""`heliosvfs audit`, run as people and programs run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosvfs
from heliosvfs.audit import Policy, session

KEY = bytes(range(32))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, audit=Policy(log_select=True))) as connection:
        connection.execute("CREATE TABLE patient(id INTEGER PRIMARY KEY, name)")
        with session(user="ada"):
            connection.executemany("INSERT INTO patient VALUES(?, ?)", ((n, f"P{n:05}") for n in range(20)))
        with session(user="bob"):
            connection.execute("SELECT * FROM patient WHERE id = 7").fetchall()
    return path


def run(*arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CLINIC_KEY": KEY.hex()}
    command = [sys.executable, "-m", "heliosvfs", "audit", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def read(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--key-env", "CLINIC_KEY", "--json").stdout)
    return found


def test_events_are_filtered_and_searched(database: Path) -> None:
    (event,) = read("log", database, "--user", "bob")["events"]
    assert (event["operation"], event["target"], event["affected_rows"]) == ("SELECT", "patient", 1)
    (event,) = read("search", database, "P00003")["events"]
    assert (event["user"], event["query"]) == ("ada", "INSERT INTO patient VALUES(3, 'P00003')")
    assert "INSERT" in run("tail", database, "-n", "30", "--key-env", "CLINIC_KEY").stdout
    assert "READ LOG" in run("log", database, "--key-env", "CLINIC_KEY").stdout


def test_a_checkpoint_vouches_for_the_log_and_shows_that_it_was_cut(database: Path, tmp_path: Path) -> None:
    public = run("make-key", tmp_path / "key.pem", "--name", "clinic/audit").stdout.strip()
    run("checkpoint", database, "--signing-key", tmp_path / "key.pem", "-o", tmp_path / "note", "--key-env", "CLINIC_KEY")
    against = ("--checkpoint", tmp_path / "note", "--public-key", public)
    assert read("verify", database, *against)["verdict"] == "verified"
    with closing(heliosvfs.connect(database, key=KEY)) as connection:
        connection.execute("DROP TRIGGER __audit_log_no_delete; DELETE FROM __audit_log WHERE id > 20").fetchall()
    done = run("verify", database, *against, "--key-env", "CLINIC_KEY", "--json", status=1)
    assert json.loads(done.stdout)["first broken"]["kind"] == "truncated"


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX limit")
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(database: Path, tmp_path: Path) -> None:
    with closing(heliosvfs.connect(database, key=KEY)) as connection:
        connection.pragma("journal_mode", "delete")
    run("make-key", tmp_path / "key.pem", "--name", "clinic/audit")
    files = ("--signing-key", tmp_path / "key.pem", "-o", tmp_path / "note")
    arguments = ["checkpoint", database, *files, "--key-env", "CLINIC_KEY"]
    run(*arguments)
    before = (tmp_path / "note").read_bytes()
    command = [sys.executable, "-m", "heliosvfs", "audit", *map(str, arguments)]
    limited = ["sh", "-c", 'ulimit -f 0 && exec "$@"', "sh", *command]  # no file may grow, as on a full disk
    done = subprocess.run(limited, capture_output=True, text=True, env={**os.environ, "CLINIC_KEY": KEY.hex()}, check=False)
    assert done.returncode == 1
    assert str(tmp_path / "note") in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "note").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"db", "key.pem", "note"}


def test_events_are_exported_and_pruned(database: Path, tmp_path: Path) -> None:
    assert read("export", database, tmp_path / "out.jsonl.gz", "--gzip")["events"] > 20
    assert (tmp_path / "out.jsonl.gz.manifest.json").exists()
    assert read("prune", database, "--days", "1", "--archive", tmp_path / "archive.gz")["last"] == 0
    assert read("verify", database)["verdict"] == "consistent, unanchored"


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "missing.db"),
        ("prune", "missing.db", "--days", "1"),
        ("verify", "missing.db", "--checkpoint", "x"),
    ],
)
def test_wrong_use_is_one_message_and_status_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments, "--key-env", "CLINIC_KEY", status=2).stderr.count("\n") <= 12


def test_a_database_without_a_log_is_told_so(tmp_path: Path) -> None:
    heliosvfs.connect(tmp_path / "bare", key=KEY).close()
    assert "has no audit log" in run("verify", tmp_path / "bare", "--key-env", "CLINIC_KEY", status=2).stderr


def test_what_was_opened_without_audit_has_no_events(tmp_path: Path) -> None:
    with closing(heliosvfs.connect(tmp_path / "bare", key=KEY)) as connection:
        assert type(connection) is heliosvfs.Connection
        with pytest.raises(apsw.SQLError):
            connection.execute("SELECT * FROM __audit_log")
