"""A program can't tell an audited connection from a plain one (A0)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from heliosaudit.connections import connect
from heliosaudit.policies import Policy
from tests.audit.programs import Machine, program

EVERYTHING = Policy(log_select=True, log_transactions=True, flush_interval=3600)


def _file(folder: Path, name: str, journal_mode: str) -> str:
    path = str(folder / name)
    connection = apsw.Connection(path)
    connection.pragma("journal_mode", journal_mode)
    connection.close()
    return path


def compare(folder: Path, seed: int, length: int, journal_mode: str) -> None:
    folder.mkdir()
    plain_path, audited_path = _file(folder, "plain", journal_mode), _file(folder, "audited", journal_mode)
    plain = Machine(plain_path, apsw.Connection(plain_path))
    audited_connection = connect(audited_path, EVERYTHING, busy_timeout=0)
    audited = Machine(audited_path, audited_connection)
    try:
        for step in program(seed, length):
            due: Any = plain.step(step)
            found: Any = audited.step(step)
            assert found == due, f"seed {seed}, {journal_mode}"
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
        compare(tmp_path / str(run), block * 1000 + run, 50, journal_mode)
