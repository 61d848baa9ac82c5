"""Retention, exports and checkpoints against odd times, other processes, left-over files and notes that are nearly right."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import apsw
import pytest

import heliosaudit
import heliosvfs
from heliosaudit import chains, exports, retention, stores
from heliosaudit.checkpoints import Checkpoint, CheckpointError, SigningKey, VerifyingKey
from heliosaudit.errors import AuditError, AuditPolicyError, ChainBrokenError
from heliosaudit.events import event_of
from heliosaudit.exports import export
from heliosaudit.retention import erase_values, prune
from heliosaudit.verifications import log_uuid, verify
from tests.audit.proof.test_verification import make

NOW = datetime.now(timezone.utc)
LATER = NOW + timedelta(days=100)
KEY = bytes(range(32))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    make(tmp_path / "db", 10)
    return tmp_path / "db"


def count(connection: apsw.Connection) -> int:
    found: int = connection.execute("SELECT count(*) FROM __audit_log").get
    return found


def append(connection: apsw.Connection, number: int) -> None:
    stores.in_transaction(connection, [event_of("INSERT", event_class="DML", user="u") for _ in range(number)])


@pytest.mark.parametrize("days", [0, -1, -400_000, 1_000_000, 10**12])
def test_days_that_are_none_or_too_many_are_refused(log: Path, days: int) -> None:
    with closing(apsw.Connection(str(log))) as connection:
        with pytest.raises(AuditPolicyError):
            prune(connection, days=days, archive=None)
        assert count(connection) == 10


def test_a_time_before_the_year_1000_removes_nothing(log: Path) -> None:
    with closing(apsw.Connection(str(log))) as connection:
        assert prune(connection, days=400_000, archive=None).last == 0
        assert count(connection) == 10


def test_the_time_to_count_from_has_a_zone_and_is_the_same_moment_in_each(log: Path) -> None:
    zone = timezone(timedelta(hours=14))
    almost, just = NOW + timedelta(hours=23), datetime.now(timezone.utc) + timedelta(hours=25)
    with closing(apsw.Connection(str(log))) as connection:
        with pytest.raises(AuditPolicyError, match="time zone"):
            prune(connection, days=1, archive=None, now=LATER.replace(tzinfo=None))
        assert prune(connection, days=1, archive=None, now=almost.astimezone(zone)).last == 0
        assert prune(connection, days=1, archive=None, now=just.astimezone(timezone(timedelta(hours=-11)))).last == 9


@pytest.mark.parametrize("archive", [True, False])
def test_the_second_of_two_pruners_is_told_and_leaves_no_archive(
    log: Path, monkeypatch: pytest.MonkeyPatch, archive: bool
) -> None:
    remove = retention._remove

    def late(*arguments: object) -> None:
        monkeypatch.setattr(retention, "_remove", remove)
        with closing(apsw.Connection(str(log))) as other:
            prune(other, days=1, archive=log.parent / "first.gz", now=LATER)
        remove(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(retention, "_remove", late)
    with closing(apsw.Connection(str(log))) as connection:
        with pytest.raises(AuditError, match="somebody else has pruned"):
            prune(connection, days=1, archive=log.parent / "second.gz" if archive else None, now=LATER)
        assert verify(connection).ok
        assert [row[0] for row in connection.execute("SELECT operation FROM __audit_log WHERE class = 'AUDIT'")] == [
            "EXPORT",
            "PRUNE",
        ]
    assert sorted(path.name for path in log.parent.iterdir()) == ["db", "first.gz", "first.gz.manifest.json"]


def test_a_prune_that_gets_no_write_lock_leaves_no_archive(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = retention._remove

    def late(*arguments: object) -> None:
        with closing(apsw.Connection(str(log))) as other:
            other.execute("BEGIN IMMEDIATE")
            remove(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(retention, "_remove", late)
    with closing(apsw.Connection(str(log))) as connection:
        with pytest.raises(apsw.BusyError):
            prune(connection, days=1, archive=log.parent / "a.gz", now=LATER)
        assert count(connection) == 10
    assert [path.name for path in log.parent.iterdir() if path.name.startswith("a.gz")] == []


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_an_archive_and_its_names_are_on_the_disk_before_anything_is_removed(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real, remove = os.fsync, retention._remove

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(str(log.parent)))
        real(descriptor)

    def seen(*arguments: object) -> None:
        synced.append("removal")
        remove(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(retention, "_remove", seen)
    with closing(apsw.Connection(str(log))) as connection:
        prune(connection, days=1, archive=log.parent / "a.gz", now=LATER)
    assert synced == ["/a.gz.partial", "/a.gz.manifest.json", "", "removal"]


def test_the_next_archive_and_exports_after_it_link_up(log: Path) -> None:
    with closing(apsw.Connection(str(log))) as connection:
        one = prune(connection, days=1, archive=log.parent / "1.gz", now=LATER)
        append(connection, 5)
        two = prune(connection, days=1, archive=log.parent / "2.gz", now=LATER)
        three = export(connection, log.parent / "3.jsonl", after=two.last)
    assert one.archive is not None
    assert two.archive is not None
    assert one.archive.previous == chains.ROOT.hex()
    assert (two.first, two.archive.previous) == (one.last + 1, one.archive.head)
    assert (three.first, three.previous) == (two.last + 1, two.archive.head)


def test_an_export_of_what_is_not_there_is_refused_with_the_ids(log: Path) -> None:
    with closing(apsw.Connection(str(log))) as connection:
        pruned = prune(connection, days=1, archive=None, now=LATER).last
        for after in (0, 3):
            with pytest.raises(AuditPolicyError, match=f"up to {pruned} were pruned"):
                export(connection, log.parent / "e", after=after)
        with pytest.raises(AuditPolicyError, match=r"ends with event 11.*after event 99"):
            export(connection, log.parent / "e", after=99)
        for after, until in ((-1, None), (11, 3)):
            with pytest.raises(AuditPolicyError, match="from one id up"):
                export(connection, log.parent / "e", after=after, until=until)
    assert [path.name for path in log.parent.iterdir()] == ["db"]


def test_an_export_within_a_transaction_is_refused_before_it_is_written(log: Path) -> None:
    with closing(apsw.Connection(str(log))) as connection:
        connection.execute("BEGIN")
        with pytest.raises(AuditPolicyError, match="transaction is open"):
            export(connection, log.parent / "e")
    assert not (log.parent / "e").exists()


@pytest.mark.parametrize("damage", ["record = CAST(record AS BLOB)", "checksum = 'abc'", "record = CAST(x'5b22ff225d' AS TEXT)"])
@pytest.mark.parametrize("how", ["jsonl", "csv"])
def test_an_export_of_what_is_no_event_is_an_error_that_says_so(log: Path, damage: str, how: str) -> None:
    with closing(apsw.Connection(str(log))) as connection:
        connection.execute("DROP TRIGGER __audit_log_no_update")
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql <> ''").fetchall():
            connection.execute(f"DROP INDEX {name}")
        connection.execute(f"UPDATE __audit_log SET {damage} WHERE id = 5")
        with pytest.raises(ChainBrokenError, match="no record"):
            export(connection, log.parent / "e", format=how)
    assert [path.name for path in log.parent.iterdir()] == ["db"]


@pytest.mark.parametrize("suffix", ["", ".partial", ".manifest.json", ".values.jsonl.gz"])
@pytest.mark.parametrize("write", [export, lambda connection, path: prune(connection, days=1, archive=path, now=LATER)])
def test_a_file_that_is_in_the_way_is_named_and_stays(
    log: Path, suffix: str, write: Callable[[apsw.Connection, Path], object]
) -> None:
    left = log.parent / f"a.gz{suffix}"
    left.write_text("somebody else's")
    with closing(apsw.Connection(str(log))) as connection:
        with pytest.raises(AuditPolicyError, match=left.name):
            write(connection, log.parent / "a.gz")
        assert count(connection) == 10
    assert left.read_text() == "somebody else's"
    assert sorted(path.name for path in log.parent.iterdir()) == sorted(["db", left.name])


def redactable(path: Path) -> apsw.Connection:
    values = ("Ada", 7, 1.5, float("inf"), b"\0\xff", None)
    with closing(heliosaudit.connect(path, heliosaudit.Policy(capture_parameters="redactable"))) as connection:
        connection.execute("CREATE TABLE t(a, b, c, d, e, f)")
        connection.execute("INSERT INTO t VALUES(?, ?, ?, ?, ?, ?)", values)
    return apsw.Connection(str(path))


def test_redactable_values_go_to_a_file_beside_the_archive_and_fit_its_commitments(tmp_path: Path) -> None:
    with closing(redactable(tmp_path / "db")) as connection:
        found = prune(connection, days=1, archive=tmp_path / "a.gz", now=LATER).archive
        details = connection.execute("SELECT record->>'$[21]' FROM __audit_log WHERE operation = 'PRUNE'").get
        assert connection.execute("SELECT count(*) FROM __audit_values").get == 0
    assert found is not None
    data = (tmp_path / found.values).read_bytes()
    assert found.values_sha256 == hashlib.sha256(data).hexdigest() == json.loads(details)["values_sha256"]
    assert json.loads((tmp_path / "a.gz.manifest.json").read_text())["values"] == "a.gz.values.jsonl.gz"
    events = {
        event["id"]: event["record"] for event in map(json.loads, gzip.decompress((tmp_path / "a.gz").read_bytes()).splitlines())
    }
    lines = gzip.decompress(data).decode().splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["text", "integer", "real", "real", "blob", "null"]
    for line in lines:
        value = json.loads(line)
        hashed = line[line.index('"value":') + len('"value":') : -1]
        due = events[value["event"]][20][value["position"]]
        if value["value"] != "inf":
            assert hashlib.sha256(bytes.fromhex(value["salt"]) + hashed.encode()).hexdigest() == due


def test_values_that_are_erased_while_their_archive_is_written_do_not_stay_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = retention._remove

    def late(*arguments: object) -> None:
        with closing(apsw.Connection(str(tmp_path / "db"))) as other:
            found = other.execute("SELECT DISTINCT event FROM __audit_values").fetchall()
            erase_values(other, [int(str(row[0])) for row in found], reason="Art. 17")
        remove(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(retention, "_remove", late)
    with closing(redactable(tmp_path / "db")) as connection, pytest.raises(AuditError, match="erased values"):
        prune(connection, days=1, archive=tmp_path / "a.gz", now=LATER)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("a.gz")] == []


SIGNER = SigningKey.make("test/key")


@pytest.fixture(scope="module")
def note(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("note") / "db"
    make(path, 10)
    with closing(apsw.Connection(str(path))) as connection:
        return Checkpoint.of(connection, log_uuid(connection) or "").sign(SIGNER)


def signed(text: str) -> str:
    """Sign a text that need not be a checkpoint's."""

    class Text(Checkpoint):
        @property
        def text(self) -> str:
            return text

    return Text("", 0, b"", "").sign(SIGNER)


def test_a_note_is_read_from_its_bytes_as_from_its_text(note: str) -> None:
    assert Checkpoint.parse(note, SIGNER.public) == Checkpoint.parse(note.encode(), SIGNER.public)
    cosigned = f"{note}\N{EM DASH} witness AAAAAAAA\n"
    assert Checkpoint.parse(cosigned, SIGNER.public).size == 10


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace("\n", "\r\n"),
        lambda note: note.replace("\n\n", "\n\r\n"),
        lambda note: note[:-1],
        lambda note: f"{note}\n",
        lambda note: f"{note}no signature\n",
        lambda note: note.replace("test/key", "test /key"),
        lambda note: note.replace("\n\N{EM DASH}", "\x0b\N{EM DASH}"),
        lambda note: note[:-2] + "!\n",
    ],
)
def test_a_copy_of_a_note_that_differs_in_a_byte_is_no_note(note: str, change: Callable[[str], str]) -> None:
    with pytest.raises(CheckpointError, match="this is no checkpoint"):
        Checkpoint.parse(change(note), SIGNER.public)
    with pytest.raises(CheckpointError, match="this is no checkpoint"):
        Checkpoint.parse(note.encode() + b"\xff\n", SIGNER.public)


HEAD = "A" * 43 + "="


@pytest.mark.parametrize("size", ["+1", " 1", "01", "1_0", "\u0661", "-1", "", "9" * 5000, "1.0"])
def test_a_size_is_written_in_the_one_way_there_is(size: str) -> None:
    assert Checkpoint.parse(signed(f"o\n10\n{HEAD}\n"), SIGNER.public).size == 10
    with pytest.raises(CheckpointError, match="this is no checkpoint"):
        Checkpoint.parse(signed(f"o\n{size}\n{HEAD}\n"), SIGNER.public)


@pytest.mark.parametrize("head", ["", "AAAA", "A" * 44, "A" * 42 + "B=", "A" * 20 + "\u2028" + "A" * 23])
def test_a_head_is_32_bytes(head: str) -> None:
    with pytest.raises(CheckpointError, match="this is no checkpoint"):
        Checkpoint.parse(signed(f"o\n10\n{head}\n"), SIGNER.public)


def test_keys_with_names_that_are_none_are_refused_with_a_message(tmp_path: Path) -> None:
    SIGNER.save(tmp_path / "key")
    pem = (tmp_path / "key").read_bytes().partition(b"\n")[2]
    for name in (b"\xff\xfe", b"", b"a b", b"a\x1b[1m"):
        (tmp_path / "bad").write_bytes(b"name: " + name + b"\n" + pem)
        with pytest.raises(CheckpointError, match="name"):
            SigningKey.load(tmp_path / "bad")
    for text in ("junk", "x/y+00000000+\xe9", "+".join(("", *str(SIGNER.public).split("+")[1:])), "\ud800+00+AA"):
        with pytest.raises(CheckpointError, match="verifier key"):
            VerifyingKey.parse(text)


def command(*arguments: str | Path, status: int = 0, **environment: str) -> str:
    process = subprocess.run(
        [sys.executable, "-m", "heliosvfs", "audit", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "CLINIC_KEY": KEY.hex(), **environment},
        check=False,
    )
    assert process.returncode == status, process.stderr
    assert "Traceback" not in process.stderr
    return process.stdout if status == 0 else process.stderr


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, audit="hipaa")) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.executemany("INSERT INTO t VALUES(?)", [("100%",), ("100x",), ("a_b",), ("aXb",), ("back\\slash",)])
    return tmp_path / "db"


def test_the_command_keeps_to_the_configuration_that_is_named(clinic: Path, tmp_path: Path) -> None:
    config = tmp_path / "heliosdb.toml"
    prunes = ("prune", clinic, "--key-env", "CLINIC_KEY", "--json")
    config.write_text("[audit]\nenabled = true\nretention_days = 2555\n")
    assert "2555 days" in command(*prunes, "--days", "1", "--delete", status=2, HELIOSDB_CONFIG=str(config))
    assert json.loads(command(*prunes, "--days", "2555", "--delete", HELIOSDB_CONFIG=str(config)))["last"] == 0
    config.write_text("[audit]\nenabled = true\nretention_days = 30\n[compliance]\naudit_trail_lockdown = true\n")
    said = command(*prunes, "--days", "40", "--archive", tmp_path / "a.gz", status=2, HELIOSDB_CONFIG=str(config))
    assert "signed archive" in said
    config.write_text("[audit]\nenabled = true\n[compliance]\naudit_trail_lockdown = true\n")
    assert "for ever" in command(*prunes, "--days", "40", "--delete", status=2, HELIOSDB_CONFIG=str(config))
    assert json.loads(command(*prunes, "--days", "1", "--delete", HELIOSDB_CONFIG=""))["last"] == 0


def test_a_checkpoint_that_vouches_for_nothing_any_more_and_an_export_after_a_prune(clinic: Path, tmp_path: Path) -> None:
    keyed = ("--key-env", "CLINIC_KEY")
    public = command("make-key", tmp_path / "key", "--name", "x/y").strip()
    command("checkpoint", clinic, "--signing-key", tmp_path / "key", "-o", tmp_path / "note", *keyed)
    against = ("verify", clinic, "--checkpoint", tmp_path / "note", "--public-key", public, "--json")
    assert json.loads(command(*against, *keyed))["verdict"] == "verified"
    with closing(heliosvfs.connect(clinic, key=KEY)) as connection:
        prune(connection, days=1, archive=None, now=LATER)
    command(*against, *keyed, status=1)
    exported = json.loads(command("export", clinic, tmp_path / "rest.jsonl", "--json", *keyed))
    assert exported["first"] > 1
    assert exported["previous"] != "00" * 32


def test_the_command_takes_no_note_or_key_that_is_nearly_one(clinic: Path, tmp_path: Path) -> None:
    public = command("make-key", tmp_path / "key", "--name", "x/y").strip()
    printed = command(
        "checkpoint", clinic, "--signing-key", tmp_path / "key", "--key-env", "CLINIC_KEY", PYTHONIOENCODING="utf-8"
    )
    command("checkpoint", clinic, "--signing-key", tmp_path / "key", "-o", tmp_path / "note", "--key-env", "CLINIC_KEY")
    assert printed.startswith("heliosaudit.log/")
    verifies = ("verify", clinic, "--key-env", "CLINIC_KEY", "--checkpoint", tmp_path / "note", "--public-key")
    assert "verified" in command(*verifies, public)
    assert "--public-key" in command(*verifies, "junk", status=2)
    assert "--workers" in command(*verifies, public, "--workers", "-3", status=2)
    (tmp_path / "note").write_bytes((tmp_path / "note").read_bytes().replace(b"\n", b"\r\n"))
    assert "no checkpoint" in command(*verifies, public, status=1)


def test_a_search_takes_texts_as_they_are(clinic: Path) -> None:
    def found(text: str) -> list[str]:
        events = json.loads(command("search", clinic, text, "--key-env", "CLINIC_KEY", "--json"))["events"]
        return [event["query"] for event in events]

    assert [len(found(text)) for text in ("100%", "a_b", "k\\s", "'a")] == [1, 1, 1, 2]
    assert "too long" in command("search", clinic, "x" * 60_000, "--key-env", "CLINIC_KEY", status=2)
    assert "name a text" in command("search", clinic, "", "--key-env", "CLINIC_KEY", status=2)


def test_an_export_that_fails_leaves_nothing_of_its_own(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: str) -> None:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(exports, "_sync_directory", fails)
    with closing(apsw.Connection(str(log))) as connection, pytest.raises(OSError, match="No space"):
        export(connection, log.parent / "e")
    assert [path.name for path in log.parent.iterdir()] == ["db"]
