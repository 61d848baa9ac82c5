"""In-memory databases that connections share by name."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

import pytest

import heliosvfs.dbapi2 as sqlite3

NAMED = "file:ward?mode=memory&cache=shared"
UNNAMED = "file::memory:?cache=shared"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the temporary files are."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", [NAMED, UNNAMED])
def test_connections_see_what_another_has_committed(name: str) -> None:
    first, second = sqlite3.connect(name, uri=True), sqlite3.connect(name, uri=True)
    first.execute("CREATE TABLE t(x)")
    first.execute("INSERT INTO t VALUES('laudanum')")
    assert second.execute("SELECT count(*) FROM t").fetchone() == (0,)  # read while the other has a transaction open
    first.commit()
    assert second.execute("SELECT * FROM t").fetchall() == [("laudanum",)]
    first.close()
    second.close()


def test_names_are_databases_of_their_own_and_private_ones_stay_private() -> None:
    names = [NAMED, UNNAMED, "file:other?cache=shared&mode=memory", "file:ward?mode=memory", ":memory:"]
    connections = [sqlite3.connect(name, uri=True) for name in names]
    for connection in connections:
        connection.execute("CREATE TABLE t(x)")
        connection.close()


def test_nothing_of_it_is_readable_and_nothing_is_left(folder: Path) -> None:
    first, second = sqlite3.connect(NAMED, uri=True), sqlite3.connect(NAMED, uri=True)
    first.execute("CREATE TABLE laudanum(x)")
    first.commit()
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    assert not any(b"laudanum" in file.read_bytes() for file in files)
    first.close()
    first.close()
    assert second.execute("SELECT name FROM sqlite_schema").fetchall() == [("laudanum",)]
    second.close()
    assert list(folder.iterdir()) == []
    again = sqlite3.connect(NAMED, uri=True)
    assert again.execute("SELECT name FROM sqlite_schema").fetchall() == []
    again.close()


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@pytest.mark.usefixtures("freeing")
def test_a_connection_that_is_dropped_gives_up_its_share(folder: Path) -> None:
    connection = sqlite3.connect(NAMED, uri=True)
    connection.execute("CREATE TABLE t(x)")
    del connection
    gc.collect()
    assert list(folder.iterdir()) == []


def test_a_share_is_given_up_if_the_connection_can_not_be_made(folder: Path) -> None:
    with pytest.raises(Exception, match="no-such-preset"):
        sqlite3.connect(NAMED, uri=True, audit="no-such-preset")
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.usefixtures("freeing")
def test_a_fork_has_databases_of_its_own(folder: Path) -> None:
    connection = sqlite3.connect(NAMED, uri=True)
    connection.execute("CREATE TABLE t(x)")
    connection.commit()
    child = os.fork()
    if not child:
        own = sqlite3.connect(NAMED, uri=True)
        found = own.execute("SELECT name FROM sqlite_schema").fetchall()
        own.close()
        os._exit(0 if found == [] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("t",)]
    connection.close()
    assert list(folder.iterdir()) == []
