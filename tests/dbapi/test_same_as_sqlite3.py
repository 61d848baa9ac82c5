"""The same program gives the same results with Python's own sqlite3, in memory, on an encrypted file, and audited."""

from __future__ import annotations

import inspect
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import heliosvfs
import heliosvfs.dbapi2
import heliosvfs.opening
from tests.dbapi.programs import PROGRAMS, backups, dumps, run

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 has no blobs and error names before Python 3.11"),
    pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 35), reason="Python's own SQLite knows no RETURNING"),
]
AUDITED = [
    program for program in PROGRAMS if program not in (dumps, backups)
]  # a dump has the log in it; a backup would replace it
can_audit = pytest.mark.skipif("audit" not in inspect.signature(heliosvfs.opening.connect).parameters, reason="no audit= yet")


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "encrypted"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_gives_the_same_results(program: Callable[[Any, Any], Any], on_disk: bool, path: Path, key: bytes) -> None:
    expected = run(program, sqlite3, ":memory:")
    got = run(program, heliosvfs.dbapi2, path, key=key) if on_disk else run(program, heliosvfs.dbapi2, ":memory:")
    assert got == expected


@can_audit
@pytest.mark.parametrize("program", AUDITED, ids=lambda program: program.__name__)
def test_a_program_gives_the_same_results_when_it_is_audited(program: Callable[[Any, Any], Any], path: Path, key: bytes) -> None:
    assert run(program, heliosvfs.dbapi2, path, key=key, audit="hipaa") == run(program, sqlite3, ":memory:")


@can_audit
def test_each_statement_leaves_one_event(path: Path, key: bytes) -> None:
    connection = heliosvfs.dbapi2.connect(path, key=key, audit="hipaa")
    connection.execute("CREATE TABLE t(x)")
    connection.executemany("INSERT INTO t VALUES(?)", [(1,), (2,)])
    connection.execute("INSERT INTO t VALUES(3); -- and no more")
    connection.commit()
    with pytest.raises(heliosvfs.dbapi2.OperationalError, match="no such table"):
        connection.execute("INSERT INTO missing VALUES(1)")
    with pytest.raises(heliosvfs.dbapi2.DatabaseError, match="append-only"):
        connection.execute("DELETE FROM __audit_log")
    connection.close()
    reader = heliosvfs.connect(path, key=key)
    events = reader.execute("SELECT record ->> 4, record ->> 8 FROM __audit_log ORDER BY id").fetchall()
    reader.close()
    told = [event for event in events if event[0] in ("CREATE TABLE", "INSERT", "ACCESS DENIED")]
    assert told == [("CREATE TABLE", 1), *[("INSERT", 1)] * 3, ("INSERT", 0), ("ACCESS DENIED", 0)]


def test_every_name_of_sqlite3_is_there() -> None:
    missing = {name for name in dir(sqlite3) if not name.startswith("_")} - set(dir(heliosvfs.dbapi2))
    # modules that sqlite3 happens to have imported are not part of it
    assert missing <= {
        "collections",
        "datetime",
        "dbapi2",
        "dump",
        "enable_shared_cache",
        "OptimizedUnicode",
        "version",
        "version_info",
    }
    for kind in (sqlite3.Connection, sqlite3.Cursor, sqlite3.Row):
        ours = getattr(heliosvfs.dbapi2, kind.__name__)
        assert not {name for name in dir(kind) if not name.startswith("__")} - set(dir(ours))


def test_the_constants_have_the_values_of_sqlite3() -> None:
    for name in dir(sqlite3):
        if name.startswith(("SQLITE_", "PARSE_")):
            assert getattr(heliosvfs.dbapi2, name) == getattr(sqlite3, name), name
