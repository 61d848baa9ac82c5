"""Logs that were made to be taken for sound, or to keep a verification from ever saying anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosaudit
from heliosaudit import Policy, chains
from heliosaudit.checkpoints import Checkpoint, SigningKey
from heliosaudit.retention import prune
from heliosaudit.verifications import log_uuid, verify

LOG = "__audit_log"


def _work(path: Path, count: int) -> None:
    with closing(heliosaudit.connect(path, Policy())) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
        for number in range(count):
            connection.execute("INSERT INTO t VALUES(?)", (number,))


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[apsw.Connection]:
    """Return a connection that is not audited, to a log of 23 events without triggers and indexes."""
    _work(tmp_path / "db", 20)
    with closing(apsw.Connection(str(tmp_path / "db"))) as connection:
        for kind, name in connection.execute(
            "SELECT type, name FROM sqlite_schema WHERE type IN ('trigger', 'index') AND sql IS NOT NULL"
        ).fetchall():
            connection.execute(f"DROP {kind} {name}")
        yield connection


def _checkpoint(connection: apsw.Connection) -> Checkpoint:
    key = SigningKey.make("attacked")
    return Checkpoint.parse(Checkpoint.of(connection, log_uuid(connection)).sign(key), key.public)


def _prune(connection: apsw.Connection) -> None:
    prune(connection, days=1, archive=None, now=datetime.now(timezone.utc) + timedelta(days=2))
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")


def test_a_log_that_was_pruned_once_is_truncated_all_the_same(plain: apsw.Connection, tmp_path: Path) -> None:
    _prune(plain)
    _work(tmp_path / "db", 30)
    before, checkpoint = verify(plain), _checkpoint(plain)
    assert before.head is not None
    plain.execute(f"DROP TRIGGER IF EXISTS {LOG}_no_delete; DELETE FROM {LOG} WHERE id > ?", (before.head.id - 20,)).fetchall()
    for report in (verify(plain, since=before.head, checkpoint=checkpoint), verify(plain, since=before.head)):
        assert report.first_broken is not None
        assert (report.verdict, report.first_broken.kind) == ("broken", "truncated")


def test_what_was_verified_before_may_be_pruned_since(plain: apsw.Connection, tmp_path: Path) -> None:
    earlier = verify(plain).head
    _work(tmp_path / "db", 3)
    _prune(plain)
    report = verify(plain, since=earlier)
    assert report.ok
    assert any("pruned since" in note for note in report.notes)


def test_a_head_that_was_pruned_to_is_compared(plain: apsw.Connection) -> None:
    _prune(plain)
    number = plain.execute(f"SELECT min(id) - 1 FROM {LOG}").get
    report = verify(plain, since=heliosaudit.verifications.Head(number, bytes(32)))
    assert report.first_broken is not None
    assert report.first_broken.kind == "rewritten"


@pytest.mark.parametrize("beyond", [0, 5])
def test_a_forged_record_of_pruning_makes_no_log_verified(plain: apsw.Connection, beyond: int) -> None:
    checkpoint = _checkpoint(plain)
    checksum = bytes(32) if beyond else checkpoint.head
    fields = json.loads(plain.execute(f"SELECT record FROM {LOG} ORDER BY id DESC LIMIT 1").get)
    last = checkpoint.size + beyond
    fields[4], fields[14] = "PRUNE", "AUDIT"
    fields[21] = {"from": 1, "to": last, "checksum": checksum.hex(), "uuid": log_uuid(plain)}
    record = json.dumps(fields, separators=(",", ":"))
    plain.execute(f"DELETE FROM {LOG}")
    row = (last + 1, record, chains.checksum(checksum, last + 1, record.encode()))
    plain.execute(f"INSERT INTO {LOG}(id, record, checksum) VALUES(?, ?, ?)", row)
    report = verify(plain, checkpoint=checkpoint)
    assert (report.verdict, report.anchored) == ("unverified", 0)
    assert any("archive" in note for note in report.notes)


@pytest.mark.parametrize("number", [10**15, (1 << 63) - 1, 0, -5])
def test_an_event_far_away_is_found_at_once(plain: apsw.Connection, number: int) -> None:
    plain.execute(f"INSERT INTO {LOG}(id, record, checksum) SELECT ?, record, checksum FROM {LOG} WHERE id = 5", (number,))
    assert verify(plain).first_broken is not None


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ("record = CAST(record AS BLOB)", {"not a record"}),
        ("record = 7", {"edited", "not a record"}),
        ("record = CAST(x'5b22ff225d' AS TEXT)", {"not a record"}),
        ("checksum = 'abc'", {"edited", "checksum edited"}),
        ("checksum = 7", {"edited", "checksum edited"}),
    ],
)
@pytest.mark.parametrize("number", [1, 2, 10, 23])
def test_what_is_no_record_or_checksum_is_named(plain: apsw.Connection, number: int, change: str, kinds: set[str]) -> None:
    plain.execute(f"UPDATE {LOG} SET {change} WHERE id = ?", (number,))
    report = verify(plain)
    assert report.first_broken is not None
    assert report.first_broken.id == number
    assert report.first_broken.kind in kinds | ({"genesis forged"} if number == 1 else set())


@pytest.mark.parametrize(
    "said", [{"user": "\ud800lone"}, {"user": "ada", "reason": "\udcff"}, {"user": "ada", "client_ip": "\udc80"}]
)
def test_a_name_that_is_no_text_is_escaped_and_keeps_no_other_event_out(tmp_path: Path, said: dict[str, Any]) -> None:
    with closing(heliosaudit.connect(tmp_path / "db", Policy(log_select=True))) as connection:
        connection.execute("CREATE TABLE t(x); SELECT 'before'").fetchall()
        with heliosaudit.session(**said):
            connection.execute("SELECT 'within'").fetchall()
        connection.execute("INSERT INTO t VALUES(1)")
    with closing(apsw.Connection(str(tmp_path / "db"))) as plain:
        assert verify(plain).ok
        queries = plain.execute(f"SELECT query FROM {LOG}").get
    assert {"SELECT 'before'", "SELECT 'within'", "INSERT INTO t VALUES(1)"} <= set(queries)


def test_what_json_has_no_word_for_is_refused_where_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(heliosaudit.AuditPolicyError, match="JSON: object"), heliosaudit.session(user="ada", reason=object()):
        pass
    with closing(heliosaudit.connect(tmp_path / "db", Policy())) as connection:
        with heliosaudit.session(user="ada", reason="fine") as who:
            connection.execute("CREATE TABLE t(x)")
            who.custom["reason"] = object()  # past the check
            connection.execute("INSERT INTO t VALUES(1)")
        found = connection.execute(f"SELECT custom FROM {LOG} WHERE operation = 'INSERT'").get
    assert found == '{"reason":"/* object */"}'
