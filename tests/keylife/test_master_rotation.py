"""A new master key: only what was presented opens new data, whatever old headers somebody has kept."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.rotation import rotate
from heliosvfs.superblock import COPY_SIZE
from heliosvfs.vfs import files_of
from heliosvfs.vfs.epochs import replace_master, slots_opened_by
from tests.decoder import reader
from tests.keylife.examining import KEY, copies, database, epoch_keys, epochs_on_disk, opened_by

SPARE = b"2" * 32
PASSPHRASE = "three words more"
CHEAP = heliosvfs.KdfSettings(memory_kib=8192, passes=1, lanes=1)


def labels(path: Path) -> list[str]:
    return [slot.label for slot in copies(path)[0].slots]


def opens(path: Path, key: heliosvfs.keyring.Key) -> bool:
    try:
        with closing(heliosvfs.connect(path, key=key, create=False)) as connection:
            connection.execute("SELECT * FROM t").fetchall()
    except heliosvfs.WrongKeyError:
        return False
    return True


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_only_the_keys_that_were_presented_keep_their_slots(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "db"
    with closing(database(path, mode)) as connection:
        connection.add_key(PASSPHRASE, label="words", settings=CHEAP)
        before, slots = connection.execute("SELECT * FROM t").fetchall(), connection.list_keys()
        master, keys = bytes(files_of(connection)[0].access.master.key), epoch_keys(connection)
        report = rotate(connection, master=True, keep=[PASSPHRASE])
        assert report.revoked_slots == ("spare",)
        assert bytes(files_of(connection)[0].access.master.key) != master
        assert connection.list_keys() == [slots[0], slots[2]], "label, creation and cost stay"
        assert connection.execute("SELECT * FROM t").fetchall() == before
    assert (opens(path, KEY), opens(path, PASSPHRASE), opens(path, SPARE)) == (True, True, False)
    assert opened_by(keys[1], path) == 0
    assert epochs_on_disk(path) == {2}
    assert check(path, key=KEY).ok


def test_an_old_header_and_a_revoked_key_open_no_new_data(tmp_path: Path) -> None:
    """Revoking alone does not do that, as the first half shows."""
    path, copy = tmp_path / "db", tmp_path / "copy"
    with closing(database(path)) as connection:
        connection.pragma("wal_checkpoint", "TRUNCATE")
        header = path.read_bytes()[: 2 * COPY_SIZE]
        connection.revoke_key("spare")
        connection.execute("INSERT INTO t VALUES(1000, 'after the revocation')")
    copy.write_bytes(header + path.read_bytes()[2 * COPY_SIZE :])
    with closing(heliosvfs.connect(copy, key=SPARE, create=False)) as connection:
        assert connection.execute("SELECT x FROM t WHERE id = 1000").get == "after the revocation"
    copy.unlink()
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        rotate(connection, master=True)
    copy.write_bytes(header + path.read_bytes()[2 * COPY_SIZE :])
    with pytest.raises(heliosvfs.TamperedError):
        heliosvfs.connect(copy, key=SPARE, create=False)


def test_a_key_that_opens_nothing_can_not_be_kept_and_nothing_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(database(path)) as connection:
        before = copies(path)
        with pytest.raises(heliosvfs.WrongKeyError, match="can't be kept"):
            rotate(connection, master=True, keep=[b"9" * 32])
        assert copies(path) == before


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_open_connections_follow_if_their_key_was_kept_and_say_so_if_not(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "db"
    with (
        closing(database(path, mode)) as connection,
        closing(heliosvfs.connect(path, key=KEY)) as same,
        closing(heliosvfs.connect(path, key=SPARE)) as spare,
    ):
        for other in (same, spare):
            other.execute("SELECT count(*) FROM t").fetchall()
        rotate(connection, master=True)
        same.execute("INSERT INTO t VALUES(1000, 'written by one that followed')")
        assert connection.execute("SELECT x FROM t WHERE id = 1000").get == "written by one that followed"
        with pytest.raises(heliosvfs.WrongKeyError, match="the master key was replaced"):
            spare.execute("INSERT INTO t VALUES(1001, 'never')")
        assert connection.execute("SELECT count(*) FROM t WHERE id = 1001").get == 0
        assert connection.pragma("integrity_check") == "ok"


FOLLOW = """
import sys, heliosvfs
from contextlib import closing
with closing(heliosvfs.connect(sys.argv[1], key=sys.stdin.readline().strip(), create=False)) as connection:
    connection.execute("SELECT count(*) FROM t").fetchall()
    print("open", flush=True)
    sys.stdin.readline()
    connection.execute("INSERT INTO t VALUES(1000, 'other process')")
    print(connection.execute("SELECT count(*) FROM t").get, flush=True)
"""


def test_another_process_follows(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(database(path)) as connection:
        connection.add_key(PASSPHRASE, label="words", settings=CHEAP)
        count = connection.execute("SELECT count(*) FROM t").get
        with subprocess.Popen(
            [sys.executable, "-c", FOLLOW, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdin.write(PASSPHRASE + "\n")
            other.stdin.flush()
            assert other.stdout.readline() == "open\n"
            rotate(connection, master=True, keep=[PASSPHRASE])
            rotate(connection, master=True, keep=[PASSPHRASE])
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.stdout.readline() == f"{count + 1}\n"


@pytest.fixture
def half_way(tmp_path: Path) -> tuple[Path, bytes]:
    """A database whose superblock copies are under two master keys, and the HMAC key of the older: an update was cut off."""
    path = tmp_path / "db"
    with closing(database(path, "delete")) as connection:
        file = files_of(connection)[0]
        hmac_key = file.access.master.hmac_key
        before = path.read_bytes()[: 2 * COPY_SIZE]
        presented = slots_opened_by(file, [heliosvfs.Secret.raw(KEY)])
        connection.execute("BEGIN IMMEDIATE")
        replace_master(file, presented)
        connection.execute("ROLLBACK")
        after = path.read_bytes()
    path.write_bytes(after[:COPY_SIZE] + before[COPY_SIZE:] + after[2 * COPY_SIZE :])
    return path, hmac_key


def test_a_database_between_two_master_keys_opens_and_is_healed(half_way: tuple[Path, bytes]) -> None:
    path, _ = half_way
    assert [len(copy.slots) for copy in copies(path)] == [1, 2]
    assert not opens(path, SPARE), "the newer copy holds"
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        connection.execute("INSERT INTO t VALUES(1000, 'a writer finishes the update')")
    one, other = copies(path)
    assert one == other
    assert [slot.label for slot in one.slots] == ["first"]
    assert not opens(path, SPARE)
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        assert rotate(connection).resumed
    assert epochs_on_disk(path) == {2}


@pytest.mark.parametrize(("step", "accepted"), [(-1, True), (-2, False), (0, False)])
def test_a_copy_under_another_master_key_is_accepted_only_from_the_update_just_before(
    half_way: tuple[Path, bytes], step: int, accepted: bool
) -> None:
    """Any other one was put there: the rule that a wrong HMAC is tampering holds for it."""
    path, hmac_key = half_way
    data = path.read_bytes()
    old = bytearray(data[COPY_SIZE : 2 * COPY_SIZE])
    old[32:40] = (copies(path)[0].sequence + step).to_bytes(8, "big")
    old[-64:-32] = hmac.digest(hmac_key, old[:-64], "sha256")
    old[-32:] = hashlib.sha256(old[:-32]).digest()
    path.write_bytes(data[:COPY_SIZE] + old + data[2 * COPY_SIZE :])
    with contextlib.nullcontext() if accepted else pytest.raises(heliosvfs.TamperedError, match="HMAC"):
        heliosvfs.connect(path, key=KEY, create=False).close()
    with contextlib.nullcontext() if accepted else pytest.raises(reader.RefusedError, match="HMAC"):
        assert len(reader.Database(path, KEY).pages()) > 1


def test_a_copy_that_the_key_does_not_open_is_tampering(half_way: tuple[Path, bytes]) -> None:
    path, _ = half_way
    data = bytearray(path.read_bytes())
    data[COPY_SIZE + 200] ^= 1
    data[2 * COPY_SIZE - 32 : 2 * COPY_SIZE] = hashlib.sha256(data[COPY_SIZE : 2 * COPY_SIZE - 32]).digest()
    path.write_bytes(data)
    with pytest.raises(heliosvfs.TamperedError):
        heliosvfs.connect(path, key=KEY, create=False)


@pytest.mark.parametrize("change", ["add", "change"])
def test_a_slot_is_never_made_for_a_master_key_that_was_replaced_meanwhile(tmp_path: Path, change: str) -> None:
    """Another connection replaces the master key while this one waits for the write lock; add_key has run its KDF by then."""
    path = tmp_path / "db"
    new = b"7" * 32
    with closing(database(path)) as connection, closing(heliosvfs.connect(path, key=KEY)) as other:
        other.execute("BEGIN IMMEDIATE")

        def replace(_: int) -> bool:
            file = files_of(other)[0]
            replace_master(file, slots_opened_by(file, [heliosvfs.Secret.raw(KEY)]))
            other.execute("ROLLBACK")
            return True

        connection.set_busy_handler(replace)
        if change == "change":
            connection.change_key(new)
        else:
            with pytest.raises(heliosvfs.UsageError, match="at the same moment: try again"):
                connection.add_key(new, label="new")
            assert labels(path) == ["first"]
            connection.add_key(new, label="new")
    assert opens(path, new)
    assert opens(path, KEY) == (change == "add")
