"""`python -m heliosvfs.run` and `python -m heliosvfs.dbapi2`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sqlite3, sys
from sqlite3 import dbapi2
from sqlite3.dbapi2 import Row
import neighbour

con = sqlite3.connect(sys.argv[1])
with con:
    con.execute("CREATE TABLE IF NOT EXISTS t(x)")
    con.execute("INSERT INTO t VALUES(?)", (neighbour.NAME,))
print(__name__, sys.argv[1:], sqlite3.__name__, dbapi2 is sqlite3, Row is sqlite3.Row, con.execute("SELECT x FROM t").fetchall())
"""


def run(folder: Path, *arguments: str, key: bytes | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"HELIOSVFS_KEY": key.hex()} if key else {})}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def program_in(folder: Path) -> Path:
    folder.mkdir()
    (folder / "neighbour.py").write_text("NAME = 'patient'\n")
    script = folder / "script.py"
    script.write_text(PROGRAM)
    return script


def test_an_unchanged_program_runs_encrypted(tmp_path: Path, key: bytes) -> None:
    script = program_in(tmp_path / "program")
    done = run(tmp_path, "heliosvfs.run", str(script), "app.db", "--flag", key=key)
    assert done.stdout == "__main__ ['app.db', '--flag'] heliosvfs.dbapi2 True True [('patient',)]\n", done.stderr
    assert b"patient" not in (tmp_path / "app.db").read_bytes()


def test_an_unchanged_module_runs_encrypted(tmp_path: Path, key: bytes) -> None:
    program_in(tmp_path / "program")
    done = run(tmp_path / "program", "heliosvfs.run", "-m", "script", "app.db", key=key)
    assert done.stdout == "__main__ ['app.db'] heliosvfs.dbapi2 True True [('patient',)]\n", done.stderr


def test_without_a_key_the_program_is_told(tmp_path: Path) -> None:
    script = program_in(tmp_path / "program")
    done = run(tmp_path, "heliosvfs.run", str(script), "app.db")
    assert done.returncode == 1
    assert "KeyUnavailableError" in done.stderr
    assert "HELIOSVFS_KEY_FILE" in done.stderr


def test_the_exit_status_is_that_of_the_program(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("raise SystemExit(5)\n")
    assert run(tmp_path, "heliosvfs.run", "script.py").returncode == 5


def test_a_wrong_command_line_is_told_so(tmp_path: Path) -> None:
    for arguments in ((), ("-m",), ("--unknown",), ("missing.py",)):
        done = run(tmp_path, "heliosvfs.run", *arguments)
        assert done.returncode == 2
        assert "usage" in done.stderr or "no such program" in done.stderr
    assert run(tmp_path, "heliosvfs.run", "--help").returncode == 0


def test_the_shell_of_the_module_executes_statements(tmp_path: Path, key: bytes) -> None:
    assert run(tmp_path, "heliosvfs.dbapi2", "app.db", "CREATE TABLE t(x)", key=key).returncode == 0
    assert run(tmp_path, "heliosvfs.dbapi2", "app.db", "SELECT count(*) FROM t", key=key).stdout == "(0,)\n"
    failed = run(tmp_path, "heliosvfs.dbapi2", "app.db", "SELECT", key=key)
    assert failed.returncode == 1
    assert failed.stderr.startswith("OperationalError (SQLITE_ERROR): ")


def test_a_program_that_prefers_pysqlite3_gets_the_same(tmp_path: Path, key: bytes) -> None:
    (tmp_path / "pysqlite3.py").write_text("raise ImportError('another SQLite, in the clear')\n")
    (tmp_path / "script.py").write_text(
        "import pysqlite3, pysqlite3.dbapi2\nprint(pysqlite3.__name__, pysqlite3.dbapi2 is pysqlite3)\n"
    )
    done = run(tmp_path, "heliosvfs.run", "script.py", key=key)
    assert done.stdout.split() == ["heliosvfs.dbapi2", "True"], done.stderr
