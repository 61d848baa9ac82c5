"""Rule 7: a journal or WAL is sealed under the keys of the very file whose pages it holds, whoever else has that open."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.opening import open_untouched
from heliosvfs.vfs import DatabaseFile, files_of, filesystem
from heliosvfs.vfs.journal import JournalFile
from heliosvfs.vfs.wal import WalFile
from tests.rules.conftest import EXPECTED, KEY, Crash, states

ROLLBACK_MODES = ["delete", "truncate", "persist"]
NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT n FROM numbers"

Opened = list[tuple[str, bool, DatabaseFile]]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Return a list that grows by each journal and WAL: its kind, whether it is for reading only, and the file it belongs to."""
    seen: Opened = []

    class Journal(JournalFile):
        def __init__(self, base: str, name: str, flags: list[int], database: DatabaseFile) -> None:
            seen.append(("journal", bool(flags[0] & apsw.SQLITE_OPEN_READONLY), database))
            super().__init__(base, name, flags, database)

    class Wal(WalFile):
        def __init__(self, base: str, name: str, flags: list[int], database: DatabaseFile) -> None:
            seen.append(("wal", bool(flags[0] & apsw.SQLITE_OPEN_READONLY), database))
            super().__init__(base, name, flags, database)

    monkeypatch.setattr(filesystem, "JournalFile", Journal)
    monkeypatch.setattr(filesystem, "WalFile", Wal)
    yield seen
    seen.clear()


def make(path: Path, mode: str) -> heliosvfs.Connection:
    connection = heliosvfs.connect(path, key=KEY, journal_mode=mode)
    connection.execute("CREATE TABLE t(x)")
    return connection


def read(connection: apsw.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM t").get)


@pytest.mark.parametrize("mode", ROLLBACK_MODES)
def test_a_commit_is_whole_when_another_connection_reads_and_closes_in_the_transaction(tmp_path: Path, mode: str) -> None:
    with closing(make(tmp_path / "db", mode)) as writer:
        reader = heliosvfs.connect(tmp_path / "db", key=KEY)
        writer.execute("BEGIN IMMEDIATE")
        assert read(reader) == 0
        writer.execute("INSERT INTO t VALUES(1)")  # SQLite opens the journal here
        reader.close()
        writer.execute("COMMIT")
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        assert read(connection) == 1
    assert check(tmp_path / "db", key=KEY).ok


@pytest.mark.parametrize("mode", ROLLBACK_MODES)
def test_a_rollback_is_whole_when_another_connection_reads_and_closes_in_the_transaction(tmp_path: Path, mode: str) -> None:
    with closing(make(tmp_path / "db", mode)) as writer:
        writer.execute("PRAGMA cache_size = 5")
        writer.execute(f"INSERT INTO t SELECT randomblob(900) FROM ({NUMBERS} LIMIT 200)")
        reader = heliosvfs.connect(tmp_path / "db", key=KEY)
        writer.execute("BEGIN IMMEDIATE")
        assert read(reader) == 200
        writer.execute("UPDATE t SET x = 1 WHERE rowid = 1")
        reader.close()
        writer.execute("UPDATE t SET x = randomblob(900)")  # spills into the file
        writer.execute("ROLLBACK")
        assert read(writer) == 200
        assert writer.pragma("integrity_check") == "ok"
    assert check(tmp_path / "db", key=KEY).ok


DIES_IN_A_TRANSACTION = """
import os, signal, subprocess, sys, heliosvfs
path, attached, master = sys.argv[1:4]
KEY = bytes(range(32))
writer = heliosvfs.connect(path, key=KEY)
writer.attach(attached, "attached", key=KEY)
idle = heliosvfs.connect(path, key=KEY)
rotate = f"import heliosvfs, sys; heliosvfs.connect(sys.argv[1], key=bytes(range(32))).rotate(master={master})"
subprocess.run([sys.executable, "-W", "ignore", "-c", rotate, path], check=True)
writer.execute("PRAGMA cache_size = 5; BEGIN IMMEDIATE")  # the lock on the attached database comes last
writer.execute("UPDATE t SET state = 'never committed', filler = randomblob(300)")  # spills into the file
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("master", [False, True])
def test_a_hot_journal_opens_after_a_rotation_that_an_idle_connection_has_not_seen(tmp_path: Path, *, master: bool) -> None:
    paths = [tmp_path / "db", tmp_path / "attached"]
    for path in paths:
        with closing(heliosvfs.connect(path, key=KEY, journal_mode="delete")) as connection:
            connection.execute("CREATE TABLE t(state TEXT, filler BLOB)")
            connection.execute(f"INSERT INTO t SELECT 'committed', randomblob(300) FROM ({NUMBERS} LIMIT 400)")
    program = [sys.executable, "-W", "ignore", "-c", DIES_IN_A_TRANSACTION, *map(str, paths), str(master)]
    assert subprocess.run(program, check=False, timeout=120).returncode == -signal.SIGKILL
    assert (tmp_path / "db-journal").exists()
    assert states(tmp_path / "db") == {"committed": 400}


def test_the_journal_of_a_connection_that_two_threads_use_is_its_own(tmp_path: Path, opened: Opened) -> None:
    """The lock is taken in one thread; in the other one, where the journal is made, another connection was used last."""
    with (
        closing(make(tmp_path / "db", "delete")) as writer,
        closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as reader,
        ThreadPoolExecutor(1) as other_thread,
    ):
        opened.clear()
        writer.execute("BEGIN IMMEDIATE")
        other_thread.submit(read, reader).result()
        other_thread.submit(writer.execute, "INSERT INTO t VALUES(1)").result()
        writer.execute("COMMIT")
        assert opened == [("journal", False, files_of(writer)[0])]


def test_each_of_two_schemas_with_the_same_database_has_its_own_journal(tmp_path: Path, opened: Opened) -> None:
    make(tmp_path / "db", "delete").close()
    with closing(heliosvfs.connect(":memory:")) as connection:
        for name in ("first", "second", "third"):
            connection.attach(tmp_path / "db", name, key=KEY)
        for written, read_last in (("first", "third"), ("second", "first"), ("third", "second")):
            opened.clear()
            connection.execute(f"SELECT * FROM {read_last}.t").fetchall()
            connection.execute(f"INSERT INTO {written}.t VALUES(1)")
            assert opened == [("journal", False, files_of(connection)[["first", "second", "third"].index(written)])]


def test_the_journal_of_a_database_being_created_is_its_creators(tmp_path: Path, opened: Opened) -> None:
    with closing(apsw.Connection(str(tmp_path / "db"), vfs="heliosvfs")) as creator:
        other = apsw.Connection(str(tmp_path / "db"), vfs="heliosvfs")
        for connection in (creator, other):
            connection.execute(f"PRAGMA key = \"x'{KEY.hex()}'\"")
        creator.execute("BEGIN IMMEDIATE")
        other.execute("SELECT * FROM sqlite_schema").fetchall()
        creator.execute("CREATE TABLE t(x)")
        assert opened == [("journal", False, files_of(creator)[0])]
        other.close()
        creator.execute("COMMIT")
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        assert read(connection) == 0


def test_a_journal_without_locks_belongs_to_whoever_makes_it(tmp_path: Path, opened: Opened) -> None:
    make(tmp_path / "db", "delete").close()
    where = f"file:{tmp_path / 'db'}?nolock=1"
    with closing(heliosvfs.connect(where, key=KEY)) as first, closing(heliosvfs.connect(where, key=KEY)) as second:
        for writer, reader in ((first, second), (second, first)):
            opened.clear()
            writer.execute("BEGIN IMMEDIATE")
            read(reader)
            writer.execute("INSERT INTO t VALUES(1); COMMIT")
            assert opened[0] == ("journal", False, files_of(writer)[0])


@pytest.mark.parametrize("mode", ["delete", "persist"])
def test_a_hot_journal_is_played_back_by_the_file_that_found_it(crashed: Crash, opened: Opened, mode: str) -> None:
    path = crashed(mode)
    opened.clear()
    with closing(open_untouched(path, key=KEY)), closing(apsw.Connection(str(path), vfs="heliosvfs")) as finder:
        finder.execute(f"PRAGMA key = \"x'{KEY.hex()}'\"")
        with closing(open_untouched(path, key=KEY)):
            read(finder)
        assert opened == [("journal", True, files_of(finder)[0]), ("journal", False, files_of(finder)[0])]
    assert states(path) == EXPECTED[mode]


def test_whoever_looks_at_a_journal_beside_a_writer_looks_through_its_own_file(tmp_path: Path, opened: Opened) -> None:
    """A finished journal that is kept: each reader looks whether it is hot."""
    with closing(make(tmp_path / "db", "persist")) as writer, closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as reader:
        writer.execute("INSERT INTO t VALUES(1)")
        opened.clear()
        read(reader)
        read(writer)
        assert opened == [("journal", True, files_of(reader)[0])] + [("journal", True, files_of(writer)[0])] * (len(opened) - 1)


def test_each_wal_belongs_to_the_file_that_opened_it(tmp_path: Path, opened: Opened) -> None:
    make(tmp_path / "db", "wal").close()
    opened.clear()
    with (
        closing(heliosvfs.connect(":memory:")) as attaching,
        closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as first,
        closing(open_untouched(tmp_path / "db", key=KEY)) as last,
        ThreadPoolExecutor(1) as other_thread,
    ):
        attaching.attach(tmp_path / "db", "a", key=KEY)
        attaching.attach(tmp_path / "db", "b", key=KEY)
        attaching.execute("SELECT * FROM b.t; SELECT * FROM a.t").fetchall()
        other_thread.submit(read, last).result()
        first.execute("INSERT INTO t VALUES(1)")
        assert len(opened) == len({file for _, _, file in opened})
        for file in (*files_of(attaching), *files_of(first), *files_of(last)):
            assert file.wal is not None
            assert ("wal", False, file) in opened or ("wal", True, file) in opened
