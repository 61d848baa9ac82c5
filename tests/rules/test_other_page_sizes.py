"""A VACUUM or backup that would make pages of another size is refused, and loses nothing: the page size of a file is fixed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.vfs import files_of
from tests.rules.conftest import KEY

ROLLBACK_MODES = ["delete", "truncate", "persist", "memory"]
ROWS = 400


def fill(path: Path, page_size: int, mode: str, **options: str) -> None:
    """Make a database with free pages in it."""
    with closing(heliosvfs.connect(path, key=KEY, page_size=page_size, journal_mode=mode, **options)) as connection:  # type: ignore[arg-type]
        with connection:
            connection.execute("CREATE TABLE t(x)")
            connection.executemany("INSERT INTO t VALUES(?)", [("x" * (n % 700),) for n in range(ROWS * 3 // 2)])
        connection.execute("DELETE FROM t WHERE rowid % 3 = 0")


@pytest.fixture
def sized(tmp_path: Path) -> Iterator[heliosvfs.Connection]:
    """Return a connection that SQLite has been told a page size of 4096 for, and whose main database has it."""
    with closing(heliosvfs.connect(tmp_path / "main", key=KEY, journal_mode="delete")) as connection:
        connection.execute("CREATE TABLE m(x)")
        connection.pragma("page_size", 4096)
        yield connection


def is_whole(path: Path, rows: int) -> None:
    """See that a database passes its check, and that a new connection finds the rows."""
    assert check(path, key=KEY).ok
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert connection.execute("SELECT count(*) FROM t").get == rows


@pytest.mark.parametrize("cache_size", [2000, 5])  # in pages: a small cache writes some before page 1
@pytest.mark.parametrize(
    ("mode", "page_size"),
    [*((mode, size) for mode in ROLLBACK_MODES for size in (1024, 8192)), ("delete", 512), ("delete", 65536)],
)
def test_a_vacuum_into_pages_of_another_size_is_refused_and_loses_nothing(
    tmp_path: Path, sized: heliosvfs.Connection, mode: str, page_size: int, cache_size: int
) -> None:
    fill(tmp_path / "other", page_size, mode)
    sized.attach(tmp_path / "other", "other", key=KEY)
    sized.execute(f"PRAGMA cache_size = {cache_size}; PRAGMA other.cache_size = {cache_size}; PRAGMA other.journal_mode = {mode}")
    with pytest.raises(heliosvfs.RefusedWriteError, match="PRAGMA page_size = 0"):
        sized.execute("VACUUM other")
    assert sized.execute("SELECT count(*) FROM other.t").get == ROWS
    sized.execute("INSERT INTO other.t VALUES('the connection goes on'); INSERT INTO m VALUES(1)")
    assert check(tmp_path / "other", key=KEY).ok
    sized.execute("PRAGMA page_size = 0")  # as the message says
    sized.execute("VACUUM other")
    assert sized.execute("PRAGMA other.freelist_count").get == 0
    assert sized.execute("PRAGMA other.integrity_check").get == "ok"
    sized.execute("DETACH other")
    is_whole(tmp_path / "other", ROWS + 1)


@pytest.mark.parametrize("mode", [*ROLLBACK_MODES, "wal"])
def test_the_page_size_that_connect_was_told_is_not_that_of_what_is_attached_later(tmp_path: Path, mode: str) -> None:
    fill(tmp_path / "other", 8192, mode)
    with closing(heliosvfs.connect(tmp_path / "main", key=KEY, page_size=1024)) as connection:
        connection.attach(tmp_path / "other", "other", key=KEY)
        connection.execute(f"PRAGMA other.journal_mode = {mode}").fetchall()
        connection.execute("VACUUM other")
    with closing(heliosvfs.connect(tmp_path / "main", key=KEY)) as connection:
        assert connection.pragma("page_size") == 1024
    with closing(heliosvfs.connect(tmp_path / "other", key=KEY)) as connection:
        assert (connection.pragma("page_size"), connection.pragma("freelist_count")) == (8192, 0)
    is_whole(tmp_path / "other", ROWS)


@pytest.mark.parametrize("page_size", [512, 65536])
def test_a_vacuum_in_wal_mode_keeps_the_page_size(tmp_path: Path, sized: heliosvfs.Connection, page_size: int) -> None:
    fill(tmp_path / "other", page_size, "wal")
    sized.attach(tmp_path / "other", "other", key=KEY)
    sized.execute("VACUUM other; PRAGMA other.wal_checkpoint(TRUNCATE)")
    assert sized.execute("PRAGMA other.page_size").get == page_size
    sized.execute("DETACH other")
    is_whole(tmp_path / "other", ROWS)


@pytest.mark.parametrize("mode", [*ROLLBACK_MODES, "wal"])
@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_a_vacuum_of_the_same_page_size_works(tmp_path: Path, mode: str, page_size: int) -> None:
    fill(tmp_path / "db", page_size, mode)
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, create=False)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}; VACUUM")
        assert connection.pragma("freelist_count") == 0
    is_whole(tmp_path / "db", ROWS)


@pytest.mark.parametrize("mode", [*ROLLBACK_MODES, "wal"])
@pytest.mark.parametrize("auto_vacuum", ["full", "incremental"])
def test_auto_vacuum_still_cuts_the_file(tmp_path: Path, mode: str, auto_vacuum: str) -> None:
    fill(tmp_path / "db", 1024, mode, auto_vacuum=auto_vacuum)
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, create=False)) as connection:
        connection.execute("DELETE FROM t WHERE rowid > 10; PRAGMA incremental_vacuum").fetchall()
        left = connection.execute("SELECT count(*) FROM t").get
        assert connection.pragma("page_count") < 20
    is_whole(tmp_path / "db", left)
    assert (tmp_path / "db").stat().st_size < 32 * 1024 + 20 * 1024


def source(page_size: int, reserved: int, *, emptied: bool = False) -> apsw.Connection:
    """Return an in-memory database."""
    connection = apsw.Connection(":memory:")
    connection.reserve_bytes("main", reserved)
    connection.pragma("page_size", page_size)
    connection.execute("CREATE TABLE t(x)")
    connection.executemany("INSERT INTO t VALUES(?)", [("y" * 200,)] * 50)
    if emptied:
        connection.execute("DROP TABLE t; VACUUM")
    return connection


def back_up(destination: apsw.Connection, origin: apsw.Connection) -> None:
    with closing(origin), destination.backup("main", origin, "main") as backup:
        backup.step(-1)


@pytest.mark.parametrize("mode", ROLLBACK_MODES)
@pytest.mark.parametrize("page_size", [1024, 8192])
def test_a_backup_of_another_page_size_onto_a_database_is_refused_and_loses_nothing(
    tmp_path: Path, mode: str, page_size: int
) -> None:
    fill(tmp_path / "db", 4096, mode)
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, journal_mode=mode)) as connection:
        with pytest.raises(heliosvfs.RefusedWriteError, match="with the same page size"):
            back_up(connection, source(page_size, 32))
        assert connection.execute("SELECT count(*) FROM t").get == ROWS
        connection.execute("INSERT INTO t VALUES('the connection goes on')")
    is_whole(tmp_path / "db", ROWS + 1)


@pytest.mark.parametrize("mode", [*ROLLBACK_MODES, "wal"])
@pytest.mark.parametrize("emptied", [False, True])  # the pages of an empty database end with 32 zeros all the same
def test_a_backup_that_leaves_no_room_for_seals_is_refused_and_loses_nothing(tmp_path: Path, mode: str, *, emptied: bool) -> None:
    fill(tmp_path / "db", 4096, mode)
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, journal_mode=mode)) as connection:
        with pytest.raises(heliosvfs.RefusedWriteError, match=r"Connection\.reserve_bytes\(\.\.\., 32\)"):
            back_up(connection, source(4096, 0, emptied=emptied))
        assert connection.execute("SELECT count(*) FROM t").get == ROWS
        connection.execute("INSERT INTO t VALUES('the connection goes on'); PRAGMA wal_checkpoint(TRUNCATE)")
    is_whole(tmp_path / "db", ROWS + 1)


@pytest.mark.parametrize("mode", [*ROLLBACK_MODES, "wal"])
def test_a_backup_of_the_same_page_size_works(tmp_path: Path, mode: str) -> None:
    fill(tmp_path / "db", 4096, mode)
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, journal_mode=mode)) as connection:
        back_up(connection, source(4096, 32))
    is_whole(tmp_path / "db", 50)


def test_a_file_is_never_cut_within_a_page(tmp_path: Path) -> None:
    fill(tmp_path / "db", 4096, "delete")
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        file = files_of(connection)[0]
        with pytest.raises(heliosvfs.RefusedWriteError, match="within a page"):
            file.xTruncate(3 * 1024)
        assert connection.pragma("integrity_check") == "ok"
    is_whole(tmp_path / "db", ROWS)
