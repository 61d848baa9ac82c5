"""What each command says of names, rights and arguments that it can't work with: one line, a status, and nothing changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.cli.app import run
from heliosvfs.cli.output import visible

KEY = bytes(range(32))
KEYED = ["--key-file", "key"]
NOBODY = 65534
Outcome = tuple[int, str, str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an audited database, one with a journal, a plain one and two keys."""
    folder = tmp_path_factory.mktemp("made")
    with closing(heliosvfs.connect(folder / "db", key=KEY, audit=heliosvfs.audit.Policy(log_select=True))) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.execute("SELECT [x], '[/bold] gone' FROM [t]").fetchall()
        connection.execute("SELECT 'one\n99 forged', '\u202eturned'").fetchall()
    with closing(heliosvfs.connect(folder / "quiet", key=KEY, journal_mode="delete")) as connection:
        connection.execute("CREATE TABLE t(x)")
    with closing(sqlite3.connect(folder / "plain")) as plain:
        plain.executescript("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    for name, key in (("key", KEY), ("key2", KEY[::-1])):
        (folder / name).write_bytes(key)
        (folder / name).chmod(0o600)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of that folder, which is the current one."""
    folder = tmp_path / "here"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def helios(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return what runs a command; it returns exit status, output and errors."""
    assert here.is_dir()

    def run_it(*words: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["heliosvfs", *words])
        with pytest.raises(SystemExit) as ended:
            run()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run_it


def _content(folder: Path) -> dict[str, str]:
    return {
        os.fsencode(path.name).decode(errors="replace"): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.iterdir()
    }


_MAKERS = {
    "encrypt": ["encrypt", "plain", "OUT", *KEYED],
    "decrypt": ["decrypt", "quiet", "OUT", *KEYED],
    "salvage": ["salvage", "quiet", "OUT", *KEYED],
    "backup": ["backup", "quiet", "OUT", *KEYED],
    "restore": ["restore", "quiet", "OUT", *KEYED],
    "demo": ["demo", "--keep", "OUT"],
    "config init": ["config", "init", "--output", "OUT"],
    "audit make-key": ["audit", "make-key", "OUT", "--name", "example.com/audit"],
    "audit export": ["audit", "export", "db", "OUT", *KEYED],
}


@pytest.mark.parametrize("out", ["plain", "link", "loop", "key/out", "x" * 300])
@pytest.mark.parametrize("command", _MAKERS)
def test_a_place_that_is_taken_or_is_none_is_refused_in_one_line(
    here: Path, helios: Callable[..., Outcome], command: str, out: str
) -> None:
    (here / "link").symlink_to("nowhere")
    (here / "loop").symlink_to("loop")
    before = _content(here)
    status, _, errors = helios(*(out if word == "OUT" else word for word in _MAKERS[command]))
    assert (status, len(errors.splitlines())) == (1 if command == "audit make-key" and "/" not in out and len(out) < 9 else 2, 1)
    assert out in errors
    assert "Errno" not in errors
    assert _content(here) == before
    assert (here / "link").is_symlink()


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["check", "quiet", "--key-command", "cat 'key"], 2, "can't be taken apart into words: no closing quotation"),
        (["check", "quiet", "--key-command", " "], 2, "is empty"),
        (["check", "quiet", "--key-command", "yes"], 1, "prints more than 4096 bytes"),
        (["check", "pipe", *KEYED], 2, "pipe is no regular file: there is no database in it"),
        (["salvage", "pipe", "out", *KEYED], 2, "pipe is no regular file"),
        (["encrypt", "pipe", "out", *KEYED], 2, "pipe is no regular file"),
        (["shell", "pipe", "SELECT 1", "--create", *KEYED], 2, "pipe is no regular file"),
        (["info", "/dev/null"], 2, "/dev/null is no regular file"),
        (["check", "\udcff", *KEYED], 2, "is not valid UTF-8"),
        (["encrypt", "plain", "\udcfe", *KEYED], 2, "is not valid UTF-8"),
        (["audit", "search", "db", "\udcff", *KEYED], 2, "is not valid UTF-8"),
        (["audit", "log", "db", "--since", "yesterday", *KEYED], 2, "--since takes a time in UTC such as"),
        (["audit", "log", "db", "--until", "2026-07-31T10:00+02:00", *KEYED], 2, "--until takes a time in UTC"),
        (["audit", "verify", "db", "--checkpoint", "key", "--public-key", "x", *KEYED], 2, "this is no verifier key"),
        (["audit", "verify", "db", "--checkpoint", "none", "--public-key", "x", *KEYED], 2, "none: No such file"),
        (["audit", "checkpoint", "db", "--signing-key", "none", *KEYED], 1, "none can't be read: No such file"),
        (["audit", "checkpoint", "db", "--signing-key", "key", *KEYED], 1, "key can't be read as a signing key: it is none"),
        (["demo", "--from", "plain", "--config", "x.toml"], 2, "name one of them"),
    ],
)
def test_an_argument_that_can_not_be_used_is_told(
    here: Path, helios: Callable[..., Outcome], words: list[str], status: int, says: str
) -> None:
    os.mkfifo(here / "pipe")
    shutil.copy(here / "quiet", here / "\udcff")
    before = _content(here)
    ended, _, errors = helios(*words)
    assert (ended, len(errors.splitlines())) == (status, 1), errors
    assert says in errors
    assert {name: digest for name, digest in _content(here).items() if name != "db"} == {
        name: digest for name, digest in before.items() if name != "db"
    }


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "prune", "db", "--days", "99999999999", "--delete", *KEYED],
        ["audit", "export", "db", "out", "--after", "99999999999999999999", *KEYED],
        ["audit", "log", "db", "--limit", "99999999999999999999", *KEYED],
        ["audit", "tail", "db", "-n", "99999999999999999999", *KEYED],
        ["backup", "quiet", "out", "--retention-days", "inf", *KEYED],
        ["rotate", "quiet", "--timeout", "inf", *KEYED],
    ],
)
def test_a_number_beyond_all_bounds_is_a_wrong_argument(here: Path, helios: Callable[..., Outcome], words: list[str]) -> None:
    before = _content(here)
    status, _, errors = helios(*words)
    assert (status, "Invalid value" in errors) == (2, True)
    assert _content(here) == before


def test_what_the_log_shows_is_what_was_written(helios: Callable[..., Outcome]) -> None:
    """Rich takes [x] in a string for markup: such SQL was shown without it, or the command failed."""
    _, shown, _ = helios("audit", "log", "db", *KEYED)
    assert "SELECT [x], '[/bold] gone' FROM [t]" in shown
    assert "…" not in shown
    assert "'\\u202eturned'" in shown


def test_a_line_of_the_log_is_one_event(helios: Callable[..., Outcome]) -> None:
    _, shown, _ = helios("audit", "tail", "db", *KEYED)
    assert [int(line.split()[0]) for line in shown.splitlines()] == list(range(1, len(shown.splitlines()) + 1))
    assert "'one\\n99 forged'" in shown


def test_a_time_is_understood_to_its_beginning(helios: Callable[..., Outcome]) -> None:
    everything = helios("audit", "log", "db", "--since", "2000-01-01 00:00Z", "--json", *KEYED)[1]
    assert len(json.loads(everything)["events"]) > 3
    assert not json.loads(helios("audit", "log", "db", "--until", "2000", "--json", *KEYED)[1])["events"]
    first = json.loads(everything)["events"][0]["timestamp"]
    within = first[:16].replace("T", " ") + "Z"  # to the minute: the events of that minute are after its beginning
    assert json.loads(helios("audit", "log", "db", "--since", within, "--json", *KEYED)[1])["events"][0]["timestamp"] == first


def test_nothing_shown_moves_the_cursor() -> None:
    assert visible("a\x1b[2J\rb\u202e\udcff é\n") == "a\\x1b[2J\\rb\\u202e\\udcff é\n"
    assert visible("a\nb", keep="") == "a\\nb"


def test_a_terminal_without_the_characters_gets_escapes(here: Path) -> None:
    with closing(heliosvfs.connect("db", key=KEY, audit=heliosvfs.audit.Policy())) as connection:
        connection.execute("CREATE TABLE [übrig…](x)")
    for words in (["audit", "log", "db"], ["audit", "log", "db", "--json"], ["check", "quiet"], ["encrypt", "plain", "out"]):
        done = subprocess.run(
            [sys.executable, "-m", "heliosvfs", *words, *KEYED],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert (done.returncode, done.stderr) == (0, b""), done.stderr
        if "--json" in words:
            assert "CREATE TABLE [übrig…](x)" in {event["query"] for event in json.loads(done.stdout)["events"]}
    assert (here / "out").exists()


def test_a_key_that_is_due_is_never_passed_over(here: Path, helios: Callable[..., Outcome]) -> None:
    """One database with a name that SQLite can't open, and one that can't be recorded in, keep no other waiting."""
    shutil.copy(here / "quiet", here / "\udcff")
    os.mkfifo(here / "pipe")
    (here / "db-shm").mkdir()  # so SQLite reads the database and can't write it
    status, shown, _ = helios("rotate", "--due", ".", "--json", *KEYED)
    found = {entry["path"]: entry for entry in json.loads(shown)["databases"]}
    assert (status, sorted(found)) == (1, ["db", "quiet", "\udcff"])
    assert found["quiet"]["outcome"] == "not due"
    assert "not valid UTF-8" in found["\udcff"]["outcome"]
    assert found["db"]["failed"]
    assert helios("backups", ".")[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["signature", "verify", "db"], "The log is"),
        (["signature", "list", "db"], "The log is"),
        (["signer", "list", "db"], "enrolled"),
        (["key", "list", "db"], "first"),
        (["audit", "export", "db", "out"], ""),
    ],
)
def test_what_was_found_is_shown_even_if_it_can_not_be_recorded(
    here: Path, helios: Callable[..., Outcome], words: list[str], says: str
) -> None:
    (here / "db-shm").mkdir()  # so SQLite reads the database and can't write it
    status, shown, errors = helios(*words, *KEYED)
    assert (status, says in shown) == (1, True)
    assert "could not be written to the audit log" in errors or "out and its manifest are written, but" in errors
    assert (here / "out").exists() == ("export" in words)


def test_a_locked_database_is_told_with_what_to_do(here: Path, helios: Callable[..., Outcome]) -> None:
    before = _content(here)
    with closing(apsw.Connection("plain")) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        status, _, errors = helios("encrypt", "plain", "out", *KEYED)
    assert (status, errors) == (
        1,
        "heliosvfs: database is locked: another program is writing to it or keeps it for itself; try again when that is done\n",
    )
    assert _content(here) == before


@pytest.fixture
def as_nobody(here: Path) -> Iterator[Callable[..., Outcome]]:
    """Return what runs a command as somebody who may not write here, since root may write everywhere."""
    public = Path("/tmp") / f"heliosvfs-refusals-{os.getpid()}"  # noqa: S108 - pytest's own folders are closed to others
    shutil.copytree(here, public)
    for name in ("key", "key2"):
        os.chown(public / name, NOBODY, NOBODY)
    public.chmod(0o755)
    # what is imported late is imported before: nobody may not read the interpreter's own files everywhere
    script = """
import os, sys
import apsw.shell, typer, rich.traceback, zoneinfo
from heliosvfs.cli.app import app, run
import heliosvfs.rotation, heliosvfs.partials
apsw.shell.Shell(db=apsw.Connection(""))
sys.argv = ["heliosvfs", "config", "init"]
try:
    app()
except SystemExit:
    pass
sys.stdout.flush()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.argv = ["heliosvfs", *sys.argv_of_test]
run()
"""

    def run_it(*words: str) -> Outcome:
        before = _content(public)
        code = script.replace("sys.argv_of_test", repr(list(words)))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=public)
        assert _content(public) == before
        return done.returncode, done.stdout, done.stderr

    yield run_it
    shutil.rmtree(public)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs to become another user")
@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["key", "add", "quiet", "--label", "new", *KEYED, "--new-key-file", "key2"], 2, "its keys can't be changed"),
        (["key", "change", "quiet", *KEYED, "--new-key-file", "key2"], 2, "its keys can't be changed"),
        (["shell", "quiet", "INSERT INTO t VALUES(1)", *KEYED], 1, "its file or its folder may not be written by you"),
        (["check", "db", *KEYED], 2, "copy it and its -wal file elsewhere"),
        (["restore", "db", "../never", *KEYED], 2, "copy it and its -wal file elsewhere"),
        (["salvage", "quiet", "out", *KEYED], 2, "heliosvfs: out can't be made: its folder may not be written"),
        (["audit", "make-key", "out", "--name", "x"], 2, "out: Permission denied"),
        (["demo", "--keep", "out"], 2, "out: Permission denied"),
    ],
)
def test_what_may_not_be_written_is_named(as_nobody: Callable[..., Outcome], words: list[str], status: int, says: str) -> None:
    ended, _, errors = as_nobody(*words)
    assert (ended, len(errors.splitlines())) == (status, 1), errors
    assert says in errors
    assert "damaged" not in errors
