"""The command line, as real processes: what it prints, how it exits, and that keys never stand in its arguments."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

import heliosvfs

CHINOOK = Path(__file__).parents[3] / "shared" / "data" / "chinook.sqlite"
PROMPT = re.compile(rb"(?:assphrase|again): ")
PASSPHRASE = "correct horse battery staple"


def run(*arguments: object, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "heliosvfs", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **environment},
    )


def run_with_terminal(answers: list[str], *arguments: object) -> tuple[int, str]:
    """Run it with a terminal, and type ``answers`` at its prompts."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - the child
        os.execv(sys.executable, [sys.executable, "-m", "heliosvfs", *map(str, arguments)])
    output = b""
    waiting = list(answers)
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:
            break
        if not chunk:
            break
        output += chunk
        if waiting and len(PROMPT.findall(output)) > len(answers) - len(waiting):
            os.write(terminal, waiting.pop(0).encode() + b"\n")
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output.decode()


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Return a plain database: Chinook where it is beside the checkout, else one with tables like its."""
    path = tmp_path / "plain.db"
    if CHINOOK.exists():
        shutil.copy(CHINOOK, path)
        return path
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE Track(TrackId INTEGER PRIMARY KEY, Name TEXT); CREATE TABLE loose(a, b); CREATE INDEX i ON loose(b);"
            "CREATE VIEW v AS SELECT * FROM Track; PRAGMA user_version = 5"
        )
        connection.executemany("INSERT INTO Track(Name) VALUES(?)", ((f"Track number {n}",) for n in range(3500)))
        connection.executemany("INSERT INTO loose VALUES(?, ?)", ((n, n * 2) for n in range(500)))
        connection.execute("DELETE FROM loose WHERE a % 3 = 0")
        connection.commit()
    return path


@pytest.fixture
def encrypted(plain: Path, key_file: Path) -> Path:
    path = plain.with_name("encrypted.db")
    done = run("encrypt", plain, path, "--key-file", key_file)
    assert done.returncode == 0, done.stderr
    return path


def dump(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall()
        return [
            connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2").fetchall(),
            {name: connection.execute(f'SELECT rowid, * FROM "{name}" ORDER BY rowid').fetchall() for (name,) in tables},
            connection.execute("PRAGMA user_version").fetchall(),
        ]


def test_a_database_comes_back_equal_rowids_included(plain: Path, encrypted: Path, key_file: Path) -> None:
    original = plain.read_bytes()
    back = plain.with_name("back.db")
    done = run("check", encrypted, "--key-file", key_file)
    assert (done.returncode, "all is well" in done.stdout) == (0, True), done.stderr
    assert run("decrypt", encrypted, back, "--key-file", key_file).returncode == 0
    assert dump(back) == dump(plain)
    assert plain.read_bytes() == original
    assert encrypted.read_bytes().startswith(b"heliosvfs")


def test_the_shell_runs_sql_and_commands_from_arguments_and_from_standard_input(encrypted: Path, key_file: Path) -> None:
    done = run("shell", encrypted, "SELECT count(*) FROM Track", ".tables", "--key-file", key_file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "3503" if CHINOOK.exists() else "3500"
    assert "Track" in done.stdout.splitlines()
    done = run("shell", encrypted, "--key-file", key_file, stdin="SELECT 6 * 7;\n.tables Track\n.help\n")
    assert "42" in done.stdout.splitlines()
    done = run("shell", encrypted, "SELECT no_such_column", "--key-file", key_file)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [".backup {}", ".backup main {}", ".restore {}"])
def test_the_shell_copies_nothing_into_the_clear(encrypted: Path, key_file: Path, tmp_path: Path, command: str) -> None:
    for done in (
        run("shell", encrypted, command.format(tmp_path / "copy.db"), "--key-file", key_file),
        run("shell", encrypted, "--key-file", key_file, stdin=command.format(tmp_path / "copy.db") + "\n"),
    ):
        assert done.returncode == 1
        assert "use `heliosvfs" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "copy.db").exists()


@pytest.mark.parametrize("script", ["SELECT no_such_column;\n", ".nosuch\n", "SELECT 1;\n.read nosuch\nSELECT 2;\n"])
def test_a_script_that_fails_says_so(encrypted: Path, key_file: Path, script: str) -> None:
    done = run("shell", encrypted, "--key-file", key_file, stdin=script)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_the_history_of_the_shell_has_no_key(encrypted: Path, key_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "heliosvfs", "shell", str(encrypted), "--key-file", str(key_file)]
    child, terminal = pty.fork()
    if not child:
        os.execve(sys.executable, command, {**os.environ, "HOME": str(tmp_path), "TERM": "dumb"})
    lines = [
        "SELECT 'harmless';",
        "PRAGMA key = 'SECRET1';",
        "ATTACH 'x' AS x KEY 'SECRET2';",
        "pragma ReKey='SECRET3';",
        ".exit",
    ]
    for line in lines:
        os.write(terminal, f"{line}\n".encode())
    with suppress(OSError):  # the terminal is gone with the child
        while os.read(terminal, 4096):
            pass
    os.waitpid(child, 0)
    os.close(terminal)
    history = (tmp_path / ".sqlite_history").read_text()
    assert "harmless" in history
    assert "SECRET" not in history


def test_the_shell_does_not_leave_for_another_file(encrypted: Path, key_file: Path, tmp_path: Path) -> None:
    done = run("shell", encrypted, f".open {tmp_path}/other.db", "CREATE TABLE leaked(x)", "--key-file", key_file)
    assert done.returncode == 1
    assert "another shell" in done.stderr
    assert not (tmp_path / "other.db").exists()


def test_info_works_without_the_key_and_says_that_it_is_unverified(encrypted: Path, key_file: Path) -> None:
    without = json.loads(run("info", encrypted, "--json").stdout)
    verified = json.loads(run("info", encrypted, "--json", "--key-file", key_file).stdout)
    assert (without.pop("verified"), verified.pop("verified")) == (False, True)
    assert without == verified
    assert without["slots"][0]["kdf"] == "hkdf-sha256"
    assert "hkdf-sha256" in run("info", encrypted).stdout


def test_check_names_the_damaged_page_its_offset_and_its_table(encrypted: Path, key_file: Path) -> None:
    data = bytearray(encrypted.read_bytes())
    data[-2000] ^= 1
    encrypted.write_bytes(data)
    done = run("check", encrypted, "--key-file", key_file, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (1, False)
    (bad,) = report["bad_pages"]
    assert bad["offset"] == len(data) - 4096
    assert bad["owner"].split()[0] in ("table", "index")
    assert str(bad["offset"]) in run("check", encrypted, "--key-file", key_file).stdout


def test_salvage_saves_what_is_left(encrypted: Path, key_file: Path) -> None:
    saved = encrypted.with_name("saved.db")
    done = run("salvage", encrypted, saved, "--key-file", key_file)
    assert done.returncode == 0, done.stderr
    data = bytearray(encrypted.read_bytes())
    pages = (len(data) - 32768) // 4096
    for page in range(pages // 2, pages - 2, 5):
        data[32768 + page * 4096 + 9] ^= 1
    encrypted.write_bytes(data)
    again = encrypted.with_name("again.db")
    done = run("salvage", encrypted, again, "--key-file", key_file, "--json")
    assert done.returncode == 1, "something is missing, and the exit status says so"
    assert json.loads(done.stdout)["complete"] is False
    done = run("check", again, "--key-file", key_file)
    assert done.returncode == 0, done.stdout


def test_keys_are_added_listed_changed_and_revoked(encrypted: Path, key_file: Path) -> None:
    environment = {"ADMIN": PASSPHRASE, "NEXT": "another passphrase"}
    admin = ("--key-env", "ADMIN", "--passphrase")
    done = run(
        "key",
        "add",
        encrypted,
        "--label",
        "admin",
        "--key-file",
        key_file,
        "--new-key-env",
        "ADMIN",
        "--new-passphrase",
        **environment,
    )
    assert done.returncode == 0, done.stderr
    slots = json.loads(run("key", "list", encrypted, *admin, "--json", **environment).stdout)["slots"]
    assert [slot["label"] for slot in slots] == ["first", "admin"]
    assert run("key", "revoke", encrypted, "--label", "first", *admin, **environment).returncode == 0
    assert run("check", encrypted, "--key-file", key_file).returncode == 1
    done = run("key", "change", encrypted, *admin, "--new-key-env", "NEXT", "--new-passphrase", **environment)
    assert done.returncode == 0, done.stderr
    assert run("check", encrypted, *admin, **environment).returncode == 1
    assert run("check", encrypted, "--key-env", "NEXT", "--passphrase", **environment).returncode == 0
    done = run("key", "revoke", encrypted, "--label", "admin", "--key-env", "NEXT", "--passphrase", **environment)
    assert (done.returncode, "last" in done.stderr) == (2, True)


def test_a_passphrase_is_asked_for_twice_when_it_is_new(plain: Path, tmp_path: Path) -> None:
    status, output = run_with_terminal([PASSPHRASE, PASSPHRASE], "encrypt", plain, tmp_path / "out.db")
    assert status == 0, output
    assert PASSPHRASE not in output
    status, output = run_with_terminal([PASSPHRASE], "check", tmp_path / "out.db")
    assert (status, "all is well" in output) == (0, True), output
    status, output = run_with_terminal([PASSPHRASE, "a slip"], "encrypt", plain, tmp_path / "other.db")
    assert (status, "differ" in output) == (2, True)
    assert not (tmp_path / "other.db").exists()


def test_demo_holds_what_it_claims(tmp_path: Path, plain: Path) -> None:
    done = run("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of that held" in done.stdout
    done = run("demo", "--from", plain, "--keep", tmp_path / "kept")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run("check", tmp_path / "kept" / "clinic.db", "--key-file", tmp_path / "kept" / "passphrase.txt", "--passphrase")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("check", "{db}", "--key-file", "{other}"), 1, "opens none of the 1 key slots"),
        (("check", "{db}", "--key-env", "HELIOS_NOT_SET"), 1, "is not set"),
        (("check", "{db}"), 2, "no terminal"),
        (("check", "{db}", "--key-file", "{other}", "--key-env", "X"), 2, "one source"),
        (("check", "{plain}", "--key-file", "{key}"), 1, "plain SQLite database"),
        (("check", "{random}", "--key-file", "{key}"), 1, "not a heliosvfs database"),
        (("check", "{empty}", "--key-file", "{key}"), 1, "is empty"),
        (("check", "{missing}", "--key-file", "{key}"), 2, "does not exist"),
        (("check", "{db}", "--key-file", "{shared}"), 1, "chmod 600"),
        (("check", "{db}", "--key-file", "{short}"), 1, "no key"),
        (("check", "{future}", "--key-file", "{key}"), 1, "upgrade"),
        (("check", "{cut}", "--key-file", "{key}"), 1, "truncated"),
        (("info", "{plain}"), 1, "plain SQLite database"),
        (("encrypt", "{db}", "{missing}", "--key-file", "{key}"), 1, "is encrypted by heliosvfs already"),
        (("encrypt", "{plain}", "{db}", "--key-file", "{key}"), 2, "exists already"),
        (("encrypt", "{plain}", "{missing}/x", "--key-file", "{key}"), 2, "folder"),
        (("encrypt", "{plain}", "{missing}", "--page-size", "1000", "--key-file", "{key}"), 2, "power of two"),
        (("decrypt", "{db}", "{missing}", "--key-command", "false"), 1, "exit status 1"),
        (("decrypt", "{db}", "{missing}", "--key-command", "no-such-command"), 1, "can't be started"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_each_mistake_has_its_own_message_and_exit_status(
    encrypted: Path, plain: Path, key_file: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    names = {name: tmp_path / name for name in ("other", "random", "empty", "missing", "shared", "short", "future", "cut")}
    names["other"].write_bytes(os.urandom(32))
    names["other"].chmod(0o600)
    names["shared"].write_bytes(os.urandom(32))
    names["shared"].chmod(0o644)
    names["short"].write_bytes(b"12345")
    names["short"].chmod(0o600)
    names["random"].write_bytes(os.urandom(5000))
    names["empty"].touch()
    data = bytearray(encrypted.read_bytes())
    names["cut"].write_bytes(data[:32768])
    for copy in (0, 16384):
        data[copy + 17] = 2
        data[copy + 16352 : copy + 16384] = hashlib.sha256(data[copy : copy + 16352]).digest()
    names["future"].write_bytes(data)
    before = encrypted.read_bytes()
    done = run(*(argument.format(db=encrypted, plain=plain, key=key_file, **names) for argument in arguments))
    assert done.returncode == status, done.stderr
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert key_file.read_bytes().hex() not in done.stdout + done.stderr
    assert encrypted.read_bytes() == before
    assert not names["missing"].exists()


def test_without_its_dependencies_the_command_says_what_to_install() -> None:
    script = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name: None if name == 'typer' else find(name)\n"
        "import heliosvfs.cli; heliosvfs.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "heliosvfs[cli]" in done.stderr


def test_the_version_names_all_three() -> None:
    assert heliosvfs.__version__ in run("--version").stdout
