"""Row images, before and after, of all that changes rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit import Policy
from heliosaudit.connections import AuditedConnection


@pytest.fixture(params=["values", "keys"])
def connection(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[AuditedConnection]:
    with closing(heliosaudit.connect(tmp_path / "db", Policy(capture_rows=request.param))) as audited:
        audited.execute(
            "CREATE TABLE t(i INTEGER PRIMARY KEY, x UNIQUE); CREATE TABLE w(a, b, PRIMARY KEY(b, a)) WITHOUT ROWID"
        ).fetchall()
        yield audited


def images(connection: AuditedConnection) -> list[Any]:
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        last = other.execute("SELECT record FROM __audit_log WHERE class = 'DML' ORDER BY id DESC LIMIT 1").get
    return json.loads(last)[19]  # type: ignore[no-any-return]


def test_rows_are_shown_as_they_were_and_as_they_are(connection: AuditedConnection) -> None:
    connection.execute("INSERT INTO t VALUES(1, 'a'), (2, 'b')")
    assert [(image["op"], image["key"]) for image in images(connection)] == [("INSERT", 1), ("INSERT", 2)]
    connection.execute("UPDATE t SET x = 'c' WHERE i = 2")
    (image,) = images(connection)
    assert (image["op"], image["table"], image["key"]) == ("UPDATE", "main.t", 2)
    if connection.auditor.policy.capture_rows == "values":
        assert (image["old"], image["new"]) == (["2", "'b'"], ["2", "'c'"])
    else:
        assert "old" not in image


def test_rows_that_or_replace_removes_are_shown(connection: AuditedConnection) -> None:
    connection.execute("INSERT INTO t VALUES(1, 'a')")
    connection.execute("INSERT OR REPLACE INTO t VALUES(2, 'a')")
    assert [(image["op"], image["key"]) for image in images(connection)] == [("DELETE", 1), ("INSERT", 2)]


def test_delete_without_where_shows_each_row(connection: AuditedConnection) -> None:
    connection.execute("INSERT INTO t VALUES(1, 'a'), (2, 'b')")
    connection.execute("DELETE FROM t")
    assert [image["op"] for image in images(connection)] == ["DELETE", "DELETE"]


def test_a_table_without_rowid_is_named_by_its_primary_key(connection: AuditedConnection) -> None:
    connection.execute("INSERT INTO w VALUES('one', 'two')")
    (image,) = images(connection)
    assert sorted(image["key"]) == ["'one'", "'two'"]


def test_of_very_many_rows_the_rest_is_counted(connection: AuditedConnection) -> None:
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) INSERT INTO t SELECT i, i FROM n"
    )
    found = images(connection)
    assert (len(found), found[-1]) == (1001, {"more": 500})


def test_a_session_that_takes_the_hook_is_noticed_and_the_statement_undone(connection: AuditedConnection) -> None:
    session = apsw.Session(connection, "main")
    session.attach()
    with pytest.raises(heliosaudit.AuditWriteError, match="Session"):
        connection.execute("INSERT INTO t VALUES(9, 'z')")
    session.close()
    assert connection.execute("SELECT count(*) FROM t").get == 0


@pytest.mark.parametrize("inner", ["SELECT ?", "INSERT INTO w VALUES(?, 0)"])
@pytest.mark.parametrize("begins", [True, False])
def test_rows_are_those_of_the_statement_that_changed_them(connection: AuditedConnection, inner: str, begins: bool) -> None:
    connection.create_scalar_function("does", lambda value: (connection.execute(inner, (value,)).fetchall(), value)[1])
    if begins:
        connection.execute("BEGIN")
    connection.execute("INSERT INTO t SELECT does(column1), column1 FROM (VALUES(1), (2))")
    if begins:
        connection.execute("COMMIT")
    assert [(image["table"], image["key"]) for image in images(connection)] == [("main.t", 1), ("main.t", 2)]
    connection.auditor.flush()
    with closing(apsw.Connection(connection.db_filename("main"))) as other:
        found = other.execute("SELECT record FROM __audit_log WHERE target = 'w' AND class = 'DML'").fetchall()
    assert [image["table"] for (record,) in found for image in json.loads(record)[19]] == ["main.w"] * len(found)


def test_what_a_blob_handle_overwrites_is_no_other_statements(tmp_path: Path) -> None:
    policy = Policy(capture_rows="values", redacted_columns=frozenset({"t.b"}))
    with closing(heliosaudit.connect(tmp_path / "db", policy)) as connection:
        connection.execute("CREATE TABLE t(b); CREATE TABLE u(a); INSERT INTO t VALUES(x'5ec2e7')").fetchall()
        connection.execute("BEGIN; INSERT INTO u VALUES(1)").fetchall()
        with connection.blob_open("main", "t", "b", 1, True) as blob:
            blob.write(b"new")
        connection.execute("COMMIT")
        records = connection.execute("SELECT record FROM __audit_log WHERE class = 'DML' ORDER BY id").get
    found = [[(image["op"], image["table"]) for image in json.loads(record)[19]] for record in records]
    assert found == [[("INSERT", "main.t")], [("INSERT", "main.u")], [("BLOB WRITE", "main.t")]]
    assert "5ec2e7" not in "".join(records).lower()


def test_vacuum_changes_no_rows(connection: AuditedConnection) -> None:
    connection.execute("INSERT INTO t VALUES(1, 'a'), (2, 'b')")
    connection.execute("VACUUM")
    assert connection.execute("SELECT count(*) FROM t").get == 2
    assert [image["key"] for image in images(connection)] == [1, 2]
