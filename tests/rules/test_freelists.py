"""Rule 5, further: which free pages may fail, for whom, and what becomes of them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.check import check, open_pages
from tests.rules.conftest import KEY
from tests.rules.observing import observed
from tests.tamper.samples import page_offset, put

PAGE = 1024
TORN = b"torn" * (PAGE // 4)


def with_free_pages(path: Path, mode: str) -> tuple[int, list[int]]:
    """Make a database with free pages and return the freelist's trunk and its leaves."""
    with closing(heliosvfs.connect(path, key=KEY, page_size=PAGE, journal_mode=mode)) as connection:
        connection.execute("CREATE TABLE kept(x); CREATE TABLE dropped(x)")
        connection.execute("INSERT INTO kept VALUES(randomblob(5000)); INSERT INTO dropped VALUES(randomblob(30000))")
        connection.execute("DROP TABLE dropped")
    with open_pages(path, key=KEY) as view:
        number = int.from_bytes((view.read(1) or b"")[32:36], "big")
        trunk = view.read(number) or b""
        count = int.from_bytes(trunk[4:8], "big")
        leaves = [int.from_bytes(trunk[8 + 4 * n : 12 + 4 * n], "big") for n in range(count)]
    assert len(leaves) > 10
    return number, leaves


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_copy_of_a_database_with_torn_free_pages_has_none(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "db"
    for leaf in with_free_pages(path, mode)[1]:
        put(path, page_offset(leaf, PAGE), TORN)
    with (
        closing(heliosvfs.connect(path, key=KEY)) as source,
        closing(heliosvfs.connect(tmp_path / "copy", key=KEY, page_size=PAGE)) as copy,
    ):
        with copy.backup("main", source, "main") as backup:
            backup.step(-1)
        assert copy.execute("SELECT x FROM kept").get == source.execute("SELECT x FROM kept").get
    assert check(tmp_path / "copy", key=KEY).bad_pages == ()


def test_a_backup_under_an_exclusive_lock_reads_torn_free_pages_too(tmp_path: Path) -> None:
    """locking_mode=EXCLUSIVE holds the strongest lock while it only reads."""
    path = tmp_path / "db"
    for leaf in with_free_pages(path, "delete")[1]:
        put(path, page_offset(leaf, PAGE), TORN)
    with (
        closing(heliosvfs.connect(path, key=KEY)) as source,
        closing(heliosvfs.connect(tmp_path / "copy", key=KEY, page_size=PAGE)) as copy,
    ):
        source.pragma("locking_mode", "exclusive")
        source.execute("BEGIN EXCLUSIVE; COMMIT")
        with copy.backup("main", source, "main") as backup:
            backup.step(-1)
        assert copy.pragma("integrity_check") == "ok"


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_torn_free_page_is_sealed_anew_when_it_is_used_again(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "db"
    for leaf in with_free_pages(path, mode)[1]:
        put(path, page_offset(leaf, PAGE), TORN)
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("CREATE TABLE again(x); INSERT INTO again VALUES(randomblob(60000))")
        assert connection.pragma("integrity_check") == "ok"
    assert check(path, key=KEY).bad_pages == ()


def test_the_first_page_of_the_freelist_is_not_free(tmp_path: Path) -> None:
    """A trunk page holds the numbers of others: one that does not open is damage."""
    path = tmp_path / "db"
    trunk, _ = with_free_pages(path, "delete")
    put(path, page_offset(trunk, PAGE), bytes(PAGE))
    assert not check(path, key=KEY).ok
    with closing(heliosvfs.connect(path, key=KEY)) as connection, pytest.raises(heliosvfs.TamperedError):
        connection.execute("CREATE TABLE again(x); INSERT INTO again VALUES(randomblob(60000))")


def test_sqlite_really_skips_free_pages_when_it_extends_a_file(tmp_path: Path) -> None:
    """A guard for the rule: beneath a VFS that fills no gaps the workload leaves pages that were never written."""
    path = tmp_path / "plain"
    with observed() as (base, _):
        with closing(apsw.Connection(str(path), vfs="observed")) as connection:
            connection.execute("CREATE TABLE a(x); CREATE TABLE b(x)")
            with connection:
                connection.execute("INSERT INTO a VALUES(randomblob(800000))")
                connection.execute("INSERT INTO b VALUES(randomblob(20000))")
                connection.execute("DELETE FROM a")
        written = {event.offset // 4096 for event in base.writes() if event.what == "write"}
    assert len(written) < path.stat().st_size // 4096
    with closing(heliosvfs.connect(tmp_path / "ours", key=KEY, journal_mode="delete")) as connection:
        connection.execute("CREATE TABLE a(x); CREATE TABLE b(x)")
        with connection:
            connection.execute("INSERT INTO a VALUES(randomblob(800000))")
            connection.execute("INSERT INTO b VALUES(randomblob(20000))")
            connection.execute("DELETE FROM a")
    report = check(tmp_path / "ours", key=KEY)
    assert report.pages > 150
    assert report.bad_pages == ()
