"""Rows of executemany that take the short way leave the same events as those that take the long one, whatever comes between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit import Policy
from heliosaudit.connections import AuditedConnection
from heliosaudit.repeats import Repeat

INSERT = "INSERT INTO t(x) VALUES(?)"
_TIMES = {0, 1, 13}  # of a record's fields: when it was recorded, when it happened, how long it took
_SESSION = 2  # whose id is random

Between = Callable[[AuditedConnection], Any]


def _as_somebody_else(connection: AuditedConnection) -> None:
    with heliosaudit.session(user="eve"):
        connection.execute("UPDATE u SET y = y + 1")


def _trace(connection: AuditedConnection) -> None:
    seen: list[str] = []
    connection.exec_trace = lambda _cursor, sql, _bindings: not seen.append(sql)  # type: ignore[func-returns-value]


def _authorize(connection: AuditedConnection) -> None:
    connection.authorizer = lambda *_: apsw.SQLITE_OK


def _refused(connection: AuditedConnection) -> None:
    with suppress(apsw.Error):
        connection.execute("DELETE FROM __audit_log")


BETWEEN: dict[str, Between] = {
    "nothing": lambda _: None,
    "a query": lambda connection: connection.execute("SELECT count(*) FROM t").fetchall(),
    "another change": lambda connection: connection.execute("INSERT INTO u VALUES(1)"),
    "the end of the transaction": lambda connection: connection.execute("COMMIT"),
    "another transaction": lambda connection: connection.execute("COMMIT; BEGIN").fetchall(),
    "a rollback": lambda connection: connection.execute("ROLLBACK; BEGIN").fetchall(),
    "a savepoint": lambda connection: connection.execute("SAVEPOINT s"),
    "a savepoint that is rolled back": lambda connection: connection.execute(
        "SAVEPOINT s; INSERT INTO u VALUES(2); ROLLBACK TO s; RELEASE s"
    ).fetchall(),
    "a change of the schema": lambda connection: connection.execute("ALTER TABLE t ADD COLUMN more"),
    "a trigger": lambda connection: connection.execute(
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO u VALUES(new.i); END"
    ),
    "a table dropped": lambda connection: connection.execute("DROP TABLE t"),
    "a tracer": _trace,
    "an authorizer": _authorize,
    "a denial": _refused,
    "somebody else": _as_somebody_else,
    "a closed connection": lambda connection: connection.close(True),
}
_VALUES = [1, "a", "it's", "\x00b", 2.5, float("inf"), None, b"\x01", True, "long" * 50, 1 << 62, -0.0]


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder / "db"  # a name that events have


def records(path: Path, policy: Policy, between: Between, at: int, sql: str) -> list[Any]:
    """Return the records of a run, without what differs from run to run."""

    def rows(connection: AuditedConnection) -> Iterator[tuple[Any]]:
        for number in range(24):
            if number == at:
                between(connection)
            yield (_VALUES[number % len(_VALUES)],)

    with closing(heliosaudit.connect(path, policy)) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x); CREATE TABLE u(y); BEGIN").fetchall()
        connection.execute("INSERT INTO u VALUES(0)")
        with suppress(apsw.Error):
            connection.executemany(sql, rows(connection)).fetchall()
        with suppress(apsw.Error):
            connection.executemany(sql, [("once more",), ("and again",), ("and again",)]).fetchall()
        if connection.in_transaction:
            with suppress(apsw.Error):
                connection.execute("COMMIT")
    with closing(apsw.Connection(str(path))) as plain:
        assert heliosaudit.verify(plain).ok
        found = [json.loads(record) for (record,) in plain.execute("SELECT record FROM __audit_log WHERE id > 1")]
        contents = [
            plain.execute(f"SELECT * FROM {table}").fetchall()
            for (table,) in plain.execute("SELECT name FROM sqlite_schema WHERE name IN ('t', 'u') ORDER BY name").fetchall()
        ]
    sessions: dict[str, int] = {}
    for record in found:
        record[_SESSION] = sessions.setdefault(record[_SESSION], len(sessions))
    kept = [[value for place, value in enumerate(record) if place not in _TIMES] for record in found]
    return [kept, contents]


@pytest.fixture
def both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Return what compares a run with the same one without short ways, and returns its records."""

    def compare(policy: Policy, between: Between = BETWEEN["nothing"], at: int = 12, sql: str = INSERT) -> list[Any]:
        short = records(_new(tmp_path / "short"), policy, between, at, sql)
        with monkeypatch.context() as patch:
            patch.setattr(Repeat, "serves", staticmethod(lambda _event, _policy: False))
            assert short == records(_new(tmp_path / "long"), policy, between, at, sql)
        return short

    return compare


@pytest.mark.parametrize("what", BETWEEN)
@pytest.mark.parametrize("at", [1, 2, 12])
def test_what_comes_between_two_rows_is_noticed(both_ways: Callable[..., list[Any]], what: str, at: int) -> None:
    both_ways(Policy(log_select=True), BETWEEN[what], at)


@pytest.mark.parametrize(
    "policy",
    [
        Policy(capture_parameters="none"),
        Policy(capture_parameters="hashed", hash_key=bytes(32)),
        Policy(max_value_length=10, max_query_length=40),
        Policy(capture_rows="values"),
        Policy(log_dml=False),
        Policy(exclude_tables=frozenset({"t"})),
        Policy(redacted_columns=frozenset({"t.x"})),
        Policy(capture_execution_time=False),
        Policy(max_transaction_events=5),
    ],
)
def test_every_policy_is_kept(both_ways: Callable[..., list[Any]], policy: Policy) -> None:
    both_ways(policy)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t(x) VALUES(?) RETURNING i",
        "INSERT INTO t(x) VALUES(?); UPDATE u SET y = y + 1",
        "UPDATE t SET x = ?1 WHERE i < 3",
        "INSERT OR FAIL INTO t VALUES(1, ?)",
        "INSERT OR ROLLBACK INTO t VALUES(1, ?)",
        "WITH v(x) AS (SELECT ?) INSERT INTO t(x) SELECT x FROM v",
        "SELECT ?",
    ],
)
def test_every_statement_is_recorded_alike(both_ways: Callable[..., list[Any]], sql: str) -> None:
    both_ways(Policy(log_select=True), sql=sql)


def test_the_short_way_is_taken(both_ways: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[None] = []
    short = Repeat.event
    monkeypatch.setattr(Repeat, "event", lambda self, affected: taken.append(None) or short(self, affected))  # type: ignore[arg-type, func-returns-value]
    found, _ = both_ways(Policy())
    assert len([record for record in found if record[2] == "INSERT"]) == 1 + 24 + 3
    assert len(taken) == 24 + 3 - 2  # the first row of each executemany goes the long way


def test_a_session_that_ends_between_two_rows_is_told_from_the_next(tmp_path: Path) -> None:
    def rows() -> Iterator[tuple[int]]:
        for number in range(6):
            with heliosaudit.session(user="one" if number < 3 else "two"):
                yield (number,)

    with closing(heliosaudit.connect(tmp_path / "db", Policy())) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x); BEGIN").fetchall()
        connection.executemany(INSERT, rows())
        connection.execute("COMMIT")
        found = connection.execute("SELECT \"user\" FROM __audit_log WHERE operation = 'INSERT' ORDER BY id").get
    assert found == ["one"] * 3 + ["two"] * 3
