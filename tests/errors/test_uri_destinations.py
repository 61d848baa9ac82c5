"""A copy that is named by a URI: connect() would take it for another file than the one of that name, so it is refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs.backup import backup, restore
from heliosvfs.cli.app import run
from heliosvfs.convert import decrypt, encrypt
from heliosvfs.salvage import salvage

KEY = bytes(range(32))


def backed_up(dest: str) -> None:
    with closing(heliosvfs.connect("db", key=KEY)) as connection:
        backup(connection, dest)


COPIES: dict[str, Callable[[str], object]] = {
    "encrypt": lambda dest: encrypt("plain", dest, key=KEY),
    "decrypt": lambda dest: decrypt("db", dest, key=KEY),
    "backup": backed_up,
    "restore": lambda dest: restore("db", dest, key=KEY),
    "salvage": lambda dest: salvage("db", dest, key=KEY),
}
SOURCES = dict.fromkeys(COPIES, "db") | {"encrypt": "plain"}


@pytest.fixture
def here(tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with an encrypted database, the same in plain, and a key."""
    assert key_file.parent == tmp_path
    monkeypatch.chdir(tmp_path)
    with closing(heliosvfs.connect("db", key=KEY, journal_mode="delete")) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    decrypt("db", "plain", key=KEY)
    return tmp_path


@pytest.mark.parametrize("dest", ["file:copy", "file:copy?psow=1", "file:./copy", "file://localhost/tmp/copy"])
@pytest.mark.parametrize("copy", COPIES)
def test_it_is_refused_and_nothing_is_left(here: Path, copy: str, dest: str) -> None:
    before = sorted(os.listdir(here))
    with pytest.raises(heliosvfs.UsageError, match=r"is a URI, and a new file is named by its path: leave out `file:`"):
        COPIES[copy](dest)
    assert sorted(os.listdir(here)) == before


@pytest.mark.parametrize("copy", COPIES)
def test_the_command_refuses_it_before_it_asks_for_a_key(
    here: Path, copy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(os.listdir(here))
    monkeypatch.setattr(sys, "argv", ["heliosvfs", copy, SOURCES[copy], "file:copy"])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    assert "file:copy is a URI" in capsys.readouterr().err
    assert sorted(os.listdir(here)) == before


@pytest.mark.parametrize("dest", ["a?b#c%41", "x file:y", "File:copy", "./file:copy", "-wal", ":memory:"])
@pytest.mark.parametrize("copy", COPIES)
def test_any_other_name_is_taken_literally(here: Path, copy: str, dest: str) -> None:
    COPIES[copy](dest)
    assert [name for name in os.listdir(here) if name not in {"db", "plain", "key"}] == [os.path.basename(dest)]


@pytest.mark.parametrize("copy", COPIES)
def test_the_folder_that_was_current_at_the_beginning_holds(here: Path, copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's progress function, or another thread, may change it."""
    (here / "elsewhere").mkdir()

    def go(*_: object) -> None:
        monkeypatch.chdir(here / "elsewhere")

    with closing(heliosvfs.connect(here / "db", key=KEY)) as connection:
        calls: dict[str, Callable[[], object]] = {
            "encrypt": lambda: encrypt(here / "plain", "copy", key=KEY, progress=go),
            "decrypt": lambda: decrypt(here / "db", "copy", key=KEY, progress=go),
            "backup": lambda: backup(connection, "copy", progress=go),
            "restore": lambda: restore(here / "db", "copy", key=KEY, progress=go),
            "salvage": lambda: salvage(here / "db", "copy", key=KEY, progress=go),
        }
        calls[copy]()
    assert not os.listdir(here / "elsewhere")
    assert (here / "copy").exists()
