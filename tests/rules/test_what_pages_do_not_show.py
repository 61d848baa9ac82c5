"""Rule 12: what authentic but older bytes can do. Expected, as docs/THREAT-MODEL.md says; these tests keep that true to fact."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import apsw

import heliosvfs
from tests.rules.conftest import KEY
from tests.tamper.samples import make, outcome, page_offset, piece, put


def test_an_older_version_of_a_page_is_accepted(tmp_path: Path) -> None:
    """It is authentic, and in its own place: only a root over all pages, or a checkpoint kept elsewhere, would tell."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, journal_mode="delete")) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES('before')")
    older = piece(path, page_offset(2, 4096), 4096)
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("UPDATE t SET x = 'after'")
    put(path, page_offset(2, 4096), older)
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        assert connection.execute("SELECT x FROM t").get == "before"


def test_the_whole_file_of_yesterday_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x)")
    shutil.copy(path, tmp_path / "yesterday")
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("INSERT INTO t VALUES(1)")
    shutil.copy(tmp_path / "yesterday", path)
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        assert connection.execute("SELECT count(*) FROM t").get == 0


def test_a_removed_wal_takes_its_commits_along(tmp_path: Path) -> None:
    sample = make(tmp_path / "sample", "wal")
    sample.beside("-wal").unlink()
    assert outcome(sample) == sample.states[0] != sample.states[-1]


def test_a_removed_journal_leaves_what_was_never_committed(tmp_path: Path) -> None:
    sample = make(tmp_path / "sample", "delete")
    sample.beside("-journal").unlink()
    try:
        found = outcome(sample)
    except apsw.CorruptError:
        return  # half a transaction may well be no database
    assert isinstance(found, dict)
    assert set(found.items()) - set(sample.states[-1].items())


def test_without_shared_memory_there_is_none_to_rewrite(tmp_path: Path) -> None:
    """locking_mode=EXCLUSIVE keeps the WAL's index in the process."""
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, journal_mode="delete")) as connection:
        connection.pragma("locking_mode", "exclusive")
        connection.pragma("journal_mode", "wal")
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        assert not (tmp_path / "db-shm").exists()
        assert (tmp_path / "db-wal").stat().st_size


def test_shared_memory_holds_no_content_of_a_page(tmp_path: Path) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.executemany("INSERT INTO t VALUES(?)", (("a marker that shows",) for _ in range(2000)))
        index = (tmp_path / "db-shm").read_bytes()
        assert index.strip(b"\0")
        assert b"marker" not in index
