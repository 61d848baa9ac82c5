"""Events leave for an archive that verifies on its own, and the log that stays verifies too (A6)."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import json
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import apsw
import pytest

import heliosaudit
from heliosaudit import chains
from heliosaudit.checkpoints import SigningKey
from heliosaudit.errors import AuditPolicyError, ChainBrokenError
from heliosaudit.exports import export
from heliosaudit.retention import erase_values, prune
from heliosaudit.verifications import verify
from tests.audit.proof.test_verification import make

LATER = datetime.now(timezone.utc) + timedelta(days=100)


def test_a_pruned_log_verifies_and_its_archive_links_up(tmp_path: Path) -> None:
    make(tmp_path / "db", 40)
    key = SigningKey.make("test/key")
    with closing(apsw.Connection(str(tmp_path / "db"))) as connection:
        found = prune(connection, days=90, archive=tmp_path / "archive.gz", key=key, now=LATER)
        report = verify(connection)
        assert connection.execute("SELECT min(id) FROM __audit_log").get == found.last + 1
        assert len(connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()) == 2
        with pytest.raises(apsw.ConstraintError, match="append-only"):
            connection.execute("DELETE FROM __audit_log")
    assert (report.ok, found.first, found.last) == (True, 1, 39)
    assert "pruned" in report.notes[0]
    data = (tmp_path / "archive.gz").read_bytes()
    manifest = json.loads((tmp_path / "archive.gz.manifest.json").read_text())
    assert manifest["sha256"] == hashlib.sha256(data).hexdigest()
    assert found.archive is not None
    key.public.key.verify(base64.b64decode(manifest["signature"]), found.archive.signed_bytes())
    previous = chains.ROOT
    for line in gzip.decompress(data).decode().splitlines():
        number = json.loads(line)["id"]
        record = line[line.index('"record":') + len('"record":') : -1]
        previous = chains.checksum(previous, number, record.encode())
        assert previous.hex() == json.loads(line)["checksum"]
    assert previous.hex() == manifest["head"]


def test_what_the_policy_keeps_stays(tmp_path: Path) -> None:
    make(tmp_path / "db", 10)
    with closing(apsw.Connection(str(tmp_path / "db"))) as connection:
        with pytest.raises(AuditPolicyError, match="365"):
            prune(connection, days=90, archive=None, floor=365)
        with pytest.raises(AuditPolicyError, match="lockdown"):
            prune(connection, days=90, archive=None, lockdown=True)
        assert prune(connection, days=90, archive=None).last == 0
        assert verify(connection).events == 10


def test_nothing_is_removed_from_a_broken_log(tmp_path: Path) -> None:
    make(tmp_path / "db", 10)
    with closing(apsw.Connection(str(tmp_path / "db"))) as connection:
        connection.execute("DROP TRIGGER __audit_log_no_delete; DELETE FROM __audit_log WHERE id = 5")
        with pytest.raises(ChainBrokenError):
            prune(connection, days=1, archive=None, now=LATER)
        assert connection.execute("SELECT count(*) FROM __audit_log").get == 9


def test_a_log_without_its_beginning_and_without_a_prune_record_is_broken(tmp_path: Path) -> None:
    make(tmp_path / "db", 10)
    with closing(apsw.Connection(str(tmp_path / "db"))) as connection:
        prune(connection, days=1, archive=None, now=LATER)
        connection.execute("DROP TRIGGER __audit_log_no_delete; DELETE FROM __audit_log WHERE id = 10")
        report = verify(connection)
    assert report.first_broken is not None
    assert report.first_broken.kind == "missing"


def test_exports_are_resumed_and_signed_and_never_overwrite(tmp_path: Path) -> None:
    make(tmp_path / "db", 20)
    with closing(apsw.Connection(str(tmp_path / "db"))) as connection:
        first = export(connection, tmp_path / "a.jsonl")
        second = export(connection, tmp_path / "b.jsonl", after=first.last)
        assert (first.first, first.last, second.first, second.events) == (1, 20, 21, 1)
        assert second.previous == first.head
        with pytest.raises(AuditPolicyError, match="never overwrites"):
            export(connection, tmp_path / "a.jsonl")
        with pytest.raises(AuditPolicyError, match="jsonl"):
            export(connection, tmp_path / "c", format="xml")
        assert [row[0] for row in connection.execute("SELECT operation FROM __audit_log WHERE class = 'AUDIT'")] == [
            "GENESIS",
            "EXPORT",
            "EXPORT",
        ]


def test_csv_holds_no_formulas(tmp_path: Path) -> None:
    with closing(heliosaudit.connect(tmp_path / "db", heliosaudit.Policy())) as connection, heliosaudit.session(user="=cmd()"):
        connection.execute("CREATE TABLE t(x)")
    with closing(apsw.Connection(str(tmp_path / "db"))) as connection:
        export(connection, tmp_path / "a.csv", format="csv")
        export(connection, tmp_path / "b.csv", format="csv", formulas=True)
    with (tmp_path / "a.csv").open(newline="") as file:
        assert "'=cmd()" in {row["user"] for row in csv.DictReader(file)}
    with (tmp_path / "b.csv").open(newline="") as file:
        assert "=cmd()" in {row["user"] for row in csv.DictReader(file)}


def test_values_can_be_erased_and_the_chain_still_verifies(tmp_path: Path) -> None:
    policy = heliosaudit.Policy(capture_parameters="redactable")
    with closing(heliosaudit.connect(tmp_path / "db", policy)) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(?)", ("P12345",)).fetchall()
    with closing(apsw.Connection(str(tmp_path / "db"))) as connection:
        numbers = [row[0] for row in connection.execute("SELECT id FROM __audit_log WHERE operation = 'INSERT'")]
        assert erase_values(connection, numbers, reason="Art. 17, case 4") == 1
        assert verify(connection).ok
        assert connection.execute("SELECT count(*) FROM __audit_values").get == 0
