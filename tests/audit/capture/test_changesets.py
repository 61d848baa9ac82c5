"""Changesets are applied with one event, in one transaction with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit.connections import AuditedConnection
from heliosaudit.verifications import verify

SCHEMA = "CREATE TABLE t(i INTEGER PRIMARY KEY, x); CREATE TABLE u(k TEXT PRIMARY KEY, v) WITHOUT ROWID"


@pytest.fixture(params=["none", "values"])
def connection(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[AuditedConnection]:
    with closing(heliosaudit.connect(tmp_path / "db", heliosaudit.Policy(capture_rows=request.param))) as audited:
        audited.execute(SCHEMA).fetchall()
        audited.execute("INSERT INTO t VALUES(1, 'one')")
        yield audited


@pytest.fixture
def changeset() -> bytes:
    with closing(apsw.Connection(":memory:")) as other:
        other.execute(SCHEMA + "; INSERT INTO t VALUES(1, 'one')")
        session = apsw.Session(other, "main")
        session.attach()
        other.execute(
            "INSERT INTO t VALUES(50, 'fifty'), (51, '4711'); UPDATE t SET x = 'uno' WHERE i = 1; INSERT INTO u VALUES('a', 1)"
        )
        found = session.changeset()
        session.close()
    return found


def events(connection: AuditedConnection) -> list[Any]:
    connection.auditor.flush()  # type: ignore[union-attr]
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        return other.execute(
            "SELECT operation, target, affected_rows, success, record->>17, record->>21, record->>19, error FROM __audit_log "
            "WHERE operation IN ('APPLY CHANGESET', 'ACCESS DENIED') ORDER BY id"
        ).fetchall()


def test_a_changeset_is_one_event_with_counts(connection: AuditedConnection, changeset: bytes) -> None:
    connection.apply_changeset(changeset)
    assert connection.execute("SELECT i, x FROM t ORDER BY i").fetchall() == [(1, "uno"), (50, "fifty"), (51, "4711")]
    [(operation, target, affected, success, writes, details, images, _)] = events(connection)
    assert (operation, target, affected, success) == ("APPLY CHANGESET", "t", 4, 1)
    assert writes == '["main.t","main.u"]'
    assert '"t":{"INSERT":2,"UPDATE":1,"DELETE":0}' in details
    assert (images is not None) == (connection.auditor.policy.capture_rows == "values")  # type: ignore[union-attr]
    assert verify(connection).ok


def test_a_changeset_can_come_as_a_stream(connection: AuditedConnection, changeset: bytes) -> None:
    pieces = [changeset[:30], changeset[30:], b""]
    connection.apply_changeset(lambda _: pieces.pop(0))
    assert len(events(connection)) == 1
    assert connection.execute("SELECT count(*) FROM t").get == 3


def test_a_changeset_in_a_transaction_is_rolled_back_with_it(connection: AuditedConnection, changeset: bytes) -> None:
    connection.execute("BEGIN")
    connection.apply_changeset(changeset)
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM t").get == 1
    assert len(events(connection)) == 1
    assert connection.execute("SELECT rolled_back FROM __audit_log WHERE operation = 'APPLY CHANGESET'").get == 1


def test_a_changeset_that_conflicts_changes_nothing_and_is_a_failure(connection: AuditedConnection, changeset: bytes) -> None:
    connection.execute("INSERT INTO t VALUES(50, 'taken')")
    with pytest.raises(apsw.AbortError):
        connection.apply_changeset(changeset)
    assert connection.execute("SELECT x FROM t WHERE i = 1").get == "one"
    assert not connection.in_transaction
    [(_, _, _, success, *_)] = events(connection)
    assert not success
    connection.apply_changeset(changeset, conflict=lambda *_: apsw.SQLITE_CHANGESET_OMIT)
    assert connection.execute("SELECT x FROM t WHERE i IN (1, 50) ORDER BY i").get == ["uno", "taken"]
    assert verify(connection).ok


def test_a_changeset_onto_the_log_is_denied(connection: AuditedConnection, tmp_path: Path) -> None:
    with closing(apsw.Connection(str(tmp_path / "other"))) as other:
        other.execute("CREATE TABLE __audit_log(id INTEGER PRIMARY KEY, record TEXT NOT NULL, checksum BLOB NOT NULL)")
        session = apsw.Session(other, "main")
        session.attach()
        other.execute("INSERT INTO __audit_log VALUES(1000, '[]', x'00')")
        changeset = session.changeset()
        session.close()
    before = connection.execute("SELECT max(id) FROM __audit_log").get
    with pytest.raises(apsw.Error):
        connection.apply_changeset(changeset, conflict=lambda *_: apsw.SQLITE_CHANGESET_REPLACE)
    assert connection.execute("SELECT count(*) FROM __audit_log WHERE id >= 1000").get == 0
    assert connection.execute("SELECT max(id) FROM __audit_log").get <= before + 3
    assert verify(connection).ok


def test_rules_see_the_rows_of_a_changeset(connection: AuditedConnection, changeset: bytes) -> None:
    class NoNumber(heliosaudit.Rule):
        def inspect(self, sql: str, bindings: Any, verdict: Any) -> heliosaudit.Refusal | None:  # noqa: ARG002 - looks at values
            return heliosaudit.Refusal("that number") if "4711" in (bindings or ()) else None

    connection.add_rule(NoNumber())
    with pytest.raises(heliosaudit.AccessDeniedError, match="that number"):
        connection.apply_changeset(changeset)
    assert connection.execute("SELECT count(*) FROM t").get == 1
    [(operation, *_)] = events(connection)
    assert operation == "ACCESS DENIED"


def test_a_writer_elsewhere_makes_it_busy_and_changes_nothing(connection: AuditedConnection, changeset: bytes) -> None:
    connection.set_busy_timeout(0)
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(apsw.BusyError):
            connection.apply_changeset(changeset)
        other.execute("ROLLBACK")
    assert not connection.in_transaction
    connection.apply_changeset(changeset)
    assert [row[3] for row in events(connection)] == [0, 1]


def test_row_images_do_not_differ_from_those_of_the_preupdate_hook(connection: AuditedConnection, changeset: bytes) -> None:
    connection.apply_changeset(changeset)
    [(*_, images, _)] = events(connection)
    if connection.auditor.policy.capture_rows == "values":  # type: ignore[union-attr]
        assert images.count('"op":"INSERT"') == 3
        assert '"old":["1","\'one\'"]' in images
