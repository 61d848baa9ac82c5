"""VACUUM INTO seals its copy under the key that the connection was opened with, as that is now; never under one that is gone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.keysources import KeyFile
from heliosvfs.vfs import files_of

FAST = heliosvfs.KdfSettings(memory_kib=8 * 1024, passes=1, lanes=1)
OLD, NEW, BOBS = "an old passphrase", "a new passphrase", "bob's passphrase"
RAW, NAMED = b"r" * 32, b"n" * 32

Copy = Callable[[heliosvfs.Connection, Path], None]

DOORS: dict[str, Copy] = {
    "vacuum_into": lambda connection, path: connection.vacuum_into(path),
    "SQL": lambda connection, path: connection.execute("VACUUM INTO ?", (str(path),)).fetchall(),  # type: ignore[dict-item]
}
both_doors = pytest.mark.parametrize("copy", DOORS.values(), ids=DOORS)


def opening(path: Path, *keys: heliosvfs.keyring.Key) -> list[heliosvfs.keyring.Key]:
    """Return those of some keys that open a database."""
    found = []
    for key in keys:
        try:
            heliosvfs.connect(path, key=key, create=False).close()
        except heliosvfs.WrongKeyError:
            continue
        found.append(key)
    return found


@pytest.fixture
def database(tmp_path: Path) -> Iterator[heliosvfs.Connection]:
    with closing(heliosvfs.connect(tmp_path / "db", key=OLD, settings=FAST)) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        yield connection


@both_doors
def test_a_copy_after_a_change_of_key_opens_with_the_new_key_alone(
    tmp_path: Path, database: heliosvfs.Connection, copy: Copy
) -> None:
    database.change_key(NEW, settings=FAST)
    copy(database, tmp_path / "copy")
    assert opening(tmp_path / "copy", OLD, NEW) == [NEW]
    with closing(heliosvfs.connect(tmp_path / "copy", key=NEW, create=False)) as connection:
        assert connection.execute("SELECT x FROM t").get == 1


@both_doors
def test_a_copy_opens_with_the_key_of_the_connection_that_made_it(
    tmp_path: Path, database: heliosvfs.Connection, copy: Copy
) -> None:
    database.add_key(BOBS, label="bob", settings=FAST)
    with closing(heliosvfs.connect(tmp_path / "db", key=BOBS)) as bobs:
        copy(bobs, tmp_path / "by bob")
        copy(database, tmp_path / "by alice")
    assert opening(tmp_path / "by bob", OLD, BOBS) == [BOBS]
    assert opening(tmp_path / "by alice", OLD, BOBS) == [OLD]
    with closing(heliosvfs.connect(tmp_path / "by bob", key=BOBS)) as connection:
        assert [slot.label for slot in connection.list_keys()] == ["bob"]


@both_doors
def test_no_copy_is_made_under_a_revoked_key(tmp_path: Path, database: heliosvfs.Connection, copy: Copy) -> None:
    database.add_key(BOBS, label="bob", settings=FAST)
    with closing(heliosvfs.connect(tmp_path / "db", key=BOBS)) as bobs:
        database.revoke_key("bob")
        with pytest.raises(heliosvfs.KeyUnavailableError, match="has lost its slot"):
            copy(bobs, tmp_path / "copy")
        assert not (tmp_path / "copy").exists() or not (tmp_path / "copy").stat().st_size
        bobs.vacuum_into(tmp_path / "copy", key=RAW)  # as the message says
    assert opening(tmp_path / "copy", OLD, BOBS, RAW) == [RAW]


def test_no_copy_is_made_under_a_key_that_another_connection_has_replaced(tmp_path: Path, database: heliosvfs.Connection) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=OLD)) as other:
        other.change_key(NEW, settings=FAST)
        with pytest.raises(heliosvfs.KeyUnavailableError, match="has lost its slot"):
            database.vacuum_into(tmp_path / "copy")
        other.vacuum_into(tmp_path / "another copy")
    assert opening(tmp_path / "another copy", OLD, NEW) == [NEW]


REVOKES = """
import sys, heliosvfs
connection = heliosvfs.connect(sys.argv[1], key=sys.argv[2])
connection.revoke_key("bob")
if sys.argv[3]:
    settings = heliosvfs.KdfSettings(memory_kib=8 * 1024, passes=1, lanes=1)
    connection.add_key(sys.argv[3], label="bob again", settings=settings)
"""


@pytest.mark.parametrize("again", ["", BOBS])
def test_what_another_process_does_to_the_slots_is_seen(tmp_path: Path, database: heliosvfs.Connection, again: str) -> None:
    database.add_key(BOBS, label="bob", settings=FAST)
    with closing(heliosvfs.connect(tmp_path / "db", key=BOBS)) as bobs:
        subprocess.run([sys.executable, "-c", REVOKES, str(tmp_path / "db"), OLD, again], check=True, timeout=60)
        if not again:
            with pytest.raises(heliosvfs.KeyUnavailableError, match="has lost its slot"):
                bobs.vacuum_into(tmp_path / "copy")
            return
        bobs.vacuum_into(tmp_path / "copy")
    assert opening(tmp_path / "copy", OLD, BOBS) == [BOBS]


def test_a_copy_after_a_new_master_key_opens_with_the_key_that_was_kept(tmp_path: Path, database: heliosvfs.Connection) -> None:
    database.add_key(BOBS, label="bob", settings=FAST)
    database.rotate(master=True)
    database.vacuum_into(tmp_path / "copy")
    assert opening(tmp_path / "copy", OLD, BOBS) == [OLD]


def test_a_copy_after_pragma_rekey_opens_with_the_new_key_alone(tmp_path: Path) -> None:
    with closing(apsw.Connection(str(tmp_path / "db"), vfs="heliosvfs")) as connection:
        connection.execute(f"PRAGMA key = '{OLD}'")
        connection.execute("CREATE TABLE t(x)")
        connection.execute(f"PRAGMA rekey = '{NEW}'")
        connection.execute("VACUUM INTO ?", (str(tmp_path / "copy"),))
    assert opening(tmp_path / "copy", OLD, NEW) == [NEW]


def test_a_copy_after_pragma_key_opens_with_the_key_that_it_named(tmp_path: Path, database: heliosvfs.Connection) -> None:
    database.add_key(BOBS, label="bob", settings=FAST)
    with closing(apsw.Connection(str(tmp_path / "db"), vfs="heliosvfs")) as connection:
        connection.execute("PRAGMA key = 'bob''s passphrase'")
        connection.execute("VACUUM INTO ?", (str(tmp_path / "copy"),))
    assert opening(tmp_path / "copy", OLD, BOBS) == [BOBS]


def test_a_copy_after_a_change_to_a_key_that_has_a_slot_opens_with_that(tmp_path: Path, database: heliosvfs.Connection) -> None:
    database.add_key(BOBS, label="bob", settings=FAST)
    database.change_key(BOBS)
    database.vacuum_into(tmp_path / "copy")
    assert opening(tmp_path / "copy", OLD, BOBS) == [BOBS]


@both_doors
def test_a_copy_of_a_database_whose_key_came_from_a_file_opens_with_that(
    tmp_path: Path, key_file: Path, database: heliosvfs.Connection, copy: Copy
) -> None:
    database.add_key(KeyFile(key_file), label="from a file")
    with closing(heliosvfs.connect(tmp_path / "db", key=KeyFile(key_file))) as connection:
        copy(connection, tmp_path / "copy")
    assert opening(tmp_path / "copy", OLD, KeyFile(key_file)) == [KeyFile(key_file)]


@pytest.fixture
def ringed() -> Iterator[str]:
    """Return the name of a VFS whose keyring has a default and a named key."""
    keyring = heliosvfs.Keyring(RAW)
    keyring.add("named", NAMED)
    vfs = heliosvfs.HeliosVFS("ringed", keyring=keyring)
    yield vfs.name
    vfs.unregister()


def test_the_keyrings_default_does_not_seal_what_vacuum_into_copies(tmp_path: Path, ringed: str) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=OLD, settings=FAST, vfs=ringed)) as connection:
        connection.vacuum_into(tmp_path / "copy")
        connection.vacuum_into(f"file:{tmp_path / 'named copy'}?heliosvfs_key=named")
    assert opening(tmp_path / "copy", OLD, RAW, NAMED) == [OLD]
    assert opening(tmp_path / "named copy", OLD, RAW, NAMED) == [NAMED]


def test_a_copy_of_a_database_opened_by_a_registered_key_opens_with_that(tmp_path: Path, ringed: str) -> None:
    with closing(heliosvfs.connect(f"file:{tmp_path / 'db'}?heliosvfs_key=named", vfs=ringed)) as connection:
        connection.vacuum_into(tmp_path / "copy")
    assert opening(tmp_path / "copy", RAW, NAMED) == [NAMED]


def test_what_is_known_of_a_secret_is_forgotten_with_its_slot(tmp_path: Path, database: heliosvfs.Connection) -> None:
    database.add_key(BOBS, label="bob", settings=FAST)
    master = files_of(database)[0].access.master
    keks = {presented.label: presented.kek for presented in master.presented.values()}
    assert set(keks) == {"first", "bob"}
    database.revoke_key("bob")
    assert not any(keks["bob"])
    database.change_key(NEW, settings=FAST)
    assert not any(keks["first"])
    assert len(master.presented) == 1
    assert opening(tmp_path / "db", OLD, BOBS, NEW) == [NEW]
