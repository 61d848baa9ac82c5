"""What goes wrong is told apart, each with the file, what to do next, and never a key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.superblock import COPY_SIZE
from tests.tamper.samples import flip, forge, piece, put, rehash

PASSPHRASE = "correct horse battery staple"
KEY = bytes(range(100, 132))
CHEAP = heliosvfs.KdfSettings(memory_kib=8192, passes=1, lanes=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(heliosvfs.connect(tmp_path / "the.db", key=KEY, journal_mode="delete")) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(20000))")
        connection.add_key(PASSPHRASE, label="people", settings=CHEAP)
    return tmp_path / "the.db"


def of_version_2(path: Path) -> None:
    for index in (0, 1):
        put(path, index * COPY_SIZE + 16, b"\0\2")
        put(path, index * COPY_SIZE, rehash(bytearray(piece(path, index * COPY_SIZE, COPY_SIZE))))


def with_an_unknown_feature(path: Path) -> None:
    forge(path, lambda document: document["features"].update(incompatible=["zoned-pages"]))


def plain(path: Path) -> None:
    path.unlink()
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("CREATE TABLE t(x)")


STATES: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "plain": (plain, heliosvfs.FormatError, "heliosvfs encrypt"),
    "empty": (lambda path: path.write_bytes(b""), heliosvfs.FormatError, "empty"),
    "random": (lambda path: path.write_bytes(os.urandom(50000)), heliosvfs.FormatError, "not a heliosvfs database"),
    "text": (lambda path: path.write_text("a shopping list\n" * 9), heliosvfs.FormatError, "not a heliosvfs database"),
    "a later version": (of_version_2, heliosvfs.UnsupportedVersionError, "upgrade"),
    "an unknown feature": (with_an_unknown_feature, heliosvfs.UnsupportedVersionError, "zoned-pages"),
    "truncated in the pages": (lambda path: os.truncate(path, 2 * COPY_SIZE + 8192), heliosvfs.TamperedError, "truncated"),
    "truncated before the pages": (lambda path: os.truncate(path, 2 * COPY_SIZE), heliosvfs.TamperedError, "truncated"),
    "truncated in page 1": (lambda path: os.truncate(path, 2 * COPY_SIZE + 700), heliosvfs.TamperedError, "end of the file"),
    "both superblocks damaged": (
        lambda path: [flip(path, 100), flip(path, COPY_SIZE + 100)],
        heliosvfs.TamperedError,
        "backup",
    ),
    "page 1 damaged": (lambda path: flip(path, 2 * COPY_SIZE + 300), heliosvfs.TamperedError, "page 1 at offset 32768"),
}


def doors(path: Path, key: object) -> list[Callable[[], object]]:
    """Return the ways to open a database: each must tell the same."""

    def by_attach() -> None:
        with closing(heliosvfs.connect(path.with_name("other"), key=bytes(32))) as connection:
            connection.attach(path, "second", key=key, create=False)  # type: ignore[arg-type]
            connection.execute("SELECT * FROM second.t").fetchall()

    def by_name() -> None:
        keyring = heliosvfs.Keyring()
        keyring.add("its key", key)  # type: ignore[arg-type]
        vfs = heliosvfs.HeliosVFS("with a keyring", keyring=keyring)
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        try:
            with closing(apsw.Connection(f"file:{path}?heliosvfs_key=its%20key", flags=flags, vfs=vfs.name)) as connection:
                connection.execute("SELECT * FROM t").fetchall()
        finally:
            vfs.unregister()

    def by_connect() -> None:
        with closing(heliosvfs.connect(path, key=key, create=False)) as connection:  # type: ignore[arg-type]
            connection.execute("SELECT * FROM t").fetchall()

    return [by_connect, by_attach, by_name]


@pytest.mark.parametrize("state", STATES)
def test_each_state_of_a_file_has_its_own_error_and_stays(path: Path, state: str) -> None:
    bring, error, says = STATES[state]
    bring(path)
    before = path.read_bytes()
    for door in doors(path, KEY):
        if state == "empty" and door.__name__ == "by_name":
            continue  # an empty file is an empty database to SQLite; only create=False refuses it
        if state == "truncated in the pages" and door.__name__ != "by_connect":
            error, says = apsw.CorruptError, "malformed"  # SQLite's own: only connect() looks into what it means
        with pytest.raises(error) as caught:
            door()
        assert type(caught.value) is error
        assert error is apsw.CorruptError or str(path) in str(caught.value)
        assert says in str(caught.value)
        assert path.read_bytes() == before


@pytest.mark.parametrize("key", ["the wrong passphrase", bytes(32)], ids=["passphrase", "raw key"])
def test_a_wrong_key_is_told_from_damage_and_is_not_repeated(path: Path, key: str | bytes) -> None:
    before = path.read_bytes()
    for door in doors(path, key):
        with pytest.raises(heliosvfs.WrongKeyError) as caught:
            door()
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert str(path) in shown
        assert "wrong passphrase" not in shown
        assert bytes(32).hex() not in shown
    assert path.read_bytes() == before


def test_a_kind_of_key_that_no_slot_takes_is_told(tmp_path: Path) -> None:
    """A passphrase for a database that only raw keys open, and the other way round."""
    heliosvfs.connect(tmp_path / "raw", key=KEY).close()
    heliosvfs.connect(tmp_path / "phrase", key=PASSPHRASE, settings=CHEAP).close()
    with pytest.raises(heliosvfs.WrongKeyError, match="no key slot for a passphrase"):
        heliosvfs.connect(tmp_path / "raw", key=PASSPHRASE)
    with pytest.raises(heliosvfs.WrongKeyError, match="no key slot for a raw key"):
        heliosvfs.connect(tmp_path / "phrase", key=KEY)


def test_a_missing_key_is_told_with_the_ways_to_give_one(path: Path) -> None:
    for open_it in (lambda: heliosvfs.connect(path), lambda: check(path)):
        with pytest.raises(heliosvfs.KeyUnavailableError) as caught:
            open_it()
        for way in ("connect(path, key=...)", "heliosvfs_key=NAME", "Connection.attach", "PRAGMA key", str(path)):
            assert way in str(caught.value)


def test_without_a_key_no_empty_file_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with pytest.raises(heliosvfs.KeyUnavailableError, match=r"would be created without a key.*connect\(path, key=\.\.\.\)"):
        heliosvfs.connect(path)
    assert list(tmp_path.iterdir()) == []
    path.touch()
    with pytest.raises(heliosvfs.KeyUnavailableError):
        heliosvfs.connect(path)
    assert path.read_bytes() == b""
    keyring = heliosvfs.Keyring(default=KEY)
    vfs = heliosvfs.HeliosVFS("with a default", keyring=keyring)
    try:
        heliosvfs.connect(tmp_path / "known.db", vfs="with a default").close()
    finally:
        vfs.unregister()
    heliosvfs.default_keyring.add("a new one", KEY)
    try:
        heliosvfs.connect(f"file:{tmp_path}/named.db?heliosvfs_key=a%20new%20one").close()
    finally:
        heliosvfs.default_keyring.discard("a new one")
    assert {file.name for file in tmp_path.iterdir()} >= {"known.db", "named.db"}


def test_a_name_that_is_not_registered_is_told(path: Path) -> None:
    with pytest.raises(heliosvfs.KeyUnavailableError, match="no key named 'misspelt'"):
        heliosvfs.connect(f"file:{path}?heliosvfs_key=misspelt")


@pytest.mark.parametrize("key", [5, 1.5, [KEY], object()], ids=lambda key: type(key).__name__)
def test_what_is_no_key_is_told_before_a_file_is_touched(tmp_path: Path, key: object) -> None:
    with pytest.raises(heliosvfs.UsageError, match="passphrase"):
        heliosvfs.connect(tmp_path / "db", key=key)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


class _SecretInText:
    def secret(self) -> str:
        return "a passphrase in plain text"


def test_a_key_source_that_gives_no_secret_is_told(tmp_path: Path) -> None:
    """A source of the caller's own making: what it gave is not shown."""
    with pytest.raises(heliosvfs.HeliosError) as caught:
        heliosvfs.connect(tmp_path / "db", key=_SecretInText())  # type: ignore[arg-type]
    assert "plain text" not in str(caught.value)


def test_a_folder_or_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(heliosvfs.UsageError, match="is a folder"):
        heliosvfs.connect(tmp_path, key=KEY)
    with pytest.raises(heliosvfs.UsageError, match="folder does not exist"):
        heliosvfs.connect(tmp_path / "missing" / "db", key=KEY)


OPEN_AS_NOBODY = """
import json, os, sys, heliosvfs
os.setgid(65534)
os.setuid(65534)
found = []
for path, options in json.loads(sys.argv[1]):
    try:
        connection = heliosvfs.connect(path, key=bytes(range(100, 132)), **options)
        rows = connection.execute("SELECT count(*) FROM t").get
        connection.close()
        found.append(["opened", rows])
    except Exception as error:
        found.append([type(error).__name__, str(error)])
print(json.dumps(found))
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_files_and_folders_without_permission_are_told(tmp_path: Path, mode: str) -> None:
    """For another user than root: a file that may only be read opens for reading, and what can't be opened is named."""
    for folder in tmp_path.parents:
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    for name, mode_bits in (("readable", 0o644), ("secret", 0o600)):
        with closing(heliosvfs.connect(tmp_path / name, key=KEY, journal_mode=mode)) as connection:
            connection.execute("CREATE TABLE t(x)")
        (tmp_path / name).chmod(mode_bits)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    asked = [(str(tmp_path / name), options) for name in ("readable", "secret", "new") for options in ({}, {"readonly": True})]
    done = subprocess.run([sys.executable, "-c", OPEN_AS_NOBODY, json.dumps(asked)], capture_output=True, text=True, check=False)
    if "Permission denied" in done.stderr or "No module named" in done.stderr:
        pytest.skip("the other user may not read the program")
    found = json.loads(done.stdout)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    for (path, _), (kind, what) in zip(asked, found, strict=True):
        if path.endswith("readable") and mode == "delete":
            assert (kind, what) == ("opened", 0)
        else:
            assert kind == "UsageError", what
            assert path in what


def test_what_a_handler_can_do_with_an_error(path: Path) -> None:
    """SQLite's callers catch apsw's classes, ours catch ours: each error is both, with SQLite's own result code."""
    flip(path, 2 * COPY_SIZE + 4096 + 5)
    with pytest.raises(heliosvfs.TamperedError) as caught, closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("SELECT * FROM t").fetchall()
    assert isinstance(caught.value, apsw.IOError)
    assert caught.value.extendedresult == apsw.SQLITE_IOERR_DATA
    with pytest.raises(apsw.NotADBError) as wrong:
        heliosvfs.connect(path, key=bytes(32))
    assert wrong.value.result == apsw.SQLITE_NOTADB
    with pytest.raises(apsw.AuthError):
        heliosvfs.connect(path)


def test_nothing_of_a_secret_shows_in_a_repr() -> None:
    """Objects end up in logs."""
    keyring = heliosvfs.Keyring(default=PASSPHRASE)
    keyring.add("name", KEY)
    secret = heliosvfs.Secret.passphrase(PASSPHRASE)
    shown = [repr(keyring), repr(secret), str(secret), f"{secret}", repr(heliosvfs.Secret.raw(KEY))]
    assert all(PASSPHRASE not in text and repr(KEY) not in text and KEY.hex() not in text for text in shown)


def test_nothing_of_a_secret_shows_in_the_objects_of_an_open_database(path: Path) -> None:
    with closing(heliosvfs.connect(path, key=PASSPHRASE)) as connection:
        from heliosvfs.vfs import files_of  # noqa: PLC0415 - an object of the inside

        access = files_of(connection)[0].access
        presented = list(access.master.presented.values())
        shown = repr([access.master, presented, access.credential, access.superblock, vars(access)])
        secret = [PASSPHRASE, access.master.key.hex(), repr(bytes(access.master.key))]
        secret += [repr(bytes(one.kek)) for one in presented] + [one.kek.hex() for one in presented]
        assert presented
        for text in secret:
            assert text not in shown
            assert text.replace("b'", "bytearray(b'") not in shown
