"""Rules 1 and 2 of the VFS: whoever can't read recovery data must not destroy it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest

import heliosvfs
from tests.rules.conftest import EXPECTED, Crash, files_of_database, states

MODES = sorted(EXPECTED)


@pytest.mark.parametrize("mode", MODES)
def test_stock_sqlite_leaves_a_crashed_database_as_it_is(crashed: Crash, mode: str) -> None:
    path = crashed(mode)
    before = files_of_database(path)
    assert len(before) == 2
    with closing(sqlite3.connect(path)) as stock, pytest.raises(sqlite3.Error):
        stock.execute("SELECT * FROM sqlite_master").fetchall()
    assert files_of_database(path) == before
    assert states(path) == EXPECTED[mode]


def by_connect(path: Path) -> None:
    heliosvfs.connect(path, key=bytes(32)).close()


def by_connect_without_key(path: Path) -> None:
    heliosvfs.connect(path).close()


def by_passphrase(path: Path) -> None:
    heliosvfs.connect(path, key="not it").close()


def by_pragma(path: Path) -> None:
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection:
        with suppress(heliosvfs.WrongKeyError):
            connection.execute("PRAGMA key = 'not it'")
        connection.execute("SELECT * FROM t").fetchall()


def by_reading_without_key(path: Path) -> None:
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection:
        connection.execute("SELECT * FROM t").fetchall()


def by_writing_without_key(path: Path) -> None:
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection:
        connection.execute("CREATE TABLE u(x)")


def by_nolock(path: Path) -> None:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
    with closing(apsw.Connection(f"file:{path}?nolock=1", flags=flags, vfs="heliosvfs")) as connection:
        connection.execute("SELECT * FROM t").fetchall()


def by_immutable(path: Path) -> None:
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with closing(apsw.Connection(f"file:{path}?immutable=1", flags=flags, vfs="heliosvfs")) as connection:
        connection.execute("SELECT * FROM t").fetchall()


def by_attach(path: Path) -> None:
    with closing(heliosvfs.connect(path.with_name("other"), key=bytes(32))) as connection:
        connection.attach(path, "crashed", key=b"y" * 32)
        connection.execute("SELECT * FROM crashed.t").fetchall()


def by_checkpoint(path: Path) -> None:
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.pragma("journal_mode", "delete")


DOORS = [
    by_connect,
    by_connect_without_key,
    by_passphrase,
    by_pragma,
    by_reading_without_key,
    by_writing_without_key,
    by_nolock,
    by_immutable,
    by_attach,
    by_checkpoint,
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_no_door_destroys_recovery_data_without_the_right_key(crashed: Crash, mode: str, door: Callable[[Path], None]) -> None:
    path = crashed(mode)
    before = files_of_database(path)
    with pytest.raises((heliosvfs.WrongKeyError, heliosvfs.KeyUnavailableError)):
        door(path)
    after = files_of_database(path)
    assert {name: after[name] for name in before} == before
    assert states(path) == EXPECTED[mode]


@pytest.mark.parametrize("mode", MODES)
def test_a_locked_database_whose_key_comes_late_recovers(crashed: Crash, mode: str) -> None:
    path = crashed(mode, key="the passphrase")
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection:
        with pytest.raises(heliosvfs.KeyUnavailableError):
            connection.execute("SELECT * FROM t").fetchall()
        connection.execute("PRAGMA key = 'the passphrase'")
        found = dict(connection.execute("SELECT state, count(*) FROM t GROUP BY state").fetchall())
    assert found == EXPECTED[mode]


def test_an_epoch_newer_than_the_superblock_never_ends_a_log(crashed: Crash) -> None:
    """Such a frame says that the superblock in hand is old: to recover without it would lose commits."""
    path = crashed("wal")
    wal = bytearray(path.with_name("db-wal").read_bytes())
    frame = 24 + 512
    wal[32 + 3 * frame - 4 : 32 + 3 * frame - 1] = (2).to_bytes(3, "big")
    path.with_name("db-wal").write_bytes(wal)
    with pytest.raises(heliosvfs.TamperedError):
        states(path)
    assert path.with_name("db-wal").read_bytes() == bytes(wal)


def test_an_interrupt_in_a_read_is_no_end_of_a_log(crashed: Crash, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros are an answer only after GCM itself has rejected a frame; anything else that goes wrong is passed on."""
    path = crashed("wal")
    before = files_of_database(path)

    def interrupted(*_: object) -> bytearray:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("heliosvfs.vfs.wal.WalFile.open_frame", interrupted)
        with pytest.raises(KeyboardInterrupt):
            states(path)
    assert {name: data for name, data in files_of_database(path).items() if name in before} == before
    assert states(path) == EXPECTED["wal"]


def test_a_plain_wal_beside_a_database_is_refused_and_left(crashed: Crash, tmp_path: Path) -> None:
    path = crashed("wal")
    with closing(apsw.Connection(str(tmp_path / "plain"))) as plain:
        plain.pragma("page_size", 512)
        plain.pragma("journal_mode", "wal")
        plain.execute("CREATE TABLE x(y)")
        foreign = (tmp_path / "plain-wal").read_bytes()
    path.with_name("db-wal").write_bytes(foreign)
    with pytest.raises(heliosvfs.FormatError):
        states(path)
    assert path.with_name("db-wal").read_bytes() == foreign


def test_a_plain_journal_beside_a_database_is_refused_and_left(crashed: Crash, tmp_path: Path) -> None:
    path = crashed("delete")
    with closing(apsw.Connection(str(tmp_path / "plain"))) as plain:
        plain.pragma("page_size", 512)
        plain.pragma("cache_size", 2)
        plain.execute("CREATE TABLE x(y)")
        plain.execute("INSERT INTO x SELECT randomblob(4000) FROM (VALUES(1),(2),(3),(4))")
        plain.execute("BEGIN; UPDATE x SET y = randomblob(5000)")
        foreign = (tmp_path / "plain-journal").read_bytes()
        assert foreign.startswith(bytes.fromhex("d9d505f920a163d7"))
        path.with_name("db-journal").write_bytes(foreign)
    with pytest.raises(heliosvfs.FormatError):
        states(path)
    assert path.with_name("db-journal").read_bytes() == foreign
