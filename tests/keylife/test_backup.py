"""Encrypted backups of a database in use: proven, restorable, small, and never the last good one removed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.backup import backup, prune, restore
from heliosvfs.check import check
from heliosvfs.origins import Origin, backups_in, note_origin
from tests.keylife.examining import KEY, copies, database, epoch_keys, opened_by

OTHER = b"o" * 32
START = datetime(2030, 1, 1, tzinfo=timezone.utc)


def rows(path: Path | str, key: heliosvfs.keyring.Key = KEY) -> list[tuple[apsw.SQLiteValue, ...]]:
    with closing(heliosvfs.connect(path, key=key, create=False)) as connection:
        return connection.execute("SELECT id, x FROM t ORDER BY id").fetchall()


@pytest.mark.parametrize("mode", ["wal", "delete", "persist", "off"])
@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_a_backup_holds_what_the_database_holds_under_keys_of_its_own(tmp_path: Path, mode: str, page_size: int) -> None:
    with closing(database(tmp_path / "db", mode, page_size=page_size)) as connection:
        before, key = connection.execute("SELECT id, x FROM t ORDER BY id").fetchall(), epoch_keys(connection)[1]
        report = backup(connection, tmp_path / "copy")
        assert report.pages == connection.pragma("page_count")
        assert report.compared == (mode == "wal")
        assert connection.execute("SELECT count(*) FROM t").get == len(before)
    assert rows(tmp_path / "copy") == before
    assert copies(tmp_path / "copy")[0].uuid != copies(tmp_path / "db")[0].uuid
    assert opened_by(key, tmp_path / "copy", page_size) == 0
    assert check(tmp_path / "copy", key=KEY).ok
    assert report.size == (tmp_path / "copy").stat().st_size
    assert sorted(os.listdir(tmp_path)) == ["copy", "db", *(["db-journal"] if mode == "persist" else [])]
    with pytest.raises(heliosvfs.WrongKeyError):
        heliosvfs.connect(tmp_path / "copy", key=b"2" * 32)


def test_a_backup_can_be_under_another_key(tmp_path: Path) -> None:
    with closing(database(tmp_path / "db")) as connection:
        backup(connection, tmp_path / "copy", key="an escrowed passphrase", settings=heliosvfs.KdfSettings(fips_mode=True))
    assert rows(tmp_path / "copy", "an escrowed passphrase") == rows(tmp_path / "db")
    assert copies(tmp_path / "copy")[0].slots[0].kdf.name == "pbkdf2-hmac-sha256"
    with pytest.raises(heliosvfs.WrongKeyError):
        heliosvfs.connect(tmp_path / "copy", key=KEY)


def test_a_backup_of_an_attached_database_is_made_too(tmp_path: Path) -> None:
    with closing(database(tmp_path / "db")) as connection:
        connection.attach(tmp_path / "other", "other", key=OTHER)
        connection.execute("CREATE TABLE other.t(id INTEGER PRIMARY KEY, x); INSERT INTO other.t VALUES(1, 2)")
        backup(connection, tmp_path / "copy", schema="other")
    assert rows(tmp_path / "copy", OTHER) == [(1, 2)]


def test_a_connection_that_may_only_read_makes_backups_too(tmp_path: Path) -> None:
    database(tmp_path / "db").close()
    before = rows(tmp_path / "db")
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, readonly=True)) as connection:
        backup(connection, tmp_path / "copy")
    assert rows(tmp_path / "copy") == before


def test_writers_go_on_while_a_database_in_wal_mode_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "db"
    written = 0
    with closing(database(path, rows=3000)) as connection, closing(heliosvfs.connect(path, key=KEY, busy_timeout=0)) as other:
        before = rows(path)

        def write(_: int, __: int) -> None:
            nonlocal written
            written += 1
            other.execute("INSERT INTO t(x) VALUES('later')")

        report = backup(connection, tmp_path / "copy", progress=write)
        assert written > 1
        assert report.compared
        assert connection.execute("SELECT count(*) FROM t WHERE x = 'later'").get == written
    assert rows(tmp_path / "copy") == before, "the state when it began"


def test_writers_in_rollback_mode_go_on_between_batches_and_can_not_make_it_endless(tmp_path: Path) -> None:
    path = tmp_path / "db"
    written = 0
    with (
        closing(database(path, "delete", rows=3000)) as connection,
        closing(heliosvfs.connect(path, key=KEY, busy_timeout=0)) as other,
    ):

        def write(done: int, total: int) -> None:
            nonlocal written
            if done < total:
                written += 1
                other.execute("INSERT INTO t(x) VALUES('later')")

        backup(connection, tmp_path / "copy", progress=write)
        assert written > 1
    found = [x for _, x in rows(tmp_path / "copy")].count("later")
    assert found == written, "the state when it ended: each write made it begin again"


def test_nothing_is_overwritten_and_nothing_is_left_of_a_backup_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(database(path)) as connection:
        (tmp_path / "there").write_text("precious")
        with pytest.raises(heliosvfs.UsageError, match="exists already"):
            backup(connection, tmp_path / "there")
        with pytest.raises(heliosvfs.UsageError, match="folder"):
            backup(connection, tmp_path / "nowhere" / "copy")
        connection.pragma("wal_checkpoint", "TRUNCATE")
    with path.open("r+b") as file:
        file.seek(32768 + 50 * 1024 + 100)
        file.write(b"\xaa" * 8)
    with closing(heliosvfs.connect(path, key=KEY)) as connection, pytest.raises(heliosvfs.TamperedError, match="page 51"):
        backup(connection, tmp_path / "copy")
    assert (tmp_path / "there").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["db", "there"]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_backup_is_at_most_one_percent_larger_than_the_plain_database(tmp_path: Path, mode: str) -> None:
    """At 4096 bytes a page, with the superblock's 32 KiB spread over some megabytes."""
    plain = apsw.Connection(str(tmp_path / "plain"))
    with (
        closing(plain),
        closing(heliosvfs.connect(tmp_path / "db", key=KEY, journal_mode=mode)) as connection,
    ):
        for each in (plain, connection):
            each.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, note TEXT); CREATE INDEX by_name ON t(name)")
            with each:
                each.executemany(
                    "INSERT INTO t VALUES(?, ?, ?)",
                    ((n, f"name {n * 7919 % 100003}", f"a note of some length, number {n} " * (n % 9)) for n in range(120000)),
                )
            each.execute("VACUUM")
        size = backup(connection, tmp_path / "copy").size
        if mode == "wal":
            connection.pragma("wal_checkpoint", "TRUNCATE")
    assert size <= 1.01 * (tmp_path / "plain").stat().st_size
    assert size == (tmp_path / "db").stat().st_size


@pytest.mark.parametrize("new_key", [None, OTHER])
def test_a_backup_is_restored_into_a_new_database(tmp_path: Path, new_key: bytes | None) -> None:
    with closing(database(tmp_path / "db")) as connection:
        before = rows(tmp_path / "db")
        uuid = copies(tmp_path / "db")[0].uuid
        made = backup(connection, tmp_path / "copy")
        connection.execute("DELETE FROM t")
    report = restore(tmp_path / "copy", tmp_path / "new", key=KEY, new_key=new_key, source_uuid=uuid)
    assert (report.source_uuid, report.digest, report.pages) == (uuid, made.digest, made.pages)
    assert rows(tmp_path / "new", new_key or KEY) == before
    assert "backup_of" not in copies(tmp_path / "new")[0].unknown
    with pytest.raises(heliosvfs.UsageError, match="exists already"):
        restore(tmp_path / "copy", tmp_path / "new", key=KEY)


def only_readable(folder: Path) -> str:
    """Return a program that takes no rights from being root, and reads a backup and restores it from a folder it can't write."""
    return f"""
import os, sys
from pathlib import Path
import heliosvfs
from heliosvfs.backup import restore
import _strptime  # now: root's own interpreter may be closed to others
if os.getuid() == 0:
    os.setuid(65534)
source = Path({str(folder)!r}) / "copy"
try:
    (source.parent / "probe").touch()
except PermissionError:
    connection = heliosvfs.connect(source, key=bytes(range(32)), create=False, readonly=True)
    count = connection.execute("SELECT count(*) FROM t").get
    connection.close()
    restore(source, Path({str(folder)!r}).parent / "out" / "new", key=bytes(range(32)))
    print(count)
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="permissions of POSIX")
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_backup_on_a_medium_that_can_only_be_read_is_read_and_restored(mode: str) -> None:
    """A WAL database could not be: SQLite would have to write beside it. So a backup is none, whatever its source was."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        top, medium, out = Path(name), Path(name) / "medium", Path(name) / "out"
        medium.mkdir()
        out.mkdir()
        with closing(database(top / "db", mode)) as connection:
            count = connection.execute("SELECT count(*) FROM t").get
            backup(connection, medium / "copy")
        for path, rights in ((medium / "copy", 0o444), (medium, 0o555), (out, 0o777), (top, 0o755)):
            path.chmod(rights)
        done = subprocess.run([sys.executable, "-c", only_readable(medium)], capture_output=True, text=True, check=False)
        medium.chmod(0o755)
        assert done.stdout == f"{count}\n", done.stderr
        with closing(heliosvfs.connect(out / "new", key=KEY)) as connection:
            assert connection.pragma("journal_mode") == "wal"


def test_what_is_damaged_or_of_another_database_is_not_restored(tmp_path: Path) -> None:
    with closing(database(tmp_path / "db")) as connection:
        backup(connection, tmp_path / "copy")
    with pytest.raises(heliosvfs.UsageError, match="not of 0000"):
        restore(tmp_path / "copy", tmp_path / "new", key=KEY, source_uuid="00" * 16)
    with pytest.raises(heliosvfs.WrongKeyError):
        restore(tmp_path / "copy", tmp_path / "new", key=OTHER)
    with (tmp_path / "copy").open("r+b") as file:
        file.seek(32768 + 50 * 1024 + 100)
        file.write(b"\xaa" * 8)
    with pytest.raises(heliosvfs.TamperedError, match="was not restored"):
        restore(tmp_path / "copy", tmp_path / "new", key=KEY)
    assert sorted(os.listdir(tmp_path)) == ["copy", "db"]


def made_on(connection: heliosvfs.Connection, folder: Path, day: int, key: bytes = KEY) -> str:
    """Make a backup and date it to a day of our calendar."""
    path = backup(connection, folder, key=key).path
    created = (START + timedelta(days=day)).strftime("%Y-%m-%dT%H:%M:%SZ")
    with closing(heliosvfs.connect(path, key=key, create=False)) as copy:
        note_origin(copy, Origin(heliosvfs.vfs.files_of(connection)[0].access.superblock.uuid, created))
    return path


def damage(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(32768 + 50 * 1024 + 100)
        file.write(b"\xaa" * 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups"


def test_backups_are_named_by_time_and_told_apart_by_the_database_they_are_of(tmp_path: Path, folder: Path) -> None:
    with (
        closing(database(tmp_path / "clinic.db")) as connection,
        closing(database(tmp_path / "other.db")) as other,
    ):
        paths = [backup(connection, folder).path for _ in range(2)]
        backup(other, folder)
        (folder / "notes.txt").write_text("not a database")
        database(folder / "live.db").close()
        assert all(Path(path).name.startswith("clinic-2") and path.endswith(".db") for path in paths)
        uuid = copies(tmp_path / "clinic.db")[0].uuid
    assert {item.path for item in backups_in(folder, uuid)} == set(paths)
    assert len(backups_in(folder)) == 3


def test_old_backups_are_removed_and_other_files_are_not(tmp_path: Path, folder: Path) -> None:
    with closing(database(tmp_path / "clinic.db")) as connection, closing(database(tmp_path / "other.db")) as other:
        old, older, recent = made_on(connection, folder, 2), made_on(connection, folder, 0), made_on(connection, folder, 9)
        foreign = made_on(other, folder, 0)
        (folder / "clinic-20200101T000000Z.db").write_text("not a database")
        uuid = copies(tmp_path / "clinic.db")[0].uuid
    removed = prune(folder, uuid, key=KEY, days=5, at=START + timedelta(days=10))
    assert set(removed) == {old, older}
    assert sorted(os.listdir(folder)) == sorted(Path(p).name for p in (recent, foreign, "clinic-20200101T000000Z.db"))


def test_the_last_good_backup_is_kept_however_old_it_is(tmp_path: Path, folder: Path) -> None:
    with closing(database(tmp_path / "clinic.db")) as connection:
        oldest, good, bad = (made_on(connection, folder, day) for day in (0, 1, 2))
        uuid = copies(tmp_path / "clinic.db")[0].uuid
    damage(bad)
    assert prune(folder, uuid, key=KEY, days=5, at=START + timedelta(days=1000)) == [oldest]
    assert {item.path for item in backups_in(folder)} == {good, bad}
    damage(good)
    assert prune(folder, uuid, key=KEY, days=5, at=START + timedelta(days=1000)) == []


def test_where_no_backup_opens_with_the_key_none_is_removed(tmp_path: Path, folder: Path) -> None:
    with closing(database(tmp_path / "clinic.db")) as connection:
        for day in range(3):
            made_on(connection, folder, day)
        uuid = copies(tmp_path / "clinic.db")[0].uuid
    assert prune(folder, uuid, key=OTHER, days=5, at=START + timedelta(days=1000)) == []
    assert len(backups_in(folder)) == 3
    with pytest.raises(heliosvfs.UsageError, match="positive"):
        prune(folder, uuid, key=KEY, days=0)


def test_retention_follows_a_backup_that_was_proven(tmp_path: Path, folder: Path) -> None:
    with closing(database(tmp_path / "clinic.db")) as connection:
        path = backup(connection, folder).path
        with closing(heliosvfs.connect(path, key=KEY)) as copy:
            note_origin(copy, Origin(copies(tmp_path / "clinic.db")[0].uuid, "2001-01-01T00:00:00Z"))
        report = backup(connection, folder, retention_days=30)
    assert report.removed == (path,)
    assert [item.path for item in backups_in(folder)] == [report.path]
