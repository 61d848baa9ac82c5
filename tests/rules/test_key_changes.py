"""Rules 8 and 13: an update of the superblock survives any crash, excludes others, and leaves two equal copies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import msgspec.structs
import pytest

import heliosvfs
from heliosvfs.superblock import COPY_SIZE, Superblock
from heliosvfs.vfs import files_of
from tests.rules.conftest import KEY, Crash, states
from tests.rules.observing import Event, observed
from tests.tamper.samples import piece, put

NEW_KEY = bytes(range(1, 33))
MODES = ["delete", "wal"]


def copies(path: Path) -> tuple[bytes, bytes]:
    """Return what must be equal in both copies: sequence number and JSON."""
    return piece(path, 32, COPY_SIZE - 96), piece(path, COPY_SIZE + 32, COPY_SIZE - 96)


def make(path: Path, mode: str, vfs: str = "heliosvfs") -> heliosvfs.Connection:
    connection = heliosvfs.connect(path, key=KEY, journal_mode=mode, vfs=vfs)
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    return connection


UPDATES = {
    "add": lambda connection: connection.add_key(NEW_KEY, label="new"),
    "revoke": lambda connection: connection.revoke_key("spare"),
    "change": lambda connection: connection.change_key(NEW_KEY),
    "rekey": lambda connection: connection.execute(f"PRAGMA rekey = \"x'{NEW_KEY.hex()}'\"").fetchall(),
}


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("mode", MODES)
def test_one_copy_is_durable_before_the_other_is_touched(tmp_path: Path, mode: str, update: str) -> None:
    with observed() as (base, vfs), closing(make(tmp_path / "db", mode, vfs)) as connection:
        connection.add_key(bytes(32), label="spare")
        base.events.clear()
        UPDATES[update](connection)
        steps = [(event.what, event.offset) for event in base.writes() if event.what == "sync" or event.offset < 2 * COPY_SIZE]
        assert steps == [("write", 0), ("sync", 0), ("write", COPY_SIZE), ("sync", 0)]
        first, second = copies(tmp_path / "db")
        assert first == second


@pytest.mark.parametrize("mode", MODES)
def test_the_older_copy_is_written_first(tmp_path: Path, mode: str) -> None:
    """The newer one is the only whole one that is sure to be authentic."""
    path = tmp_path / "db"
    with observed() as (base, vfs):
        with closing(make(path, mode, vfs)) as connection:
            older = piece(path, COPY_SIZE, COPY_SIZE)
            connection.add_key(bytes(32), label="spare")
        put(path, COPY_SIZE, older)
        base.events.clear()
        with closing(heliosvfs.connect(path, key=KEY, vfs=vfs)) as connection:
            connection.add_key(NEW_KEY, label="new")
        offsets = [event.offset for event in base.writes() if event.what == "write" and event.offset < 2 * COPY_SIZE]
    assert offsets[0] == COPY_SIZE


class PowerCutError(Exception):
    """The machine stops here."""


@pytest.mark.parametrize("update", ["add", "revoke", "change"])
@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("mode", MODES)
def test_an_update_that_was_cut_off_leaves_the_old_or_the_new_superblock(
    tmp_path: Path, mode: str, step: int, update: str
) -> None:
    """What is on disk at each step opens, holds all slots of before or of after, and is completed by the next writer."""
    path = tmp_path / "db"
    left = tmp_path / "left"
    count = 0

    def cut(event: Event) -> None:
        nonlocal count
        if event.file == "main" and (event.what == "sync" or (event.what == "write" and event.offset < 2 * COPY_SIZE)):
            if count == step:
                shutil.copy(path, left)
                if event.what == "write":  # torn
                    put(left, event.offset, event.data[:700])
            count += 1

    with observed() as (base, vfs), closing(make(path, mode, vfs)) as connection:
        connection.add_key(bytes(32), label="spare")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        before = [slot.label for slot in connection.list_keys()]
        base.before = cut
        UPDATES[update](connection)
        base.before = None
        after = [slot.label for slot in connection.list_keys()]
    if not left.exists():
        shutil.copy(path, left)
    opened = 0
    for key in (KEY, NEW_KEY):
        try:
            with closing(heliosvfs.connect(left, key=key, create=False)) as connection:
                assert [slot.label for slot in connection.list_keys()] in (before, after)
                connection.execute("INSERT INTO t VALUES(2)")
                first, second = copies(left)
                assert first == second
                opened += 1
        except heliosvfs.WrongKeyError:
            continue
    assert opened


@pytest.mark.parametrize("mode", MODES)
def test_a_stale_copy_is_put_right_by_the_next_writer(tmp_path: Path, mode: str) -> None:
    """An earlier copy holds a slot that was revoked: damage to the other one would bring it back."""
    path = tmp_path / "db"
    with closing(make(path, mode)) as connection:
        connection.add_key(NEW_KEY, label="leaver")
        earlier = piece(path, COPY_SIZE, COPY_SIZE)
        connection.revoke_key("leaver")
    put(path, COPY_SIZE, earlier)
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("INSERT INTO t VALUES(2)")
        first, second = copies(path)
        assert first == second
        assert b"leaver" not in first


@pytest.mark.parametrize("mode", MODES)
def test_a_stale_copy_is_left_by_who_only_reads(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "db"
    with closing(make(path, mode)) as connection:
        earlier = piece(path, COPY_SIZE, COPY_SIZE)
        connection.add_key(NEW_KEY, label="new")
    put(path, COPY_SIZE, earlier)
    before = path.read_bytes()
    with closing(heliosvfs.connect(path, key=NEW_KEY, readonly=True)) as connection:
        assert connection.execute("SELECT count(*) FROM t").get == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("update", ["add", "revoke", "change"])
@pytest.mark.parametrize("mode", MODES)
def test_an_update_waits_for_a_writer_and_changes_nothing(tmp_path: Path, mode: str, update: str) -> None:
    path = tmp_path / "db"
    with closing(make(path, mode)) as writer, closing(heliosvfs.connect(path, key=KEY, busy_timeout=0)) as other:
        writer.add_key(bytes(32), label="spare")
        before = path.read_bytes()[: 2 * COPY_SIZE]
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(apsw.BusyError):
            UPDATES[update](other)
        assert path.read_bytes()[: 2 * COPY_SIZE] == before
        writer.execute("ROLLBACK")
        UPDATES[update](other)


@pytest.mark.parametrize("mode", MODES)
def test_updates_of_two_connections_are_both_kept(tmp_path: Path, mode: str) -> None:
    """Each reads the superblock again under the lock: none writes what it remembers of it."""
    path = tmp_path / "db"
    with closing(make(path, mode)) as one, closing(heliosvfs.connect(path, key=KEY)) as two:
        for number in range(4):
            (one, two)[number % 2].add_key(os.urandom(32), label=f"slot {number}")
        two.revoke_key("slot 0")
        assert [slot.label for slot in one.list_keys()] == ["first", "slot 1", "slot 2", "slot 3"]


HOLD_OPEN = """
import sys, heliosvfs
from contextlib import closing
with closing(heliosvfs.connect(sys.argv[1], key=bytes(range(32)), create=False)) as connection:
    connection.execute("SELECT count(*) FROM t").fetchall()
    print("open", flush=True)
    sys.stdin.readline()
    connection.execute("INSERT INTO t VALUES(3)")
    print([slot.label for slot in connection.list_keys()], flush=True)
"""


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("mode", MODES)
def test_keys_are_changed_while_another_process_has_the_database_open(tmp_path: Path, mode: str, update: str) -> None:
    """Administration happens beside a running application, in WAL mode too."""
    path = tmp_path / "db"
    with closing(make(path, mode)) as connection:
        connection.add_key(bytes(32), label="spare")
        with subprocess.Popen(
            [sys.executable, "-c", HOLD_OPEN, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "open\n"
            connection.set_busy_timeout(0)
            try:
                if (mode, update) == ("wal", "rekey"):
                    # a PRAGMA can't begin a transaction, and SQLite grants no other lock while others share the -shm
                    with pytest.raises(heliosvfs.UsageError, match="change_key"):
                        UPDATES[update](connection)
                else:
                    UPDATES[update](connection)
            finally:
                answer, _ = other.communicate("\n", timeout=60)
        labels = [slot.label for slot in connection.list_keys()]
        assert answer == f"{labels}\n"
        assert connection.execute("SELECT count(*) FROM t").get == 2


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
def test_a_hot_journal_is_rolled_back_before_a_key_is_added(crashed: Crash, mode: str) -> None:
    """A write lock beside a hot journal would make others take it for a live one and read half a transaction."""
    path = crashed(mode)
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        connection.add_key(NEW_KEY, label="new")
    assert states(path, NEW_KEY) == {"committed": 400}


def test_pragma_rekey_beside_a_hot_journal_is_refused(crashed: Crash) -> None:
    path = crashed("delete")
    before = path.read_bytes(), path.with_name("db-journal").read_bytes()
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection:
        connection.execute(f"PRAGMA key = \"x'{KEY.hex()}'\"")
        with pytest.raises(heliosvfs.UsageError, match="recover"):
            connection.execute(f"PRAGMA rekey = \"x'{NEW_KEY.hex()}'\"")
        assert (path.read_bytes(), path.with_name("db-journal").read_bytes()) == before
    assert states(path) == {"committed": 400}


def test_inside_a_transaction_that_only_reads_keys_are_not_changed(tmp_path: Path) -> None:
    with closing(make(tmp_path / "db", "wal")) as connection:
        connection.execute("BEGIN; SELECT * FROM t").fetchall()
        with pytest.raises(heliosvfs.UsageError, match="transaction"):
            connection.add_key(NEW_KEY, label="new")
        connection.execute("COMMIT")
        connection.add_key(NEW_KEY, label="new")


def test_inside_a_write_transaction_a_key_is_changed_and_the_transaction_goes_on(tmp_path: Path) -> None:
    """The key change is durable at once; it is no part of the transaction, and does not end it."""
    path = tmp_path / "db"
    with closing(make(path, "wal")) as connection:
        connection.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES(2)")
        connection.change_key(NEW_KEY)
        connection.execute("ROLLBACK")
        assert connection.execute("SELECT count(*) FROM t").get == 1
    heliosvfs.connect(path, key=NEW_KEY, create=False).close()
    with pytest.raises(heliosvfs.WrongKeyError):
        heliosvfs.connect(path, key=KEY)


@pytest.mark.parametrize("update", ["change", "rekey"])
@pytest.mark.parametrize("reopens", [False, True])
def test_a_key_change_to_the_secret_of_another_slot_ends_the_old_one(tmp_path: Path, update: str, *, reopens: bool) -> None:
    """Whoever changes a key wants the old one to open nothing any more, and the new one to have one slot, seen before or not."""
    path = tmp_path / "db"
    with closing(make(path, "delete")) as connection:
        connection.add_key(NEW_KEY, label="recovery")
        if not reopens:
            UPDATES[update](connection)
    if reopens:
        with closing(heliosvfs.connect(path, key=KEY)) as connection:
            UPDATES[update](connection)
    with pytest.raises(heliosvfs.WrongKeyError):
        heliosvfs.connect(path, key=KEY)
    with closing(heliosvfs.connect(path, key=NEW_KEY)) as connection:
        assert [slot.label for slot in connection.list_keys()] == ["recovery"]


def test_an_unknown_read_only_compatible_feature_allows_no_write(tmp_path: Path) -> None:
    """A later release says so: who does not know what it wrote may read, and must not write."""
    path = tmp_path / "db"

    def mark(superblock: Superblock) -> Superblock:
        features = msgspec.structs.replace(superblock.features, read_only_compatible=("zones",))
        return msgspec.structs.replace(superblock, features=features)

    with closing(make(path, "delete")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        files_of(connection)[0].update_superblock(mark)
        connection.execute("ROLLBACK")
    before = path.read_bytes()
    with closing(heliosvfs.connect(path, key=KEY, readonly=True)) as connection:
        assert connection.execute("SELECT x FROM t").get == 1
    with pytest.raises((heliosvfs.HeliosError, apsw.ReadOnlyError)), closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("INSERT INTO t VALUES(2)")
    assert path.read_bytes() == before


def test_a_superblock_write_that_fails_leaves_no_lock_behind(tmp_path: Path) -> None:
    """The first commit notes in the superblock that there are pages; if that can't be written others must go on all the same."""
    path = tmp_path / "db"
    seen = 0

    def fail(event: Event) -> None:
        nonlocal seen
        if event.file == "main" and event.what == "write" and event.offset in (0, COPY_SIZE):
            seen += 1
            if seen > 2:
                raise apsw.IOError

    keyring = heliosvfs.Keyring(default=KEY)
    with observed(keyring) as (base, vfs), closing(apsw.Connection(str(path), vfs=vfs)) as connection:
        base.before = fail
        with pytest.raises(apsw.IOError):
            connection.execute("CREATE TABLE t(x)")
        assert seen > 2
        base.before = None
        with closing(heliosvfs.connect(path, key=KEY, busy_timeout=0)) as other:
            other.execute("CREATE TABLE IF NOT EXISTS u(x)")
