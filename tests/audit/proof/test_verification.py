"""Any edit, removal, insertion and reordering is found; truncation and rewriting against a checkpoint (A6, A9)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliosaudit import chains, stores
from heliosaudit.checkpoints import Checkpoint, CheckpointError, SigningKey, VerifyingKey
from heliosaudit.errors import ChainBrokenError, LogTruncatedError
from heliosaudit.events import event_of
from heliosaudit.verifications import Head, log_uuid, verify

EVENTS = 60


def make(path: Path, events: int = EVENTS) -> None:
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("BEGIN IMMEDIATE")
        stores.create(connection, "root")
        connection.execute("COMMIT")
        found = [
            event_of("INSERT", event_class="DML", user=f"u{n % 3}", target="t", query=f"INSERT {n}") for n in range(events - 1)
        ]
        stores.in_transaction(connection, found)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "db"
    make(path)
    return path


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.make("test/key")


@pytest.fixture(scope="module")
def checkpoint(original: Path, key: SigningKey) -> Checkpoint:
    with closing(apsw.Connection(str(original))) as connection:
        note = Checkpoint.of(connection, log_uuid(connection) or "").sign(key)
    return Checkpoint.parse(note, key.public)


def attacked(original: Path, folder: Path, attack: Callable[[apsw.Connection], object]) -> apsw.Connection:
    """Damage a copy with all that somebody can do who holds the key."""
    folder.mkdir(exist_ok=True)
    shutil.copy(original, folder / "copy")
    connection = apsw.Connection(str(folder / "copy"))
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    # generated columns refuse what is no JSON: a table without them takes it, and the schema is put back afterwards
    schema = connection.execute("SELECT sql FROM sqlite_schema WHERE name = '__audit_log'").get
    connection.execute(
        "CREATE TABLE bare(id INTEGER PRIMARY KEY, record TEXT, checksum BLOB);"
        "INSERT INTO bare SELECT id, record, checksum FROM __audit_log; DROP TABLE __audit_log; ALTER TABLE bare RENAME TO __audit_log"
    ).fetchall()
    attack(connection)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = '__audit_log'", (schema,))
    connection.execute("PRAGMA writable_schema = RESET")
    return connection


def sql(text: str) -> Callable[[apsw.Connection], object]:
    return lambda connection: connection.execute(text).fetchall()


def rechain(connection: apsw.Connection) -> None:
    """Edit an event and build the chain anew from there."""
    connection.execute("UPDATE __audit_log SET record = replace(record, 'INSERT 8', 'INSERT 9') WHERE id = 10")
    previous = chains.ROOT
    for number, record in connection.execute("SELECT id, record FROM __audit_log ORDER BY id").fetchall():
        previous = chains.checksum(previous, number, record.encode())
        connection.execute("UPDATE __audit_log SET checksum = ? WHERE id = ?", (previous, number))


def renumber(start: int, step: int) -> str:
    return f"UPDATE __audit_log SET id = -(id + {step}) WHERE id >= {start}; UPDATE __audit_log SET id = -id WHERE id < 0"


ATTACKS = {
    "record edited": (sql("UPDATE __audit_log SET record = replace(record, 'u1', 'u2') WHERE id = 9"), 9, "edited"),
    "checksum edited": (sql("UPDATE __audit_log SET checksum = x'00' WHERE id = 9"), 9, "checksum edited"),
    "event deleted": (sql("DELETE FROM __audit_log WHERE id = 9"), 9, "missing"),
    "deleted and renumbered": (sql(f"DELETE FROM __audit_log WHERE id = 9; {renumber(10, -1)}"), 9, "missing"),
    "two swapped": (
        sql(
            "UPDATE __audit_log SET id = CASE id WHEN 9 THEN -1 ELSE -2 END WHERE id IN (9, 12); "
            "UPDATE __audit_log SET id = CASE id WHEN -1 THEN 12 ELSE 9 END WHERE id < 0"
        ),
        9,
        "reordered",
    ),
    "genesis deleted": (sql("DELETE FROM __audit_log WHERE id = 1"), 1, "missing"),
    "genesis forged": (
        sql("UPDATE __audit_log SET record = replace(record, 'GENESIS', 'INSERT') WHERE id = 1"),
        1,
        "genesis forged",
    ),
    "no record": (sql("UPDATE __audit_log SET record = 'nonsense' WHERE id = 9"), 9, "not a record"),
    "all deleted": (sql("DELETE FROM __audit_log"), 1, "missing"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_first_bad_event_and_the_kind_of_break_are_named(original: Path, tmp_path: Path, attack: str) -> None:
    how, number, kind = ATTACKS[attack]
    with closing(attacked(original, tmp_path, how)) as connection:
        report = verify(connection)
        assert report.first_broken is not None
        assert (report.first_broken.id, report.first_broken.kind) == (number, kind)
        assert report.verdict == "broken"
        with pytest.raises(ChainBrokenError) as raised:
            report.raise_if_broken()
        assert raised.value.id == number


def test_a_sound_log_without_a_checkpoint_is_consistent_and_unanchored(original: Path) -> None:
    with closing(apsw.Connection(str(original))) as connection:
        report = verify(connection)
    assert (report.ok, report.verdict, report.events) == (True, "consistent, unanchored", EVENTS)


def test_a_sound_log_with_its_checkpoint_is_verified(original: Path, checkpoint: Checkpoint) -> None:
    with closing(apsw.Connection(str(original))) as connection:
        report = verify(connection, checkpoint=checkpoint)
    assert (report.verdict, report.anchored) == ("verified", EVENTS)


@pytest.mark.parametrize(
    ("attack", "kind"),
    [(sql("DELETE FROM __audit_log WHERE id > 40"), "truncated"), (rechain, "rewritten")],
    ids=["cut", "rechained"],
)
def test_a_checkpoint_shows_what_the_chain_alone_can_not(
    original: Path, tmp_path: Path, checkpoint: Checkpoint, attack: Callable[[apsw.Connection], object], kind: str
) -> None:
    with closing(attacked(original, tmp_path, attack)) as connection:
        assert verify(connection).verdict == "consistent, unanchored"
        report = verify(connection, checkpoint=checkpoint)
        assert report.first_broken is not None
        assert report.first_broken.kind == kind
        if kind == "truncated":
            with pytest.raises(LogTruncatedError):
                report.raise_if_broken()


def test_a_log_from_another_database_is_known_by_its_uuid(tmp_path: Path, checkpoint: Checkpoint) -> None:
    make(tmp_path / "other")
    with closing(apsw.Connection(str(tmp_path / "other"))) as connection:
        report = verify(connection, checkpoint=checkpoint)
    assert report.first_broken is not None
    assert report.first_broken.kind == "transplanted"


def test_verification_goes_on_where_it_ended(original: Path, tmp_path: Path) -> None:
    shutil.copy(original, tmp_path / "grown")
    with closing(apsw.Connection(str(tmp_path / "grown"))) as connection:
        head = verify(connection).head
        assert head is not None
        stores.in_transaction(connection, [event_of("INSERT", event_class="DML", user="u", target="t")])
        assert verify(connection, since=head).events == 1
        wrong = Head(head.id, bytes(32), head.timestamp)
        assert not verify(connection, since=wrong).ok


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(1, EVENTS), position=st.integers(0, 10_000), flip=st.integers(1, 127))
def test_any_byte_that_is_flipped_is_found(original: Path, tmp_path: Path, number: int, position: int, flip: int) -> None:
    def damage(connection: apsw.Connection) -> None:
        record = connection.execute("SELECT CAST(record AS BLOB) FROM __audit_log WHERE id = ?", (number,)).get
        at = position % len(record)
        damaged = record[:at] + bytes([record[at] ^ flip]) + record[at + 1 :]
        connection.execute("UPDATE __audit_log SET record = CAST(? AS TEXT) WHERE id = ?", (damaged, number))

    with closing(attacked(original, tmp_path, damage)) as connection:
        report = verify(connection)
    assert report.first_broken is not None
    assert report.first_broken.id == number


def test_a_checkpoint_that_was_altered_or_signed_by_another_is_refused(original: Path, key: SigningKey) -> None:
    with closing(apsw.Connection(str(original))) as connection:
        note = Checkpoint.of(connection, log_uuid(connection) or "").sign(key)
    with pytest.raises(CheckpointError, match="does not hold"):
        Checkpoint.parse(note.replace(f"\n{EVENTS}\n", f"\n{EVENTS - 1}\n"), key.public)
    with pytest.raises(CheckpointError, match="not signed"):
        Checkpoint.parse(note, SigningKey.make("test/key").public)
    with pytest.raises(CheckpointError):
        Checkpoint.parse("nonsense", key.public)


def test_keys_are_stored_and_read_again(tmp_path: Path, key: SigningKey) -> None:
    key.save(tmp_path / "key", b"a passphrase")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert str(SigningKey.load(tmp_path / "key", b"a passphrase").public) == str(key.public)
    assert str(VerifyingKey.parse(str(key.public))) == str(key.public)
    with pytest.raises(CheckpointError):
        SigningKey.load(tmp_path / "key", b"another")
    with pytest.raises(CheckpointError, match="never overwritten"):
        key.save(tmp_path / "key")
    with pytest.raises(CheckpointError):
        VerifyingKey.parse(str(key.public)[:-4] + "AAAA")
