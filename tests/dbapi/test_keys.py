"""Where the key comes from, and what is refused without one."""

# ruff: noqa: ARG001 - each way to say the key takes what any of them needs

from __future__ import annotations

import os
import sqlite3 as stdlib
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import heliosvfs
import heliosvfs.dbapi2 as sqlite3

PLAIN = b"SQLite format 3\0"


def made(path: Path, **options: Any) -> None:
    with sqlite3.connect(path, **options) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t VALUES('a secret of the patient')")
    connection.close()


def read(path: Path, **options: Any) -> Any:
    connection = sqlite3.connect(path, **options)
    try:
        return connection.execute("SELECT x FROM t").fetchone()[0]
    finally:
        connection.close()


def test_a_database_is_encrypted(path: Path, key: bytes) -> None:
    made(path, key=key)
    content = path.read_bytes()
    assert not content.startswith(PLAIN)
    assert b"patient" not in content
    assert read(path, key=key) == "a secret of the patient"


def in_a_file(folder: Path, key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "key"
    file.write_bytes(key)
    file.chmod(0o600)
    monkeypatch.setenv("HELIOSVFS_KEY_FILE", str(file))


def in_a_variable(folder: Path, key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIOSVFS_KEY", key.hex())


def configured(folder: Path, key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    heliosvfs.configure(key=key)


@pytest.mark.parametrize("say", [in_a_file, in_a_variable, configured])
def test_a_program_that_says_nothing_gets_the_key(
    say: Callable[..., None], path: Path, key: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(tmp_path, key, monkeypatch)
    made(path)
    assert read(path) == "a secret of the patient"
    assert read(path, key=key) == "a secret of the patient"


def test_what_is_configured_comes_before_the_environment_and_the_call_before_both(
    path: Path, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIOSVFS_KEY", os.urandom(32).hex())
    heliosvfs.configure(key=key)
    made(path)
    assert read(path, key=key) == "a secret of the patient"
    heliosvfs.configure(key=os.urandom(32))
    assert read(path, key=key) == "a secret of the patient"
    with pytest.raises(heliosvfs.WrongKeyError):
        read(path)


def test_the_key_file_comes_before_the_key(path: Path, key: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIOSVFS_KEY", os.urandom(32).hex())
    in_a_file(tmp_path, key, monkeypatch)
    made(path)
    assert read(path, key=key) == "a secret of the patient"


def configuration(tmp_path: Path, key: bytes) -> Path:
    (tmp_path / "key").write_bytes(key)
    (tmp_path / "key").chmod(0o600)
    file = tmp_path / "heliosdb.toml"
    file.write_text(f'[encryption]\nkey_source = {{ File = "{tmp_path / "key"}" }}\n[audit]\nenabled = true\n')
    return file


def test_a_configuration_file_says_where_the_key_is(
    path: Path, key: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(path, key=key)
    file = configuration(tmp_path, key)
    assert read(path, config=file) == "a secret of the patient"
    monkeypatch.setenv("HELIOSDB_CONFIG", str(file))
    assert read(path) == "a secret of the patient"
    monkeypatch.delenv("HELIOSDB_CONFIG")
    heliosvfs.configure(config=file)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) > 1 FROM __audit_log").fetchone() == (1,)
    connection.close()


def test_a_configured_key_goes_before_that_of_the_configuration(path: Path, key: bytes, tmp_path: Path) -> None:
    made(path, key=key)
    file = configuration(tmp_path, os.urandom(32))
    with pytest.raises(heliosvfs.WrongKeyError):
        read(path, config=file)
    heliosvfs.configure(key=key, config=file)
    assert read(path) == "a secret of the patient"


def test_a_configuration_that_cannot_be_used_is_an_operational_error(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("[databse]\n")
    with pytest.raises(heliosvfs.ConfigError, match="did you mean 'database'"):
        heliosvfs.configure(config=file)
    monkeypatch.setenv("HELIOSDB_CONFIG", str(file))
    with pytest.raises(sqlite3.OperationalError, match="did you mean 'database'") as caught:
        sqlite3.connect(path)
    assert isinstance(caught.value, heliosvfs.ConfigError)
    assert not path.exists()


def test_databases_in_memory_and_temporary_ones_need_no_key() -> None:
    for where, options in ((":memory:", {}), ("", {}), ("file::memory:", {"uri": True}), ("file:x?mode=memory", {"uri": True})):
        connection = sqlite3.connect(where, **options)
        connection.execute("CREATE TABLE t(x)")
        connection.close()


def test_without_a_key_nothing_is_written(path: Path) -> None:
    connection = sqlite3.connect(path)
    with pytest.raises(heliosvfs.KeyUnavailableError, match="HELIOSVFS_KEY_FILE") as caught:
        connection.execute("CREATE TABLE t(x)")
    assert isinstance(caught.value, sqlite3.DatabaseError)
    connection.close()
    assert not path.exists() or not path.stat().st_size


def test_an_encrypted_database_without_its_key_says_what_to_do(path: Path, key: bytes) -> None:
    made(path, key=key)
    with pytest.raises(heliosvfs.KeyUnavailableError, match=r"no key was given.*heliosvfs\.configure"):
        read(path)


def test_pragma_key_opens_what_was_opened_without_a_key(path: Path, key: bytes) -> None:
    made(path, key=key)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)
    connection.close()


def test_a_plain_database_is_refused_with_the_command_that_converts_it(path: Path, key: bytes) -> None:
    plain = stdlib.connect(path)
    plain.execute("CREATE TABLE t(x)")
    plain.close()
    before = path.read_bytes()
    for options in ({}, {"key": key}):
        with pytest.raises(heliosvfs.FormatError, match="heliosvfs encrypt") as caught:
            sqlite3.connect(path, **options)
        assert isinstance(caught.value, sqlite3.DatabaseError)
        assert caught.value.sqlite_errorname == "SQLITE_NOTADB"
    assert path.read_bytes() == before


def test_a_wrong_key_is_both_our_error_and_that_of_sqlite3(path: Path, key: bytes) -> None:
    made(path, key=key)
    wrong = os.urandom(32)
    with pytest.raises(heliosvfs.WrongKeyError) as caught:
        sqlite3.connect(path, key=wrong)
    assert isinstance(caught.value, sqlite3.DatabaseError)
    assert type(caught.value).__name__ == "WrongKeyError"
    shown = "".join(traceback.format_exception(caught.value))
    assert wrong.hex() not in shown
    assert repr(wrong) not in shown


def test_attach_uses_the_key_of_the_connection(path: Path, key: bytes, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    made(other, key=key)
    connection = sqlite3.connect(path, key=key)
    connection.execute("ATTACH DATABASE ? AS other", (str(other),))
    assert connection.execute("SELECT count(*) FROM other.t").fetchone() == (1,)
    connection.execute(f"ATTACH '{tmp_path / 'new.db'}' AS new")
    connection.execute("CREATE TABLE new.t AS SELECT x FROM other.t")
    connection.close()
    assert read(tmp_path / "new.db", key=key) == "a secret of the patient"
    assert b"patient" not in (tmp_path / "new.db").read_bytes()


def test_attach_in_a_script_uses_the_key_of_the_connection_too(path: Path, key: bytes, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    connection = sqlite3.connect(path, key=key)
    connection.executescript(
        f"""
        -- attach comes later
        ;; CREATE TABLE attached(x);
        /* ; */ ATTACH '{new}' AS new;
        CREATE TABLE new.t(x); INSERT INTO new.t VALUES('a secret of the patient; attach');
        CREATE TRIGGER new.r AFTER INSERT ON t BEGIN SELECT 'attach'; END;; -- the end
        """
    )
    assert connection.execute("SELECT name FROM new.sqlite_schema").fetchall() == [("t",), ("r",)]
    with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere"):
        connection.executescript("INSERT INTO attached VALUES(1); INSERT INTO nowhere VALUES(1)")
    assert connection.execute("SELECT x FROM attached").fetchall() == [(1,)]
    connection.close()
    assert read(new, key=key) == "a secret of the patient; attach"


def test_attach_to_a_database_in_memory_uses_the_key_that_connect_would(path: Path, key: bytes) -> None:
    made(path, key=key)
    heliosvfs.configure(key=key)
    connection = sqlite3.connect(":memory:")
    connection.execute("ATTACH :file AS app", {"file": str(path)})
    assert connection.execute("SELECT x FROM app.t").fetchone() == ("a secret of the patient",)
    connection.close()


def test_attach_of_a_file_under_another_key_is_refused(path: Path, key: bytes, tmp_path: Path) -> None:
    made(tmp_path / "other.db", key=os.urandom(32))
    connection = sqlite3.connect(path, key=key)
    with pytest.raises(heliosvfs.WrongKeyError):
        connection.execute("ATTACH ? AS other", (str(tmp_path / "other.db"),))
    connection.close()


def test_a_database_in_memory_is_backed_up_into_an_encrypted_file_and_back(path: Path, key: bytes) -> None:
    memory, file = sqlite3.connect(":memory:"), sqlite3.connect(path, key=key)
    memory.executescript("CREATE TABLE t(x); INSERT INTO t VALUES('a secret of the patient')")
    memory.backup(file)
    file.close()
    assert b"patient" not in path.read_bytes()
    again, file = sqlite3.connect(":memory:"), sqlite3.connect(path, key=key)
    file.backup(again)
    assert again.execute("SELECT x FROM t").fetchone() == ("a secret of the patient",)
    for connection in (memory, file, again):
        connection.close()


def test_a_backup_to_pythons_own_sqlite3_is_plain(path: Path, key: bytes, tmp_path: Path) -> None:
    made(path, key=key)
    target = stdlib.connect(tmp_path / "plain.db")
    source = sqlite3.connect(path, key=key)
    if sys.version_info < (3, 11):
        with pytest.raises(sqlite3.NotSupportedError, match="iterdump"):
            source.backup(target)
        target.executescript("".join(source.iterdump()))
    else:
        source.backup(target)
    assert target.execute("SELECT x FROM t").fetchone() == ("a secret of the patient",)
    target.close()
    source.close()
    assert (tmp_path / "plain.db").read_bytes().startswith(PLAIN)


def test_pragmas_that_come_before_the_first_page_work_as_in_sqlite(path: Path, key: bytes) -> None:
    connection = sqlite3.connect(path, key=key)
    connection.execute("PRAGMA encoding = 'UTF-16le'")
    connection.execute("PRAGMA page_size = 8192")
    connection.execute("CREATE TABLE t(x)")
    connection.close()
    connection = sqlite3.connect(path, key=key)
    assert connection.execute("PRAGMA encoding").fetchone() == ("UTF-16le",)
    assert connection.execute("PRAGMA page_size").fetchone() == (8192,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


def test_a_file_name_that_looks_like_a_uri_is_a_file_name(tmp_path: Path, key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made(Path("file:app.db?mode=memory"), key=key)
    assert (tmp_path / "file:app.db?mode=memory").exists()
    connection = sqlite3.connect(f"file:{tmp_path}/file%3aapp.db%3fmode=memory?mode=ro", uri=True, key=key)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DROP TABLE t")
    connection.close()


@pytest.mark.parametrize(
    "clause",
    [
        "AS other KEY 'hunter2'",
        "AS 'other' key ?",
        "AS \"other\"\n  KEY x'00'",
        "AS /* KEY */ other -- AS\n KEY 'hunter2'",
        "AS :n KEY NULL",
    ],
)
@pytest.mark.parametrize("door", ["execute", "executescript"])
def test_attach_with_a_key_clause_is_refused_though_another_key_is_at_hand(
    path: Path, key: bytes, tmp_path: Path, clause: str, door: str
) -> None:
    with closing(sqlite3.connect(path, key=key)) as connection:
        with pytest.raises(heliosvfs.UsageError, match="heliosvfs_key") as caught:
            getattr(connection, door)(f"ATTACH '{tmp_path / 'other.db'}' {clause}")
        assert "hunter2" not in str(caught.value)
        assert not (tmp_path / "other.db").exists()
        connection.execute(f"ATTACH '{tmp_path / 'as a key KEY.db'}' AS KEY")
        connection.execute("ATTACH ':memory:' AS \"x' AS y KEY 'z\"")
