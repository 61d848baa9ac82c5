"""A statement that SQLite prepares again when it runs, because the schema has changed, may change another table (A2)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit import Policy

SETUP = "CREATE TABLE main.t(a); CREATE TEMP TABLE t(a)"
TRIGGER = "CREATE TRIGGER g INSTEAD OF INSERT ON v BEGIN INSERT INTO {} VALUES(new.a); END"


def _insert(path: Path) -> apsw.Connection:
    connection = heliosaudit.connect(path, Policy(flush_interval=3600))
    connection.execute(SETUP).fetchall()
    connection.execute("INSERT INTO t VALUES(?)", (1,))
    connection.execute("DROP TABLE temp.t")
    connection.execute("INSERT INTO t VALUES(?)", (2,))
    return connection


def _through_a_view(path: Path) -> apsw.Connection:
    policy = Policy(flush_interval=3600, exclude_tables=frozenset({"scratch", "v"}))
    connection = heliosaudit.connect(path, policy)
    connection.execute("CREATE TABLE scratch(a); CREATE TABLE t(a); CREATE VIEW v AS SELECT a FROM scratch").fetchall()
    connection.execute(TRIGGER.format("scratch"))
    connection.execute("INSERT INTO v VALUES(1)")
    with closing(heliosaudit.connect(path, Policy())) as other:
        other.execute(f"DROP TRIGGER g; {TRIGGER.format('t')}").fetchall()
    connection.execute("INSERT INTO v VALUES(2)")
    return connection


def _drop(path: Path) -> apsw.Connection:
    connection = heliosaudit.connect(path, Policy(flush_interval=3600))
    connection.execute(SETUP).fetchall()
    connection.execute("DROP TABLE t")
    connection.execute("DROP TABLE t")
    return connection


def _events(path: Path) -> list[tuple[Any, ...]]:
    with closing(apsw.Connection(str(path))) as plain:
        assert heliosaudit.verify(plain).ok
        sql = "SELECT operation, database_name, success, rolled_back FROM __audit_log WHERE class IN ('DML', 'DDL') ORDER BY id"
        return plain.execute(sql).fetchall()


@pytest.mark.parametrize(
    ("work", "query", "left", "due"),
    [
        (_insert, "SELECT a FROM t", [(2,)], ("INSERT", "main", 1, 0)),
        (_through_a_view, "SELECT a FROM t", [(2,)], ("INSERT", "main", 1, 0)),
        (_drop, "SELECT name FROM sqlite_schema WHERE name = 't'", [], ("DROP TABLE", "main", 1, 0)),
    ],
)
def test_what_is_committed_then_has_its_event_though_the_process_dies(
    tmp_path: Path, work: Callable[[Path], apsw.Connection], query: str, left: list[Any], due: tuple[Any, ...]
) -> None:
    program = "import os, pathlib, sys; from tests.audit.capture import test_outdated as here; "
    program += f"kept = here.{work.__name__}(pathlib.Path(sys.argv[1])); os._exit(9)"
    command = [sys.executable, "-c", program, str(tmp_path / "db")]
    ended = subprocess.run(command, check=False, cwd=Path(__file__).parents[3])
    assert ended.returncode == 9
    with closing(apsw.Connection(str(tmp_path / "db"))) as plain:
        assert plain.execute(query).fetchall() == left
    assert _events(tmp_path / "db")[-1] == due


def test_a_statement_that_stands_twice_in_a_string_is_judged_twice(tmp_path: Path) -> None:
    sql = "INSERT INTO t VALUES(?); INSERT INTO t VALUES(?);"
    with closing(heliosaudit.connect(tmp_path / "db", Policy())) as connection:
        connection.execute(SETUP).fetchall()
        connection.execute(sql, (1, 2)).fetchall()
        connection.execute("DROP TABLE temp.t; BEGIN").fetchall()
        connection.execute(sql, (3, 4)).fetchall()
        connection.execute("ROLLBACK")
    inserts = [event for event in _events(tmp_path / "db") if event[0] == "INSERT"]
    assert inserts == [("INSERT", "temp", 1, 0)] * 2 + [("INSERT", "main", 1, 1)] * 2


def test_one_that_fails_names_the_table_that_it_failed_on(tmp_path: Path) -> None:
    with closing(heliosaudit.connect(tmp_path / "db", Policy())) as connection:
        connection.execute("CREATE TABLE main.t(a UNIQUE); INSERT INTO t VALUES(1); CREATE TEMP TABLE t(a)").fetchall()
        connection.execute("INSERT INTO t VALUES(?)", (1,))
        connection.execute("DROP TABLE temp.t")
        with pytest.raises(apsw.ConstraintError):
            connection.execute("INSERT INTO t VALUES(?)", (1,))
    assert _events(tmp_path / "db")[-1] == ("INSERT", "main", 0, 0)
