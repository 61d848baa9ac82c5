"""Files under unusual names: the database, its WAL and its journal find each other, and a key never goes unused."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs

KEY = bytes(range(32))
NAMES = [
    "plain.db",
    "with space.db",
    "100%41.db",
    "a?b#c&d=e.db",
    "ünïcödé 日本 🗝.db",
    "-wal",
    "x-journal",
    "x-wal-wal",
    "'quoted' \"twice\".db",
    "x" * 200,
]


def use(where: str | Path, mode: str) -> None:
    """Create a database, leave a transaction in WAL or journal, and see that it is sealed there."""
    with closing(heliosvfs.connect(where, key=KEY, journal_mode=mode)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES('the marker')")
        connection.pragma("cache_size", 2)
        connection.execute("BEGIN; INSERT INTO t SELECT zeroblob(50000); ROLLBACK")
        path = Path(connection.db_filename("main"))
        for suffix in ("", "-wal", "-journal"):
            if os.path.exists(f"{path}{suffix}"):
                assert b"the marker" not in Path(f"{path}{suffix}").read_bytes()
    with closing(heliosvfs.connect(where, key=KEY, create=False)) as connection:
        assert connection.execute("SELECT DISTINCT x FROM t").fetchall() == [("the marker",)]
        assert connection.get_storage_info()["encryption_enabled"]


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("name", NAMES)
def test_a_database_of_any_name_can_be_used(tmp_path: Path, name: str, mode: str) -> None:
    use(tmp_path / name, mode)
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_uri_names_the_same_file(tmp_path: Path, mode: str) -> None:
    use(f"file:{tmp_path}/with%20space%3F.db?psow=1", mode)
    use(tmp_path / "with space?.db", mode)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_relative_name_holds_after_the_folder_changed(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with closing(heliosvfs.connect("db", key=KEY, journal_mode=mode)) as connection:
        monkeypatch.chdir(tmp_path / "elsewhere")
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["db"]
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_symbolic_link_leads_to_the_same_database(tmp_path: Path, mode: str, what: str) -> None:
    """WAL and journal lie beside the file itself, or two users of it would each have their own."""
    real = tmp_path / "real"
    real.mkdir()
    if what == "file":
        link = tmp_path / "link.db"
        link.symlink_to(real / "db")
    else:
        (tmp_path / "folder").symlink_to(real)
        link = tmp_path / "folder" / "db"
    with closing(heliosvfs.connect(real / "db", key=KEY, journal_mode=mode)) as direct:
        direct.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        with closing(heliosvfs.connect(link, key=KEY)) as linked:
            linked.execute("INSERT INTO t VALUES(2)")
            assert linked.get_storage_info()["path"] == str(real / "db")
            assert direct.execute("SELECT count(*) FROM t").get == 2
    assert [file.name for file in tmp_path.iterdir() if file.is_file() and not file.is_symlink()] == []


def test_a_new_database_behind_a_dangling_link_is_made_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    heliosvfs.connect(tmp_path / "link", key=KEY).close()
    assert (tmp_path / "link").is_symlink()
    heliosvfs.connect(tmp_path / "target", key=KEY, create=False).close()


@pytest.mark.parametrize("other", ["vfs=unix", "vfs=memdb"])
def test_a_uri_that_leads_to_another_vfs_never_leaves_a_key_unused(tmp_path: Path, other: str) -> None:
    """Whoever gives a key wants an encrypted file: a plain one in silence would be the worst of all answers."""
    path = tmp_path / "db"
    with pytest.raises(heliosvfs.UsageError):
        heliosvfs.connect(f"file:{path}?{other}", key=KEY)
    assert not path.exists() or b"SQLite" not in path.read_bytes()
    with closing(heliosvfs.connect(tmp_path / "main", key=KEY)) as connection:
        with pytest.raises(heliosvfs.UsageError):
            connection.attach(f"file:{path}?{other}", "other", key=KEY)
        with pytest.raises(apsw.SQLError):
            connection.execute("SELECT * FROM other.sqlite_schema")


@pytest.mark.parametrize("length", range(495, 516))
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_path_is_used_or_refused_up_to_the_longest(tmp_path: Path, length: int, mode: str) -> None:
    """A transaction over two files writes the super-journal's name, which is longer still, into each journal."""
    folder = tmp_path
    while len(str(folder)) < length - 130:
        folder /= "x" * 100
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("y" * (length - len(str(folder)) - 1))
    assert len(str(path)) == length
    try:
        with closing(heliosvfs.connect(path, key=KEY, journal_mode=mode)) as connection:
            connection.attach(tmp_path / "second", "second", key=KEY)
            connection.pragma("journal_mode", mode, schema="second")
            connection.execute("CREATE TABLE t(x); CREATE TABLE second.u(x)")
            connection.execute("BEGIN; INSERT INTO t VALUES(1); INSERT INTO u VALUES(1); COMMIT")
    except (heliosvfs.HeliosError, apsw.CantOpenError):
        assert length > 500
        return
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert connection.execute("SELECT x FROM t").get == 1


def test_one_file_attached_twice_is_one_database(tmp_path: Path) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        connection.attach(tmp_path / "db", "again", key=KEY)
        connection.execute("INSERT INTO main.t VALUES(2)")
        assert connection.execute("SELECT count(*) FROM again.t").get == 2
        with pytest.raises(heliosvfs.WrongKeyError):
            connection.attach(tmp_path / "db", "third", key=bytes(32))


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_read_only_connection_reads_and_closes_quietly(tmp_path: Path, mode: str) -> None:
    heliosvfs.connect(tmp_path / "db", key=KEY, journal_mode=mode).close()
    for _ in range(2):
        with closing(heliosvfs.connect(tmp_path / "db", key=KEY, readonly=True)) as connection:
            assert connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
            with pytest.raises(apsw.ReadOnlyError):
                connection.execute("CREATE TABLE t(x)")


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("locking", ["normal", "exclusive"])
def test_a_database_can_be_reset(tmp_path: Path, mode: str, locking: str) -> None:
    """SQLITE_DBCONFIG_RESET_DATABASE makes VACUUM forget all pages, which are then written as a new database's."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, journal_mode=mode)) as connection:
        connection.pragma("locking_mode", locking)
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(50000))")
        connection.config(apsw.SQLITE_DBCONFIG_RESET_DATABASE, 1)
        connection.execute("VACUUM")
        connection.config(apsw.SQLITE_DBCONFIG_RESET_DATABASE, 0)
        connection.execute("CREATE TABLE u(x); INSERT INTO u VALUES(1)")
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("u",)]
        assert connection.pragma("integrity_check") == "ok"


def test_a_database_is_backed_up_onto_itself(tmp_path: Path) -> None:
    """As a rotation does: two connections to one file, every page written anew."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY)) as one, closing(heliosvfs.connect(path, key=KEY)) as two:
        one.execute("CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(50000))")
        before = one.execute("SELECT x FROM t").get
        with two.backup("main", one, "main") as backup:
            backup.step(-1)
        assert one.execute("SELECT x FROM t").get == before
        assert one.pragma("integrity_check") == "ok"
