"""Rules of the layer above: what they are asked, what is recorded of a refusal, and that no cached statement gets by."""

# ruff: noqa: ARG002 - a rule is told more than these look at

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit import AccessDeniedError, AuditPolicyError, Refusal, Rule
from heliosaudit.sessions import current, session


class NoSecrets(Rule):
    """Nobody but the chief reads the column `secret`, and no value says 4711."""

    depends_on_session = True

    def authorize(self, action: Any) -> Refusal | None:
        code, table, column, *_ = action
        if code in (apsw.SQLITE_READ, apsw.SQLITE_UPDATE) and (table, column) == ("t", "secret") and current().user != "chief":
            return Refusal("t.secret is the chief's")
        return None

    def inspect(self, sql: str, bindings: Any, verdict: Any) -> Refusal | None:
        if "4711" in sql or "4711" in map(str, bindings or ()):
            return Refusal("the number may not be used", apsw.ConstraintError("not that number"), hides_values=True)
        return None

    def inspect_blob(self, schema: str, table: str, column: str, data: Any) -> Refusal | None:
        return Refusal("the number may not be written", hides_values=True) if b"4711" in data else None

    def copy(self, schema: str, operation: str) -> Refusal | None:
        return Refusal("no copies") if current().user != "chief" else None


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[heliosaudit.Audited]:
    connection = heliosaudit.connect(tmp_path / "a.db", heliosaudit.Policy(log_select=True))
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name, secret)")
    connection.execute("INSERT INTO t VALUES(1, 'a', x'0000000000'), (2, 'b', x'00')")
    connection.add_rule(NoSecrets())
    yield connection
    connection.close(True)


def denials(connection: heliosaudit.Audited) -> list[Any]:
    return connection.execute("SELECT query, error FROM __audit_log WHERE operation = 'ACCESS DENIED' ORDER BY id").fetchall()


def test_what_a_rule_does_not_authorize_is_denied_and_recorded(connection: heliosaudit.Audited) -> None:
    with pytest.raises(AccessDeniedError, match="chief's"):
        connection.execute("SELECT secret FROM t")
    assert connection.execute("SELECT name FROM t WHERE id = 1").get == "a"
    [(query, error)] = denials(connection)
    assert query == "SELECT secret FROM t"
    assert "t.secret is the chief's" in error


def test_a_cached_statement_is_not_run_for_another_user(connection: heliosaudit.Audited) -> None:
    for _ in range(3):
        with session(user="chief"):
            assert len(connection.execute("SELECT secret FROM t").fetchall()) == 2
        with session(user="clerk"), pytest.raises(AccessDeniedError):
            connection.execute("SELECT secret FROM t")


def test_threads_with_different_permissions_get_their_own_answers(connection: heliosaudit.Audited) -> None:
    connection.set_busy_timeout(10_000)
    seen: list[str] = []

    def work(user: str) -> None:
        with session(user=user):
            for _ in range(200):
                try:
                    connection.execute("SELECT secret FROM t").fetchall()
                    seen.append(user)
                except AccessDeniedError:
                    continue
                except apsw.ThreadingViolationError:
                    continue

    threads = [threading.Thread(target=work, args=(user,)) for user in ("chief", "clerk")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {"chief"}


def test_values_are_inspected_bound_or_literal_and_are_not_recorded(connection: heliosaudit.Audited) -> None:
    for sql, bindings in (
        ("INSERT INTO t(name) VALUES(?)", ("4711",)),
        ("INSERT INTO t(name) VALUES('x'), ('4711')", None),
        ("SELECT name FROM t WHERE id = 1; UPDATE t SET name = '4711'", None),
    ):
        with pytest.raises(apsw.ConstraintError, match="not that number"):
            connection.execute(sql, bindings).fetchall()
    with pytest.raises(apsw.ConstraintError):
        connection.executemany("INSERT INTO t(name) VALUES(?)", [("c",), ("4711",), ("d",)])
    assert connection.execute("SELECT count(*) FROM t").get == 3
    found = denials(connection)
    assert len(found) == 4
    assert all("the number may not be used" in error for _, error in found)
    assert "4711" not in str(connection.execute("SELECT record FROM __audit_log").fetchall())


def test_a_blob_handle_asks_the_rules(connection: heliosaudit.Audited) -> None:
    with pytest.raises(AccessDeniedError, match="chief's"):
        connection.blob_open("main", "t", "secret", 1, False)
    with session(user="chief"), connection.blob_open("main", "t", "secret", 1, True) as blob:
        blob.write(b"47")
        with pytest.raises(AccessDeniedError, match="may not be written"):
            blob.write(b"11")
        assert blob.tell() == 2
        blob.write(b"22")
    with session(user="chief"):
        assert connection.execute("SELECT secret FROM t WHERE id = 1").get == b"4722\0"
    assert [error.partition(": ")[2] for _, error in denials(connection)] == [
        "t.secret is the chief's",
        "the number may not be written",
    ]


def test_copies_of_the_whole_database_ask_the_rules(connection: heliosaudit.Audited) -> None:
    with pytest.raises(AccessDeniedError, match="no copies"):
        connection.serialize("main")
    with pytest.raises(AccessDeniedError, match="no copies"):
        _back_up(connection)
    with session(user="chief"):
        assert connection.serialize("main")
    assert len(denials(connection)) == 2


def _back_up(connection: heliosaudit.Audited) -> None:
    target = heliosaudit.AuditedConnection(":memory:")
    target.backup("main", connection, "main").close()


def test_a_rule_that_is_taken_away_no_longer_holds(connection: heliosaudit.Audited) -> None:
    rule = NoSecrets()
    connection.add_rule(rule)
    connection.remove_rule(rule)
    with pytest.raises(AccessDeniedError):
        connection.execute("SELECT secret FROM t")
    connection.remove_rule(connection.auditor.gate.rules[0])  # type: ignore[union-attr]
    assert len(connection.execute("SELECT secret FROM t").fetchall()) == 2


def test_a_rule_needs_an_audited_connection() -> None:
    with pytest.raises(AuditPolicyError):
        heliosaudit.AuditedConnection(":memory:").add_rule(Rule())
