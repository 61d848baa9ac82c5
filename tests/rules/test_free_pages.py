"""Rule 5: free pages may be torn in an intact database; nothing else may."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.vfs import files_of
from tests.rules.conftest import KEY


def with_free_pages(path: Path) -> set[int]:
    """Make a database with free pages, and return their numbers."""
    with closing(heliosvfs.connect(path, key=KEY, journal_mode="delete", page_size=1024)) as connection:
        connection.execute("CREATE TABLE t(x); CREATE TABLE kept(x); INSERT INTO kept VALUES('kept')")
        connection.executemany("INSERT INTO t VALUES(zeroblob(900))", ((),) * 100)
        connection.execute("DELETE FROM t WHERE rowid > 10")
        return files_of(connection)[0].torn_but_free()


def damage(path: Path, pages: set[int]) -> None:
    data = bytearray(path.read_bytes())
    for page in pages:
        data[32768 + (page - 1) * 1024 + 100] ^= 0xFF
    path.write_bytes(data)


def test_a_torn_free_page_harms_neither_reading_nor_backup_nor_check(tmp_path: Path) -> None:
    path = tmp_path / "db"
    free = with_free_pages(path)
    assert len(free) > 50
    damage(path, set(sorted(free)[:7]))
    report = check(path, key=KEY)
    assert report.ok
    assert {page.page for page in report.bad_pages} == set(sorted(free)[:7])
    assert all("unused" in page.harmless for page in report.bad_pages)
    with (
        closing(heliosvfs.connect(path, key=KEY)) as connection,
        closing(heliosvfs.connect(tmp_path / "copy", key=b"c" * 32, journal_mode="delete", page_size=1024)) as copy,
    ):
        with copy.backup("main", connection, "main") as backup:
            backup.step()
        assert copy.execute("SELECT x FROM kept").get == "kept"
    assert not check(tmp_path / "copy", key=b"c" * 32).bad_pages, "the copy was not sealed anew"


def test_a_torn_free_page_is_used_again_without_harm(tmp_path: Path) -> None:
    path = tmp_path / "db"
    damage(path, with_free_pages(path))
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.executemany("INSERT INTO t VALUES(zeroblob(900))", ((),) * 120)
        assert connection.execute("SELECT count(*), sum(length(x)) FROM t").fetchall() == [(130, 130 * 900)]
        assert connection.pragma("integrity_check") == "ok"
    assert not check(path, key=KEY).bad_pages


def test_a_torn_page_in_use_is_damage_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "db"
    free = with_free_pages(path)
    used = set(range(2, 12)) - free
    damage(path, {min(used)})
    report = check(path, key=KEY)
    assert not report.ok
    (bad,) = report.bad_pages
    assert (bad.page, bad.harmless) == (min(used), "")
    assert str(bad.owner) in ("table t", "table kept")


@pytest.mark.parametrize("auto_vacuum", ["none", "full", "incremental"])
@pytest.mark.parametrize("mode", ["delete", "wal", "off"])
def test_no_page_is_left_unsealed_when_a_file_grows(tmp_path: Path, mode: str, auto_vacuum: str) -> None:
    """SQLite skips free pages when it extends a file; a hole would fail authentication for ever."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, journal_mode=mode, page_size=512, auto_vacuum=auto_vacuum)) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t VALUES(zeroblob(3000))", ((),) * 60)
        connection.execute("DELETE FROM t WHERE rowid > 5; CREATE TABLE u(x); INSERT INTO u VALUES(1); COMMIT")
        connection.execute("PRAGMA incremental_vacuum(20)").fetchall()
    report = check(path, key=KEY)
    assert report.ok
    assert not report.bad_pages
