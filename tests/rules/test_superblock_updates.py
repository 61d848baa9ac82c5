"""Rules 7, 8, 13 and 17: epochs, updates of the superblock, its two copies and its size."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing
from pathlib import Path

import apsw
import msgspec
import pytest

import heliosvfs
import heliosvfs.keyring as module
from heliosvfs.keys import wrap_epoch
from heliosvfs.superblock import COPY_SIZE, Superblock, parse_copy
from heliosvfs.vfs import files_of
from tests.rules.conftest import KEY


def copies(path: Path) -> list[Superblock]:
    data = path.read_bytes()
    return [parse_copy(data[COPY_SIZE * i : COPY_SIZE * (i + 1)], i).superblock for i in (0, 1)]


def publish_epoch(connection: heliosvfs.Connection) -> None:
    """Add a second epoch, as rotation will: durably, inside a write transaction."""
    file = files_of(connection)[0]

    def second(superblock: Superblock) -> Superblock:
        epoch = wrap_epoch(superblock.uuid_bytes, 2, "2026-01-01T00:00:00Z", os.urandom(32), file.access.master.key, os.urandom)
        return msgspec.structs.replace(superblock, epochs=(*superblock.epochs, epoch))

    connection.execute("BEGIN IMMEDIATE")
    file.update_superblock(second)
    connection.execute("COMMIT")


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_another_connection_seals_under_a_new_epoch_in_its_next_transaction(tmp_path: Path, mode: str) -> None:
    """In WAL mode no lock of the file shows that anything happened, so it looks before the first frame of a transaction."""
    path = tmp_path / "db"
    with (
        closing(heliosvfs.connect(path, key=KEY, journal_mode=mode)) as first,
        closing(heliosvfs.connect(path, key=KEY)) as second,
    ):
        first.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        second.execute("INSERT INTO t VALUES(2)")
        publish_epoch(first)
        second.execute("INSERT INTO t VALUES(3)")
        sealed = (tmp_path / "db-wal" if mode == "wal" else path).read_bytes()
        assert int.from_bytes(sealed[-4:-1], "big") == 2
        assert [x for (x,) in first.execute("SELECT x FROM t")] == [1, 2, 3]
        assert first.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert [x for (x,) in connection.execute("SELECT x FROM t")] == [1, 2, 3]
        assert connection.pragma("integrity_check") == "ok"


def test_a_checkpoint_seals_under_the_newest_epoch(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY)) as first, closing(heliosvfs.connect(path, key=KEY)) as second:
        first.execute("CREATE TABLE t(x)")
        publish_epoch(first)
        second.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        assert int.from_bytes(path.read_bytes()[-4:-1], "big") == 2


def test_after_every_update_both_copies_are_equal(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        for action in (
            lambda: connection.add_key(b"2" * 32, label="second"),
            lambda: connection.change_key(b"3" * 32),
            lambda: connection.revoke_key("second"),
        ):
            before = copies(path)[0].sequence
            action()
            one, other = copies(path)
            assert one == other
            assert one.sequence == before + 1


def test_a_revoked_slot_is_not_revived_by_a_stale_copy(tmp_path: Path) -> None:
    """An update that a crash interrupted after its first copy is finished by the next writer."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, journal_mode="delete")) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.add_key(b"2" * 32, label="second")
        stale = path.read_bytes()[COPY_SIZE : 2 * COPY_SIZE]
        connection.revoke_key("second")
    data = path.read_bytes()
    path.write_bytes(data[:COPY_SIZE] + stale + data[2 * COPY_SIZE :])
    with pytest.raises(heliosvfs.WrongKeyError):
        heliosvfs.connect(path, key=b"2" * 32)
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("INSERT INTO t VALUES(1)")
    one, other = copies(path)
    assert one == other
    assert [slot.label for slot in one.slots] == ["first"]


def test_a_copy_with_a_bad_hmac_is_tampering_and_no_reason_to_fall_back(tmp_path: Path) -> None:
    path = tmp_path / "db"
    heliosvfs.connect(path, key=KEY).close()
    data = bytearray(path.read_bytes())
    forged = bytearray(data[:COPY_SIZE])
    forged[32:40] = (999).to_bytes(8, "big")
    forged[-32:] = hashlib.sha256(forged[:-32]).digest()
    path.write_bytes(bytes(forged) + bytes(data[COPY_SIZE:]))
    with pytest.raises(heliosvfs.TamperedError, match="HMAC"):
        heliosvfs.connect(path, key=KEY)


def test_a_full_superblock_is_a_clear_error_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        for number in range(31):
            connection.add_key(bytes([number]) * 32, label=f"slot {number} {'x' * 50}")
        before = path.read_bytes()[: 2 * COPY_SIZE]
        with pytest.raises(heliosvfs.UsageError, match="slots"):
            connection.add_key(b"z" * 32, label="one too many")
        assert path.read_bytes()[: 2 * COPY_SIZE] == before
        connection.revoke_key(f"slot 0 {'x' * 50}")
    heliosvfs.connect(path, key=bytes([30]) * 32).close()


def test_the_last_slot_is_not_revoked(tmp_path: Path) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection, pytest.raises(heliosvfs.UsageError, match="last"):
        connection.revoke_key("first")


def test_key_slots_change_while_others_read_and_wait_while_others_write(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY)) as one, closing(heliosvfs.connect(path, key=KEY, busy_timeout=0)) as other:
        one.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        reading = other.execute("SELECT x FROM t UNION ALL SELECT 2")
        assert next(reading) == (1,)
        one.add_key(b"2" * 32, label="second")
        assert next(reading) == (2,)
        one.execute("BEGIN IMMEDIATE")
        with pytest.raises(apsw.BusyError):
            other.add_key(b"3" * 32, label="third")
        one.execute("COMMIT")
        assert [slot.label for slot in other.list_keys()] == ["first", "second"]


def test_a_second_connection_presents_the_same_secret_or_runs_its_own_kdf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []
    derive = module.derive_kek

    def counted(secret: heliosvfs.Secret, kdf: object, *, fips_mode: bool = False) -> bytes:
        runs.append(repr(secret))
        return derive(secret, kdf, fips_mode=fips_mode)  # type: ignore[arg-type]

    path = tmp_path / "db"
    heliosvfs.connect(path, key="the passphrase").close()
    monkeypatch.setattr(module, "derive_kek", counted)
    with closing(heliosvfs.connect(path, key="the passphrase")):
        assert len(runs) == 1
        heliosvfs.connect(path, key="the passphrase").close()
        assert len(runs) == 1
        with pytest.raises(heliosvfs.WrongKeyError):
            heliosvfs.connect(path, key="another")
        assert len(runs) == 2
        with pytest.raises(heliosvfs.KeyUnavailableError):
            heliosvfs.connect(path)
    heliosvfs.connect(path, key="the passphrase").close()
    assert len(runs) == 3, "the key was kept after the last connection had closed"


def test_the_master_key_is_wiped_when_the_last_connection_closes(tmp_path: Path) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as one:
        master = files_of(one)[0].access.master
        two = heliosvfs.connect(tmp_path / "db", key=KEY)
        assert files_of(two)[0].access.master is master
        two.close()
        assert any(master.key)
    assert not any(master.key)
