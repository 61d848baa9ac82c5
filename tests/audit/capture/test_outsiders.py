"""Somebody who writes past the audit is noticed by the next audited connection; nobody else is taken for one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
import heliosvfs
from heliosaudit.verifications import verify

POLICY = heliosaudit.Policy(log_select=True)


def make(path: Path, mode: str, kind: str) -> None:
    with closing(connect(path, kind)) as connection:
        connection.pragma("journal_mode", mode)
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)").fetchall()


def connect(path: Path, kind: str) -> Any:
    if kind == "encrypted":
        return heliosvfs.connect(path, key=bytes(32), audit=POLICY)
    return heliosaudit.connect(path, POLICY)


def outside(path: Path, kind: str, *statements: str) -> None:
    """Write past the audit, as another program does."""
    if kind == "encrypted":
        with closing(heliosvfs.connect(path, key=bytes(32))) as plain:
            for statement in statements:
                plain.execute(statement)
    else:
        with closing(sqlite3.connect(path, isolation_level=None)) as plain:
            for statement in statements:
                plain.execute(statement)


def noticed(path: Path, kind: str) -> list[Any]:
    with closing(connect(path, kind)) as connection:
        assert verify(connection).ok
        return connection.execute("SELECT record->>21 FROM __audit_log WHERE operation = 'CHANGED OUTSIDE' ORDER BY id").get or []


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
@pytest.mark.parametrize("mode", ["delete", "truncate"])
def test_with_a_rollback_journal_every_transaction_is_noticed(tmp_path: Path, mode: str, kind: str) -> None:
    make(tmp_path / "db", mode, kind)
    outside(tmp_path / "db", kind, "UPDATE t SET x = 2", "UPDATE t SET x = 3")
    found = noticed(tmp_path / "db", kind)
    assert '"transactions":2' in found
    assert noticed(tmp_path / "db", kind) == found  # told once


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
@pytest.mark.parametrize("change", ["CREATE TABLE u(x)", "INSERT INTO t VALUES(zeroblob(100000))", "DROP TABLE t"])
def test_in_wal_mode_schema_and_size_are_noticed(tmp_path: Path, change: str, kind: str) -> None:
    make(tmp_path / "db", "wal", kind)
    outside(tmp_path / "db", kind, change)
    assert noticed(tmp_path / "db", kind)


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_nobody_is_taken_for_an_outsider(tmp_path: Path, mode: str, kind: str) -> None:
    path = tmp_path / "db"
    make(path, mode, kind)
    for number in range(4):
        with closing(connect(path, kind)) as one, closing(connect(path, kind)) as two:
            one.execute("INSERT INTO t VALUES(zeroblob(?))", (number * 9000,))
            two.execute("DELETE FROM t WHERE length(x) > 9000")
            if number % 2:
                one.execute("CREATE TABLE IF NOT EXISTS more(x)")
                two.execute("ANALYZE")
        with closing(connect(path, kind)) as one:
            one.execute("VACUUM")
            one.pragma("user_version", number)
        outside(path, kind, "SELECT * FROM t", "PRAGMA wal_checkpoint(TRUNCATE)", "BEGIN; ", "ROLLBACK")
    assert noticed(path, kind) == []


def test_events_by_the_command_line_are_no_outsider(tmp_path: Path) -> None:
    make(tmp_path / "db", "delete", "encrypted")
    (tmp_path / "key").write_bytes(bytes(32))
    (tmp_path / "key").chmod(0o600)
    subprocess.run(
        [sys.executable, "-m", "heliosvfs", "audit", "verify", str(tmp_path / "db"), "--key-file", str(tmp_path / "key")],
        check=True,
        capture_output=True,
    )
    assert noticed(tmp_path / "db", "encrypted") == []


def test_while_another_connection_is_there_nothing_is_said(tmp_path: Path) -> None:
    make(tmp_path / "db", "delete", "plain")
    with closing(connect(tmp_path / "db", "plain")):
        outside(tmp_path / "db", "plain", "UPDATE t SET x = 2")
        assert noticed(tmp_path / "db", "plain") == []
    with closing(apsw.Connection(str(tmp_path / "db"))) as plain:
        assert plain.execute("SELECT count(*) FROM __audit_state").get == 1
