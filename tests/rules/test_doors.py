"""Rules 9, 10 and 14: locks survive, a base is resolved at once, PRAGMA key and ATTACH."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import apsw.bestpractice
import pytest

import heliosvfs
from heliosvfs.check import open_pages
from tests.rules.conftest import KEY


def is_locked_for_others(path: Path) -> bool:
    """Ask another process whether it can write."""
    script = (
        "import sys, apsw, heliosvfs\n"
        "connection = heliosvfs.connect(sys.argv[1], key=bytes(range(32)), busy_timeout=0)\n"
        "connection.execute('BEGIN EXCLUSIVE')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "BusyError" in done.stderr, done.stderr
    return done.returncode != 0


def test_nothing_that_we_do_gives_an_exclusive_lock_away(tmp_path: Path) -> None:
    """Any close of a second handle in the same process would."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, journal_mode="delete")) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.execute("BEGIN EXCLUSIVE; INSERT INTO t VALUES(1)")
        assert is_locked_for_others(path)
        with pytest.raises((apsw.BusyError, heliosvfs.HeliosError)), open_pages(path, key=KEY):
            pass
        with pytest.raises(heliosvfs.WrongKeyError):
            heliosvfs.connect(path, key=b"w" * 32, busy_timeout=0)
        connection.get_storage_info()
        connection.list_keys()
        connection.add_key(b"2" * 32, label="second")
        assert is_locked_for_others(path)
        connection.execute("COMMIT")
    assert not is_locked_for_others(path)


def test_a_base_given_as_the_default_is_resolved_when_the_vfs_is_made(tmp_path: Path) -> None:
    before = apsw.vfs_names()[0]
    vfs = heliosvfs.HeliosVFS("to-be-default", keyring=heliosvfs.Keyring(default=KEY))
    try:
        assert vfs.base == before
        apsw.set_default_vfs("to-be-default")
        with closing(apsw.Connection(str(tmp_path / "db"))) as connection:
            connection.execute("CREATE TABLE t(x); CREATE TEMP TABLE u(x)")
        assert (tmp_path / "db").read_bytes().startswith(b"heliosvfs")
    finally:
        apsw.set_default_vfs(before)
        vfs.unregister()


def test_a_missing_vfs_is_an_error_and_never_the_default_one(tmp_path: Path) -> None:
    with pytest.raises(heliosvfs.UsageError, match="no VFS"):
        heliosvfs.connect(tmp_path / "db", key=KEY, vfs="misspelt")
    assert not (tmp_path / "db").exists()


def test_pragma_key_and_rekey_work_as_sqlciphers_users_write_them(tmp_path: Path) -> None:
    path = str(tmp_path / "db")

    def opened(*pragmas: str) -> list[tuple[object, ...]]:
        with closing(apsw.Connection(path, vfs="heliosvfs")) as connection:
            for pragma in pragmas:
                connection.execute(pragma)
            return connection.execute("SELECT x FROM t").fetchall()

    with closing(apsw.Connection(path, vfs="heliosvfs")) as connection:
        connection.execute("PRAGMA key = 'first'; CREATE TABLE t(x); INSERT INTO t VALUES(1)").fetchall()
    assert opened("PRAGMA key = 'first'") == [(1,)]
    assert opened("PRAGMA key('first')", "PRAGMA key = 'first'", "EXPLAIN PRAGMA key = 'first'") == [(1,)]
    with pytest.raises(heliosvfs.WrongKeyError):
        opened("PRAGMA key = 'second'")
    with pytest.raises(heliosvfs.KeyUnavailableError):
        opened()
    assert opened("PRAGMA key = 'first'", "PRAGMA rekey = 'second'", "PRAGMA rekey = 'second'") == [(1,)]
    assert opened("PRAGMA key = 'second'") == [(1,)]
    with pytest.raises(heliosvfs.WrongKeyError):
        opened("PRAGMA key = 'first'")
    raw = f"PRAGMA rekey = \"x'{KEY.hex()}'\""
    assert opened("PRAGMA key = 'second'", raw) == [(1,)]
    assert opened(f"PRAGMA key = \"x'{KEY.hex()}'\"") == [(1,)]
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        assert connection.execute("SELECT x FROM t").get == 1


@pytest.mark.parametrize("pragma", ["PRAGMA key", "PRAGMA key = ''", "PRAGMA key = \"x'abcd'\""])
def test_a_key_that_is_none_is_refused(tmp_path: Path, pragma: str) -> None:
    with closing(apsw.Connection(str(tmp_path / "db"), vfs="heliosvfs")) as connection, pytest.raises(heliosvfs.UsageError):
        connection.execute(pragma)


def test_rekey_waits_for_recovery(crashed: object) -> None:
    """A write lock beside a hot journal would make other processes take the journal for a live one."""
    path = crashed("delete", key="the key")  # type: ignore[operator]
    with closing(apsw.Connection(str(path), vfs="heliosvfs")) as connection:
        connection.execute("PRAGMA key = 'the key'")
        with pytest.raises(heliosvfs.UsageError, match="recovery"):
            connection.execute("PRAGMA rekey = 'another'")
        assert connection.execute("SELECT count(*) FROM t WHERE state = 'committed'").get == 400
        connection.execute("PRAGMA rekey = 'another'")
    heliosvfs.connect(path, key="another").close()


@pytest.mark.parametrize("there", [False, True])
def test_a_new_database_that_is_attached_without_a_key_does_not_take_that_of_the_main_one(tmp_path: Path, *, there: bool) -> None:
    new = tmp_path / "new"
    if there:
        new.touch()
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        with pytest.raises(heliosvfs.KeyUnavailableError):
            connection.attach(new, "new")
        assert connection.db_names() == ["main", "temp"]
        assert new.exists() == there
        connection.attach(new, "new", key=bytes(32))
        connection.execute("CREATE TABLE new.t(x)")
    with pytest.raises(heliosvfs.WrongKeyError):
        heliosvfs.connect(new, key=KEY)


def test_attach_in_sql_does_not_take_the_key_of_the_main_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may have replaced APSW's hooks: then the file says itself that room is reserved, and nothing else refuses it."""
    monkeypatch.setattr(apsw, "connection_hooks", [])
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        connection.execute("ATTACH ? AS new KEY 'another'", (str(tmp_path / "new"),))
        with pytest.raises(heliosvfs.KeyUnavailableError):
            connection.execute("CREATE TABLE new.t(x)")
        connection.execute("DETACH new")
        connection.execute("VACUUM INTO ?", (str(tmp_path / "copy"),))
    heliosvfs.connect(tmp_path / "copy", key=KEY, create=False).close()


def test_attach_with_a_key_clause_never_makes_or_opens_a_plain_file(tmp_path: Path) -> None:
    """SQLite accepts the clause and ignores it; the error names what works instead."""
    heliosvfs.connect(tmp_path / "other", key=b"o" * 32).close()
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        with pytest.raises(heliosvfs.KeyUnavailableError, match=r"Connection.attach"):
            connection.execute("ATTACH ? AS other KEY 'o'", (str(tmp_path / "other"),))
        assert [name for _, name, _ in connection.execute("PRAGMA database_list")] == ["main"]
        connection.execute("ATTACH ? AS new KEY 'n'", (str(tmp_path / "new"),))
        assert connection.execute("SELECT * FROM new.sqlite_schema").fetchall() == []
        for statement in ("CREATE TABLE new.t(x)", "PRAGMA new.user_version = 1"):
            with pytest.raises(heliosvfs.KeyUnavailableError, match=r"Connection.attach"):
                connection.execute(statement)
            assert (tmp_path / "new").read_bytes() == b""
    heliosvfs.default_keyring.add("other's key", b"o" * 32)
    try:
        with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
            connection.execute("ATTACH ? AS other", (f"file:{tmp_path}/other?heliosvfs_key=other's%20key",))
            connection.execute("CREATE TABLE other.t(x)")
            connection.execute("ATTACH ? AS newer", (f"file:{tmp_path}/newer?heliosvfs_key=other's%20key",))
            with pytest.raises(heliosvfs.RefusedWriteError, match=r"Connection.attach"):  # it would leave no room for seals
                connection.execute("CREATE TABLE newer.t(x)")
            assert (tmp_path / "newer").read_bytes() == b""
    finally:
        heliosvfs.default_keyring.discard("other's key")


def test_vacuum_into_seals_the_copy_under_the_connections_key(tmp_path: Path) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key="the passphrase", page_size=1024)) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES('copied')")
        connection.execute("VACUUM INTO ?", (str(tmp_path / "same"),))
        connection.vacuum_into(tmp_path / "other", key=b"o" * 32)
    for name, key in (("same", "the passphrase"), ("other", b"o" * 32)):
        with closing(heliosvfs.connect(tmp_path / name, key=key, create=False)) as copy:
            assert copy.execute("SELECT x FROM t").get == "copied"
    with pytest.raises(heliosvfs.WrongKeyError):
        heliosvfs.connect(tmp_path / "other", key="the passphrase")


def test_page_size_of_an_existing_database_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.pragma("page_size", 4096)
        with pytest.raises(heliosvfs.UsageError, match="encrypt --page-size"):
            connection.pragma("page_size", 8192)


def test_a_hook_that_writes_first_does_not_undo_what_connect_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`apsw.bestpractice` sets WAL in a hook, by which SQLite writes the first page."""
    hooks = [*apsw.connection_hooks, apsw.bestpractice.connection_wal]
    monkeypatch.setattr(apsw, "connection_hooks", hooks)
    told = {"page_size": 1024, "auto_vacuum": "full", "encoding": "UTF-16le"}
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, **told)) as connection:  # type: ignore[arg-type]
        assert [connection.pragma(name) for name in told] == [1024, 1, "UTF-16le"]
        connection.execute("CREATE TABLE t(x)")


def test_a_cost_outside_the_limits_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(heliosvfs.UsageError, match="argon2id parameters"):
        heliosvfs.connect(tmp_path / "db", key="a passphrase", settings=heliosvfs.KdfSettings(memory_kib=1))
    assert not list(tmp_path.iterdir())
