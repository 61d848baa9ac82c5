"""A program can't tell an audited connection from a plain one (A0)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from heliosaudit.connections import connect
from heliosaudit.policies import Policy
from tests.audit.programs import Machine, Step, program

EVERYTHING = Policy(log_select=True, log_transactions=True, flush_interval=3600)


def _file(folder: Path, name: str, journal_mode: str) -> str:
    path = str(folder / name)
    connection = apsw.Connection(path)
    connection.pragma("journal_mode", journal_mode)
    connection.close()
    return path


def compare(folder: Path, steps: list[Step], journal_mode: str, name: str) -> None:
    folder.mkdir()
    plain_path, audited_path = _file(folder, "plain", journal_mode), _file(folder, "audited", journal_mode)
    plain = Machine(plain_path, apsw.Connection(plain_path))
    audited_connection = connect(audited_path, EVERYTHING, busy_timeout=0)
    audited = Machine(audited_path, audited_connection)
    try:
        for step in steps:
            due: Any = plain.step(step)
            found: Any = audited.step(step)
            assert found == due, name
        assert audited.content() == plain.content()
    finally:
        for machine in (plain, audited):
            machine.cursors.clear()
            machine.other.close()
            machine.connection.close()


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
@pytest.mark.parametrize("block", range(10))
def test_a_program_sees_no_difference(tmp_path: Path, block: int, journal_mode: str, request: pytest.FixtureRequest) -> None:
    runs = 50 if request.config.getoption("--soak") else 4
    for run in range(runs):
        seed = block * 1000 + run
        compare(tmp_path / str(run), program(seed, 50), journal_mode, f"seed {seed}, {journal_mode}")


REDUCED: dict[str, list[Step]] = {
    "DDL that fails beside a SELECT that is half-read": [
        ("execute", 0, "INSERT INTO t(i, k, x) VALUES(1, 2, 3)"),
        ("execute", 0, "CREATE INDEX IF NOT EXISTS ti ON t(k)"),
        ("execute", 1, "SELECT i, x FROM t ORDER BY i LIMIT 2"),
        ("execute", 0, "DROP INDEX IF EXISTS ti"),
        ("fetchone", 1),
    ],
    "a blob that is not there, after a rollback under a statement that is half-read": [
        ("execute", 1, "INSERT INTO t(i, k, x) VALUES (1, 6, 'v52')"),
        ("execute", 2, "BEGIN"),
        ("execute", 2, "UPDATE v SET x = 'through a view' WHERE i < 5 RETURNING i, x"),
        ("execute", 0, "INSERT OR ROLLBACK INTO t(i, k, x) VALUES (1, 0, 'v74')"),
        ("blob", 23, True),
        ("with", False, []),
    ],
    "what FTS5 kept back until a savepoint counts, though it opens for a statement of the log's": [
        ("execute", 1, "INSERT INTO u(i, k, x) VALUES (9, 7, 'v32'), (5, 1, 'v54'), (13, 6, 'v30')"),
        ("temp_store",),
        (
            "execute",
            2,
            "INSERT INTO t(i, k, x) VALUES (10, 1, 'v6'), (1, 0, 'v77') ON CONFLICT(i) DO UPDATE SET x = excluded.x; SAVEPOINT a",
        ),
        ("with", False, ["INSERT INTO u(i, k, x) VALUES (23, 3, 'v1')", "DELETE FROM child WHERE i = 25"]),
        ("execute", 1, "INSERT INTO w(body) VALUES('a word')"),
        ("execute", 0, "DELETE FROM u"),
        ("with", True, ["INSERT INTO child(i, parent) VALUES(20, 18)"]),
    ],
}


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
@pytest.mark.parametrize("name", REDUCED)
def test_what_once_showed_a_difference_shows_none(tmp_path: Path, name: str, journal_mode: str) -> None:
    compare(tmp_path / "run", REDUCED[name], journal_mode, name)
