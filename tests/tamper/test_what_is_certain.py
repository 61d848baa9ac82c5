"""A salvage is complete if its content is that of a commit, and says so in plain words where that is not certain; check agrees.

Pages of a transaction that was not undone are as authentic as any other, so that nothing but journal, WAL, indexes and the order
of pages can tell. Of a journal that is gone or cut off exactly where a synced part ends, and of a WAL that is cut, no file tells.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs.check import check, open_pages
from heliosvfs.convert import decrypt
from heliosvfs.salvage import SalvageReport, salvage
from tests.tamper.samples import KEY, flip, put

PAGE = 512
RECORD = PAGE + 8
FRAME = PAGE + 24
WAL_HEADER = 32

Rows = list[tuple[object, ...]]


class Left:
    """A database whose writer was interrupted, to be damaged again and again."""

    def __init__(self, folder: Path, committed: Rows) -> None:
        self.committed = committed
        self.journal, self.wal = folder / "db-journal", folder / "db-wal"
        self.path, self._folder = folder / "db", folder
        self._files = {path: path.read_bytes() for path in folder.iterdir() if path.name in ("db", "db-journal", "db-wal")}

    def restore(self) -> None:
        """Undo the damage."""
        for path in self._folder.iterdir():
            path.unlink()
        for path, content in self._files.items():
            path.write_bytes(content)

    def salvaged(self) -> tuple[SalvageReport, Rows]:
        """Salvage; return the report and all rows."""
        (self._folder / "saved").unlink(missing_ok=True)
        report = salvage(self.path, self._folder / "saved", key=KEY)
        return report, rows_of(self._folder / "saved")

    def is_untouched_but(self, *flipped: int) -> bool:
        """Tell whether database and WAL are as they were, but for flipped bytes of the WAL."""
        wal = bytearray(self._files[self.wal])
        for place in flipped:
            wal[place] ^= 1
        return (self.path.read_bytes(), self.wal.read_bytes()) == (self._files[self.path], wal)

    def check_is_well(self) -> bool:
        """Check, which rolls a journal back."""
        return check(self.path, key=KEY).ok

    def recovered(self) -> Rows:
        """Return all rows as SQLite recovers them."""
        return rows_of(self.path)


def rows_of(path: Path) -> Rows:
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        return connection.execute("SELECT i, a, b FROM t ORDER BY i").fetchall()


ALL = "DELETE FROM t WHERE i % 7 = 1; UPDATE t SET a = a || 'z', b = 'y' || b"
SOME = "UPDATE t SET a = a || 'z' WHERE i < 40"


def interrupted(tmp_path: Path, mode: str, synchronous: str, *, after: str = "", change: str = ALL) -> Left:
    """Copy a database in the middle of a transaction that has spilled several times."""
    live = tmp_path / "live" / "db"
    live.parent.mkdir(parents=True)
    (tmp_path / "left").mkdir()
    with closing(heliosvfs.connect(live, key=KEY, page_size=PAGE, journal_mode="delete")) as connection:
        connection.pragma("journal_mode", mode)
        connection.pragma("synchronous", synchronous)
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, a, b); CREATE INDEX by_a ON t(a)")
        with connection:
            connection.executemany("INSERT INTO t VALUES(?, ?, ?)", ((i, f"a{i}", "x" * (i % 200)) for i in range(120)))
        connection.execute(after)
        connection.pragma("cache_size", 10)
        committed = connection.execute("SELECT i, a, b FROM t ORDER BY i").fetchall()
        connection.execute(f"BEGIN; {change}")
        for suffix in ("", "-journal"):
            shutil.copy(f"{live}{suffix}", tmp_path / "left" / f"db{suffix}")
        connection.execute("ROLLBACK")
    return Left(tmp_path / "left", committed)


def headers(journal: Path) -> list[int]:
    data = journal.read_bytes()
    return [at for at in range(0, len(data), 512) if data[at : at + 8] == b"\0HELIOSJ"]


def counted_end(journal: Path) -> int:
    """Return where the records end that the last header counts."""
    data, last = journal.read_bytes(), headers(journal)[-1]
    return last + 512 + int.from_bytes(data[last + 8 : last + 12], "big") * RECORD


@pytest.fixture(params=["full", "normal"])
def hot(request: pytest.FixtureRequest, tmp_path: Path) -> Left:
    left = interrupted(tmp_path, "delete", request.param)
    assert len(headers(left.journal)) > 3
    return left


def test_a_whole_hot_journal_is_certain(hot: Left) -> None:
    report, found = hot.salvaged()
    assert (report.complete, found, report.problems) == (True, hot.committed, ())
    assert hot.check_is_well()


def cut(journal: Path, at: int) -> None:
    os.truncate(journal, at)


def zeroed(journal: Path, at: int) -> None:
    put(journal, at, bytes(min(100, journal.stat().st_size - at)))


def zeroed_to_the_end(journal: Path, at: int) -> None:
    put(journal, at, bytes(journal.stat().st_size - at))


@pytest.mark.parametrize("damage", [cut, flip, zeroed, zeroed_to_the_end])
def test_what_is_called_complete_is_what_was_committed(hot: Left, damage: Callable[[Path, int], None]) -> None:
    """Wherever the journal is damaged; and whatever check finds, a salvage does not pass over."""
    half_undone = 0
    for at in range(61, hot.journal.stat().st_size, 1531):
        hot.restore()
        damage(hot.journal, at)
        report, found = hot.salvaged()
        half_undone += found != hot.committed
        assert found == hot.committed or not report.complete, at
        assert hot.check_is_well() == report.complete, at
    assert half_undone > 2


def test_an_index_tells_of_a_journal_that_is_cut_off_where_a_synced_part_ends(hot: Left) -> None:
    """By itself such a journal is one whose later parts a power cut has taken before they were synced."""
    for at in headers(hot.journal)[1:]:
        hot.restore()
        cut(hot.journal, at)
        cut(hot.journal, counted_end(hot.journal))
        report, found = hot.salvaged()
        assert found != hot.committed
        assert any(problem.startswith("index by_a ") for problem in report.problems)


@pytest.mark.parametrize("place", [1, 8, 11, 12, 18, 26, 28, 59, 60])
def test_a_damaged_later_header_is_not_the_end_of_the_journal(hot: Left, place: int) -> None:
    for at in headers(hot.journal)[1:]:
        hot.restore()
        flip(hot.journal, at + place)
        report, _ = hot.salvaged()
        assert any(f"the journal's header at offset {at} is torn or damaged" in problem for problem in report.problems)
        assert any("undone in part only" in problem for problem in report.problems)
        assert not report.complete


@pytest.mark.parametrize("place", [0, 1, 7, 12, 30])
def test_a_damaged_first_header_does_not_mean_that_nothing_was_interrupted(hot: Left, place: int) -> None:
    flip(hot.journal, place)
    report, found = hot.salvaged()
    assert found != hot.committed
    assert any("undone in part only" in problem for problem in report.problems)
    cut(hot.journal, 200)
    assert not hot.salvaged()[0].complete


def test_records_behind_a_damaged_one_are_used(hot: Left) -> None:
    """One page is as the transaction left it, and the others are as they were before it."""
    flip(hot.journal, 512 + 3 * RECORD + 100)
    with open_pages(hot.path, key=KEY) as damaged:
        assert "torn or damaged" in damaged.journal.problem
    hot.restore()
    with open_pages(hot.path, key=KEY) as whole:
        assert len(whole.journal.images) == len(damaged.journal.images) + 1 > 15


def test_a_tail_that_was_never_synced_may_be_torn(hot: Left) -> None:
    """The header that follows the counted records has no count yet: the database was not touched for what lies behind it."""
    end = counted_end(hot.journal)
    due = -(-end // 512) * 512
    size = hot.journal.stat().st_size
    assert size > due + 512
    for at in (end, *range(due + 2, size, 307)):
        hot.restore()
        cut(hot.journal, at)
        report, found = hot.salvaged()
        assert (report.complete, found) == (True, hot.committed), at
    for at in range(due + 512, size, 307):
        hot.restore()
        flip(hot.journal, at)
        report, found = hot.salvaged()
        assert (report.complete, found) == (True, hot.committed), at
        assert hot.check_is_well()


@pytest.mark.parametrize("synchronous", ["full", "normal", "off"])
def test_what_earlier_transactions_left_in_a_persistent_journal_is_no_damage(tmp_path: Path, synchronous: str) -> None:
    left = interrupted(tmp_path, "persist", synchronous, after="UPDATE t SET b = b || 'w'", change=SOME)
    with open_pages(left.path, key=KEY) as view:
        assert left.journal.stat().st_size > 512 + 2 * view.journal.records * RECORD
    report, found = left.salvaged()
    assert (report.complete, found, report.problems) == (True, left.committed, ())
    assert left.check_is_well()


def test_a_header_of_an_earlier_transaction_where_this_one_ends_is_no_damage(tmp_path: Path) -> None:
    """A process that is killed while it syncs a part has not written the header of the next over what is there."""
    left = interrupted(tmp_path, "persist", "full")
    older = interrupted(tmp_path / "older", "persist", "full")
    at = -(-counted_end(left.journal) // 512) * 512
    put(left.journal, at, older.journal.read_bytes()[headers(older.journal)[1] :][:3000])
    report, found = left.salvaged()
    assert (report.complete, found) == (True, left.committed)


@pytest.mark.parametrize("written", [4, 4 + PAGE])
@pytest.mark.parametrize("mode", ["delete", "persist"])
def test_a_record_that_was_being_written_is_no_damage(tmp_path: Path, mode: str, written: int) -> None:
    """Its page was not touched: number, page and checksum are three writes, in a persistent journal over an older record."""
    left = interrupted(tmp_path, mode, "off", after="UPDATE t SET b = b || 'w'", change=SOME)
    data = left.journal.read_bytes()
    if mode == "delete":
        left.journal.write_bytes(data + data[512:][:written])
    else:
        with open_pages(left.path, key=KEY) as view:
            at = 512 + view.journal.records * RECORD
        assert at < len(data)
        put(left.journal, at, (2).to_bytes(4, "big") if written == 4 else data[512 : 512 + written])
    report, found = left.salvaged()
    assert (report.complete, found) == (True, left.committed)
    assert left.check_is_well()


@pytest.mark.parametrize("damage", [cut, flip, zeroed, zeroed_to_the_end])
def test_a_journal_without_syncs_is_used_as_far_as_it_is_whole(tmp_path: Path, damage: Callable[[Path, int], None]) -> None:
    left = interrupted(tmp_path, "delete", "off")
    for at in (512 + 5 * RECORD + 300, 512 + 11 * RECORD + 2, left.journal.stat().st_size - 600):
        left.restore()
        damage(left.journal, at)
        report, _ = left.salvaged()
        assert any("written without syncs" in problem for problem in report.problems), at
        assert not left.check_is_well()


@pytest.fixture
def with_super_journal(tmp_path: Path) -> tuple[Left, Path]:
    """Give a journal the name of a super-journal, as a commit of several databases does (writeSuperJournal)."""
    left = interrupted(tmp_path, "delete", "full")
    name = f"{left.journal.with_name('db')}-mj0123459AB"
    encoded = name.encode()
    page = (0x40000000 // PAGE + 1).to_bytes(4, "big")
    data = left.journal.read_bytes()[: counted_end(left.journal)]
    end = len(encoded).to_bytes(4, "big") + sum(encoded).to_bytes(4, "big") + bytes.fromhex("d9d505f920a163d7")
    left.journal.write_bytes(data.ljust(-(-len(data) // 512) * 512, b"\0") + page + encoded + end)
    return Left(tmp_path / "left", left.committed), Path(name)


def test_a_journal_whose_super_journal_is_there_is_undone(with_super_journal: tuple[Left, Path]) -> None:
    left, name = with_super_journal
    name.write_bytes(os.fsencode(left.journal) + b"\0")
    report, found = left.salvaged()
    assert (report.complete, found) == (True, left.committed)


def test_a_journal_whose_super_journal_is_gone_is_not_used(with_super_journal: tuple[Left, Path]) -> None:
    """Its transaction was committed, in the other databases as well: salvage and SQLite must not say two things."""
    left, name = with_super_journal
    report, found = left.salvaged()
    assert any(name.name in note for note in report.notes)
    assert found == left.recovered() != left.committed


def test_a_journal_that_was_moved_away_from_its_super_journal_is_uncertain(
    with_super_journal: tuple[Left, Path], tmp_path: Path
) -> None:
    left, _ = with_super_journal
    (tmp_path / "moved").mkdir()
    for suffix in ("", "-journal"):
        shutil.copy(f"{left.journal.with_name('db')}{suffix}", tmp_path / "moved" / f"db{suffix}")
    report = salvage(tmp_path / "moved" / "db", tmp_path / "out", key=KEY)
    assert any("unless the files were moved here" in problem for problem in report.problems)


# -- WAL -------------------------------------------------------------------------------------------------------------


def logged(tmp_path: Path, *commits: str, uncommitted: str = "", checkpoint: bool = False) -> Left:
    """Copy a database with a WAL of these commits behind a checkpoint, and with frames of a transaction that did not commit."""
    live = tmp_path / "live" / "db"
    live.parent.mkdir()
    (tmp_path / "left").mkdir()
    with closing(heliosvfs.connect(live, key=KEY, page_size=PAGE, journal_mode="wal")) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, a, b)")
        with connection:
            connection.executemany("INSERT INTO t VALUES(?, ?, ?)", ((i, 0, "x" * 80) for i in range(40)))
        connection.pragma("wal_checkpoint", "TRUNCATE")
        for sql in commits:
            connection.execute(sql)
        if checkpoint:
            connection.pragma("wal_checkpoint", "PASSIVE")
        committed = connection.execute("SELECT i, a, b FROM t ORDER BY i").fetchall()
        if uncommitted:
            connection.execute("BEGIN")
            connection.execute(uncommitted)
            connection.cache_flush()
        for suffix in ("", "-wal"):
            shutil.copy(f"{live}{suffix}", tmp_path / "left" / f"db{suffix}")
    return Left(tmp_path / "left", committed)


def frames(wal: Path) -> int:
    return (wal.stat().st_size - WAL_HEADER) // FRAME


@pytest.mark.parametrize("commits", [(), ("UPDATE t SET a = 1 WHERE i = 1",)])
@pytest.mark.parametrize("uncommitted", ["UPDATE t SET a = 9 WHERE i = 30", "UPDATE t SET a = 9"])
def test_frames_of_a_transaction_that_did_not_end_are_no_damage(
    tmp_path: Path, commits: tuple[str, ...], uncommitted: str
) -> None:
    left = logged(tmp_path, *commits, uncommitted=uncommitted)
    assert frames(left.wal) > len(commits)
    report, found = left.salvaged()
    assert (report.complete, found) == (True, left.committed)
    assert any("transaction that did not end" in note for note in report.notes)
    assert left.check_is_well()


UPDATES = [f"UPDATE t SET a = {n} WHERE i % 3 = 1" for n in range(1, 5)]


@pytest.mark.parametrize("place", [0, 30, FRAME - 1])
def test_a_damaged_frame_with_commits_behind_it_is_damage(tmp_path: Path, place: int) -> None:
    left = logged(tmp_path, *UPDATES)
    for number in range(0, frames(left.wal) - 1, 3):
        left.restore()
        flip(left.wal, WAL_HEADER + number * FRAME + place)
        report, found = left.salvaged()
        where = WAL_HEADER + number * FRAME
        assert any(f"at offset {where} is torn or damaged" in problem for problem in report.problems), number
        lost = {row[0] for row, was in zip(found, left.committed, strict=True) if row != was}
        assert len(lost) <= PAGE // 16, number  # rows of one page
        assert not left.check_is_well()
        assert left.is_untouched_but(WAL_HEADER + number * FRAME + place)
        with pytest.raises(heliosvfs.TamperedError, match=f"at offset {where} is torn"):
            decrypt(left.path, tmp_path / "plain", key=KEY)
        assert left.is_untouched_but(WAL_HEADER + number * FRAME + place)


def test_a_check_and_a_plain_copy_leave_a_wal_where_it_is(tmp_path: Path) -> None:
    left = logged(tmp_path, *UPDATES)
    assert left.check_is_well()
    assert left.is_untouched_but()
    decrypt(left.path, tmp_path / "plain", key=KEY)
    assert left.is_untouched_but()
    assert left.recovered() == left.committed


@pytest.mark.parametrize("place", [0, 13, 17, 25])
def test_a_damaged_header_of_a_wal_is_damage(tmp_path: Path, place: int) -> None:
    left = logged(tmp_path, *UPDATES)
    flip(left.wal, place)
    report, found = left.salvaged()
    assert any("its header is damaged" in problem for problem in report.problems)
    assert (found == left.committed) == (place != 17)  # without the salts no frame opens
    assert not left.check_is_well()
    assert left.is_untouched_but(place)


def test_a_commit_that_is_in_the_database_already_is_missed(tmp_path: Path) -> None:
    """The checkpoint has copied all its pages, and the WAL has earlier versions of some: what is read is of two times."""
    left = logged(tmp_path, "UPDATE t SET a = 1 WHERE i = 1", "UPDATE t SET a = 2 WHERE i IN (1, 30)", checkpoint=True)
    flip(left.wal, WAL_HEADER + (frames(left.wal) - 1) * FRAME + 100)
    report, found = left.salvaged()
    assert found != left.committed
    assert any("is in the database already" in problem for problem in report.problems)
    assert not left.check_is_well()


def test_frames_of_an_earlier_log_are_no_damage(tmp_path: Path) -> None:
    left = logged(tmp_path, *UPDATES, checkpoint=True, uncommitted="UPDATE t SET a = 9 WHERE i = 2")
    report, found = left.salvaged()
    assert (report.complete, found) == (True, left.committed)
    assert left.check_is_well()
