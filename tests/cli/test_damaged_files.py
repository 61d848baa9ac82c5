"""What each command says of a file that is none, is damaged, or is something else: an error that names the cause."""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.cli.app import run
from heliosvfs.recovery_keys import parse

KEY = bytes(range(32))
START = 32768  # of the pages
COMMANDS = {
    "decrypt": ["decrypt", "FILE", "OUT"],
    "info": ["info", "FILE"],
    "check": ["check", "FILE"],
    "salvage": ["salvage", "FILE", "OUT"],
    "shell": ["shell", "FILE", "SELECT * FROM t"],
    "rotate": ["rotate", "FILE"],
    "backup": ["backup", "FILE", "OUT"],
    "restore": ["restore", "FILE", "OUT"],
    "key list": ["key", "list", "FILE"],
    "key recovery": ["key", "recovery", "FILE"],
    "audit verify": ["audit", "verify", "FILE"],
    "audit log": ["audit", "log", "FILE"],
    "audit export": ["audit", "export", "FILE", "OUT"],
    "signature verify": ["signature", "verify", "FILE"],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of an audited database of some forty pages, whose last one belongs to the log."""
    path = tmp_path_factory.mktemp("whole") / "db"
    with closing(heliosvfs.connect(path, key=KEY, audit=heliosvfs.audit.Policy())) as connection:
        connection.execute("CREATE TABLE t(x)")
        with connection:
            connection.executemany("INSERT INTO t VALUES(?)", (("x" * 500,) for _ in range(100)))
    return path.read_bytes()


@pytest.fixture
def run_on(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    """Return what runs a command on the file "db" with the key; it returns exit status, output and errors."""

    def run_it(name: str) -> tuple[int, str, str]:
        places = {"FILE": str(tmp_path / "db"), "OUT": str(tmp_path / "out")}
        words = [places.get(word, word) for word in COMMANDS[name]]
        monkeypatch.setattr(sys, "argv", ["heliosvfs", *words, "--key-file", str(key_file)])
        with pytest.raises(SystemExit) as ended:
            run()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run_it


def _flipped(data: bytes, *places: int) -> bytes:
    flipped = bytearray(data)
    for place in places:
        flipped[place] ^= 1
    return bytes(flipped)


def _plain(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t(x); INSERT INTO t VALUES(1)")


_STATES: dict[str, tuple[Callable[[bytes], bytes | None], int, str]] = {
    "missing": (lambda _: None, 2, "does not exist"),
    "empty": (lambda _: b"", 1, "is empty; there is no database in it"),
    "random": (lambda _: hashlib.shake_128(b"seed").digest(50_000), 1, "is not a heliosvfs database"),
    "cut in the header": (lambda data: data[:100], 1, "ends after 100 bytes: its creation was interrupted, or it was truncated"),
    "cut after the header": (lambda data: data[: START // 2], 1, "has been truncated"),
    "header gone": (lambda data: _flipped(data, 200, START // 2 + 200), 1, "both copies of the superblock are damaged"),
}


@pytest.mark.parametrize("state", _STATES)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_can_not_be_opened_is_told_and_left_alone(
    tmp_path: Path, whole: bytes, run_on: Callable[[str], tuple[int, str, str]], command: str, state: str
) -> None:
    make, status, message = _STATES[state]
    content = make(whole)
    if content is not None:
        (tmp_path / "db").write_bytes(content)
    ended, _, errors = run_on(command)
    assert (ended, len(errors.splitlines())) == (status, 1), errors
    assert message in errors
    assert {path.name for path in tmp_path.iterdir()} == {"key"} | ({"db"} if content is not None else set())
    assert content is None or (tmp_path / "db").read_bytes() == content


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_and_a_plain_database_are_told(
    tmp_path: Path, run_on: Callable[[str], tuple[int, str, str]], command: str
) -> None:
    (tmp_path / "db").mkdir()
    ended, _, errors = run_on(command)
    assert (ended, errors) == (2, f"heliosvfs: {tmp_path / 'db'} is a folder: there is no database in it\n")
    (tmp_path / "db").rmdir()
    _plain(tmp_path / "db")
    before = (tmp_path / "db").read_bytes()
    ended, _, errors = run_on(command)
    assert (ended, "is a plain SQLite database" in errors) == (1, True)
    assert (tmp_path / "db").read_bytes() == before


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "info"])
def test_a_page_that_is_gone_is_named_whatever_could_not_be_recorded_because_of_it(
    tmp_path: Path, whole: bytes, run_on: Callable[[str], tuple[int, str, str]], command: str
) -> None:
    (tmp_path / "db").write_bytes(whole[:-1000])
    ended, output, errors = run_on(command)
    told = output + errors
    assert ended == 1
    assert "reaches beyond the end of the file" in told or "pages: it was truncated" in told or command == "salvage"
    assert "no such savepoint" not in errors
    assert "cannot rollback" not in errors


def test_a_recovery_key_is_shown_even_if_it_can_not_be_recorded(
    tmp_path: Path, whole: bytes, run_on: Callable[[str], tuple[int, str, str]]
) -> None:
    (tmp_path / "db").write_bytes(whole[:-1000])
    _, output, _ = run_on("key recovery")
    shown = output.split("kept nowhere:")[1].split()
    recovery = parse("".join(shown[:2]))
    assert check(tmp_path / "db", key=recovery).pages


def test_a_damaged_copy_of_the_superblock_is_told_and_put_right_by_the_next_write(
    tmp_path: Path, whole: bytes, run_on: Callable[[str], tuple[int, str, str]]
) -> None:
    (tmp_path / "db").write_bytes(_flipped(whole, 200))
    ended, output, _ = run_on("check")
    assert (ended, "one copy of the superblock is damaged" in output) == (0, True)
    assert run_on("rotate")[0] == 0
    _, output, _ = run_on("check")
    assert "superblock" not in output


def test_what_is_encrypted_already_is_told(
    tmp_path: Path, whole: bytes, run_on: Callable[[str], tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "encrypt", ["encrypt", "FILE", "OUT"])
    (tmp_path / "db").write_bytes(whole)
    ended, _, errors = run_on("encrypt")
    assert (ended, "is encrypted by heliosvfs already" in errors) == (1, True)
    (tmp_path / "db").write_bytes(b"no database at all" * 100)
    assert "is not a plain SQLite database" in run_on("encrypt")[2]
