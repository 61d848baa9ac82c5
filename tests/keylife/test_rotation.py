"""Rotation of the data key: everything is under the new one, nothing opens with the old one, and nothing is lost on the way."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import apsw
import msgspec.structs
import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.rotation import RotationUnfinishedError, rotate
from heliosvfs.rotation_dates import RotationDueWarning, due, due_facts, rotate_if_due, warn_if_due
from heliosvfs.vfs import files_of
from heliosvfs.vfs.epochs import publish_epoch, replace_master, slots_opened_by
from tests.keylife.examining import KEY, copies, database, epoch_keys, epochs_on_disk, opened_by

MODES = ["wal", "delete", "truncate", "persist", "memory", "off"]
ROLLBACK_MODES = MODES[1:]


def rows(connection: apsw.Connection) -> list[tuple[apsw.SQLiteValue, ...]]:
    return connection.execute("SELECT id, x FROM t ORDER BY id").fetchall()


@pytest.mark.parametrize("mode", MODES)
def test_everything_on_disk_is_under_the_new_key_and_the_old_one_opens_nothing(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "db"
    with closing(database(path, mode)) as connection:
        if mode == "wal":
            connection.pragma("wal_checkpoint", "TRUNCATE")
        before, keys, slots = rows(connection), epoch_keys(connection), connection.list_keys()
        pages = connection.pragma("page_count")
        assert opened_by(keys[1], path) >= pages, "the proof below would prove nothing"
        report = rotate(connection)
        assert (report.epoch, report.removed_epochs, report.pages, report.resumed) == (2, (1,), pages, False)
        assert epochs_on_disk(path) == {2}
        assert opened_by(keys[1], path) == 0
        assert opened_by(epoch_keys(connection)[2], path) == pages
        assert [[epoch.id for epoch in copy.epochs] for copy in copies(path)] == [[2], [2]]
        assert rows(connection) == before
        assert connection.list_keys() == slots
        assert report.revoked_slots == ()
        connection.execute("UPDATE t SET x = randomblob(900)")
        assert 1 not in epochs_on_disk(path)
    assert check(path, key=KEY).ok
    with closing(heliosvfs.connect(path, key=b"2" * 32, create=False)) as connection:
        assert len(rows(connection)) == len(before)


@pytest.mark.parametrize("mode", ROLLBACK_MODES)
def test_a_database_that_is_not_in_wal_mode_is_switched_for_the_run_and_back(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "db"
    with closing(database(path, mode)) as connection:
        assert rotate(connection).journal_mode == "delete"
        assert connection.pragma("journal_mode") == mode, "the mode of a connection is its own"
        connection.execute("INSERT INTO t VALUES(1000, 'more')")
        assert not Path(f"{path}-wal").exists()
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        assert connection.pragma("journal_mode") == "delete"


def test_a_database_that_others_have_open_meanwhile_stays_in_wal_mode_and_the_report_says_so(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(database(path, "delete")) as connection, closing(heliosvfs.connect(path, key=KEY)) as other:
        joined = False

        def join(_: int, __: int) -> None:
            nonlocal joined
            joined = bool(other.execute("SELECT count(*) FROM t").get)

        report = rotate(connection, progress=join)
        assert joined
        assert report.journal_mode == "wal"
        assert epochs_on_disk(path) == {2}
        assert rows(other) == rows(connection)


@pytest.mark.parametrize("mode", ["persist", "truncate"])
def test_a_journal_kept_from_an_earlier_transaction_is_not_left_behind(tmp_path: Path, mode: str) -> None:
    """Its records are pages under the old key, and in persist mode nothing of them is overwritten when it is done."""
    path = tmp_path / "db"
    with closing(database(path, mode)) as connection:
        connection.execute("UPDATE t SET x = randomblob(900)")
        assert Path(f"{path}-journal").exists()
        key = epoch_keys(connection)[1]
        connection.pragma("journal_mode", "wal")
        connection.execute("INSERT INTO t VALUES(1000, 'more')")
        rotate(connection)
        assert opened_by(key, path) == 0
        assert epochs_on_disk(path) == {2}


def test_it_can_be_repeated_without_end(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(database(path)) as connection:
        before = rows(connection)
        for epoch in range(2, 30):
            assert rotate(connection).epoch == epoch
        assert rows(connection) == before
        assert len(copies(path)[0].epochs) == 1


def test_a_free_page_that_a_power_cut_has_torn_is_sealed_anew(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(database(path, "delete")) as connection:
        leaf = min(files_of(connection)[0].torn_but_free())
    with path.open("r+b") as file:
        file.seek(32768 + (leaf - 1) * 1024)
        file.write(b"\xaa" * 512)
    assert [page.page for page in check(path, key=KEY).bad_pages] == [leaf]
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        rotate(connection)
    assert check(path, key=KEY).bad_pages == ()


def test_a_damaged_page_stops_it_and_the_old_key_stays(tmp_path: Path) -> None:
    path = tmp_path / "db"
    database(path).close()
    with path.open("r+b") as file:
        file.seek(32768 + 50 * 1024 + 100)
        file.write(b"\xaa" * 8)
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        with pytest.raises(heliosvfs.TamperedError, match="page 51"):
            rotate(connection)
        assert [epoch.id for epoch in copies(path)[0].epochs] == [1, 2]
        assert connection.execute("SELECT count(*) FROM t WHERE id < 10").get


class CancelledError(Exception):
    """The user pressed a key."""


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_cancelled_run_changes_nothing_that_is_seen_and_the_next_one_goes_on_from_its_epoch(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "db"
    with closing(database(path, mode, rows=3000)) as connection:
        before, key = rows(connection), epoch_keys(connection)[1]
        calls = []

        def cancel(done: int, total: int) -> None:
            calls.append((done, total))
            if len(calls) == 2:
                raise CancelledError

        with pytest.raises(CancelledError):
            rotate(connection, progress=cancel)
        assert 0 < calls[0][0] < calls[0][1] == calls[1][1]
        assert rows(connection) == before
        assert [epoch.id for epoch in copies(path)[0].epochs] == [1, 2]
        connection.execute("INSERT INTO t VALUES(100000, 'written meanwhile')")
        report = rotate(connection)
        assert (report.epoch, report.resumed, report.removed_epochs) == (2, True, (1,))
        assert rows(connection) == [*before, (100000, "written meanwhile")]
        assert opened_by(key, path) == 0


def test_the_epoch_of_a_run_that_was_interrupted_long_ago_is_not_taken_for_a_fresh_one(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(database(path)) as connection:
        file = files_of(connection)[0]
        connection.execute("BEGIN IMMEDIATE")
        publish_epoch(file)
        connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        file.update_superblock(
            lambda sb: msgspec.structs.replace(
                sb, epochs=(sb.epochs[0], msgspec.structs.replace(sb.epochs[1], created="2020-01-01T00:00:00Z"))
            )
        )
        connection.execute("ROLLBACK")
        report = rotate(connection)
        assert (report.epoch, report.resumed, report.removed_epochs) == (3, False, (1, 2))


def test_a_reader_of_the_old_state_keeps_the_old_key_and_the_next_run_only_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(database(path)) as connection, closing(heliosvfs.connect(path, key=KEY)) as reader:
        before = rows(connection)
        reader.execute("BEGIN")
        first = reader.execute("SELECT count(*) FROM t").get
        with pytest.raises(RotationUnfinishedError, match="rotate again"):
            rotate(connection, busy_timeout=0.3)
        assert rows(reader) == before
        assert reader.execute("SELECT count(*) FROM t").get == first
        assert len(copies(path)[0].epochs) == 2
        reader.execute("COMMIT")
        report = rotate(connection)
        assert (report.pages, report.resumed, report.epoch) == (0, True, 2)
        assert epochs_on_disk(path) == {2}
        assert rows(reader) == before


def test_writers_go_on_while_it_waits_for_a_reader_of_the_old_state(tmp_path: Path) -> None:
    """A report may read for minutes: the wait for it must not keep the writers out, whom SQLite's TRUNCATE checkpoint would."""
    path = tmp_path / "db"
    copied, stop, written, busy = threading.Event(), threading.Event(), 0, 0

    def write() -> None:
        nonlocal written, busy
        with closing(heliosvfs.connect(path, key=KEY, busy_timeout=0)) as writer:
            copied.wait()
            while not stop.is_set():
                try:
                    writer.execute("INSERT INTO t(x) VALUES('written while it waited')")
                    written += 1
                except apsw.BusyError:
                    busy += 1
                stop.wait(0.01)

    with closing(database(path)) as connection, closing(heliosvfs.connect(path, key=KEY)) as reader:
        reader.execute("BEGIN; SELECT count(*) FROM t")
        thread = threading.Thread(target=write)
        thread.start()
        try:
            with pytest.raises(RotationUnfinishedError):
                rotate(connection, busy_timeout=1.5, progress=lambda done, total: copied.set() if done == total else None)
        finally:
            copied.set()
            stop.set()
            thread.join()
        assert written > busy
        assert connection.execute("SELECT count(*) FROM t WHERE x = 'written while it waited'").get == written


def test_writers_are_kept_out_while_it_copies_and_readers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "db"
    seen: list[str] = []
    with (
        closing(database(path, rows=3000)) as connection,
        closing(heliosvfs.connect(path, key=KEY, busy_timeout=0)) as other,
    ):
        count = other.execute("SELECT count(*) FROM t").get

        def intrude(done: int, total: int) -> None:
            assert other.execute("SELECT count(*) FROM t").get == count
            try:
                other.execute("INSERT INTO t(x) VALUES('intruder')")
                seen.append("written")
            except apsw.BusyError:
                seen.append("busy" if done < total else "busy at the end")

        rotate(connection, progress=intrude)
        assert set(seen[:-1]) == {"busy"}
        assert other.execute("SELECT count(*) FROM t WHERE x = 'intruder'").get == seen.count("written")


def test_what_is_committed_just_before_it_copies_is_not_overwritten(tmp_path: Path) -> None:
    """The snapshot that is copied must be taken under the write lock: left to itself, SQLite's backup takes it before.

    The rotation waits for the write lock while a writer is in its transaction, which commits then.
    """
    path = tmp_path / "db"
    with closing(database(path)) as connection, closing(heliosvfs.connect(path, key=KEY)) as writer:
        connection.execute("BEGIN IMMEDIATE")
        publish_epoch(files_of(connection)[0])  # so that it comes to the copy without needing the lock
        connection.execute("ROLLBACK")
        writer.execute("BEGIN IMMEDIATE; UPDATE t SET x = 'changed'")
        timer = threading.Timer(2.5, writer.execute, ("COMMIT",))
        timer.start()
        report = rotate(connection)
        timer.join()
        assert report.pages
        assert connection.execute("SELECT DISTINCT x FROM t").fetchall() == [("changed",)]


def test_too_little_room_on_the_disk_is_found_before_anything_is_changed(tmp_path: Path) -> None:
    """The file is made larger than the disk has room for, without taking any: a hole is as good as pages for that."""
    path = tmp_path / "db"
    free = shutil.disk_usage(tmp_path).free
    if free > 8 << 40:
        pytest.skip("no file can be larger than what is free here")
    with closing(database(path)) as connection:
        connection.pragma("wal_checkpoint", "TRUNCATE")
        size = path.stat().st_size
        os.truncate(path, free + (1 << 30))
        sequence = copies(path)[0].sequence
        with pytest.raises(heliosvfs.UsageError, match="nothing was changed"):
            rotate(connection)
        assert copies(path)[0].sequence == sequence
        os.truncate(path, size)
        rotate(connection)


def test_it_says_what_it_can_not_do(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(database(path)) as connection:
        connection.execute("BEGIN")
        with pytest.raises(heliosvfs.UsageError, match="transaction"):
            rotate(connection)
        connection.execute("COMMIT")
        half_read = connection.execute("SELECT id FROM t")
        next(half_read)
        with pytest.raises(heliosvfs.UsageError, match="SELECT"):
            rotate(connection)
        half_read.close()
        with pytest.raises(heliosvfs.UsageError, match="master=True"):
            rotate(connection, keep=[b"2" * 32])
        with pytest.raises(heliosvfs.UsageError, match="not an encrypted database"):
            rotate(connection, schema="temp")
    with (
        closing(heliosvfs.connect(path, key=KEY, readonly=True)) as connection,
        pytest.raises(heliosvfs.UsageError, match="reading only"),
    ):
        rotate(connection)
    with closing(heliosvfs.connect(":memory:")) as connection, pytest.raises(heliosvfs.UsageError, match="not an encrypted"):
        rotate(connection)


def test_a_method_of_the_connection_does_it_for_attached_databases_too(tmp_path: Path) -> None:
    with closing(database(tmp_path / "db")) as connection:
        connection.attach(tmp_path / "other", "other", key=b"o" * 32)
        connection.execute("CREATE TABLE other.u(x); INSERT INTO other.u VALUES(1)")
        report = connection.rotate(schema="other")
        assert report.path == str(tmp_path / "other")
        assert [copies(tmp_path / name)[0].epoch.id for name in ("db", "other")] == [1, 2]
        assert connection.execute("SELECT x FROM other.u").get == 1


def test_a_data_key_is_due_when_its_days_are_over_or_a_run_is_unfinished(tmp_path: Path) -> None:
    with closing(database(tmp_path / "db")) as connection:
        created = due(connection, 90).created
        assert abs(datetime.now(timezone.utc) - created) < timedelta(hours=1)
        assert not due(connection, 90, now=created + timedelta(days=89, hours=23)).is_due
        assert due(connection, 90, now=created + timedelta(days=90)).is_due
        assert due(connection, 90).due == created + timedelta(days=90)
        assert rotate_if_due(connection, 90) is None
        report = rotate_if_due(connection, 1e-9)
        assert report is not None
        assert report.epoch == 2
        connection.execute("BEGIN IMMEDIATE")
        publish_epoch(files_of(connection)[0])
        connection.execute("ROLLBACK")
        assert due(connection, 90).unfinished
        assert rotate_if_due(connection, 90) is not None
        assert not due(connection, 90).unfinished
        created = due(connection, 90).created
        late = created + timedelta(days=91)
        facts = due_facts(connection, 90, now=late)
        assert (facts["rotation_is_due"], facts["rotation_unfinished"], facts["rotation_interval_days"]) == (True, False, 90)
        assert facts["rotation_due"] == (created + timedelta(days=90)).strftime("%Y-%m-%dT%H:%M:%SZ")
        assert not warn_if_due(connection, 90)
        with pytest.warns(RotationDueWarning, match="heliosvfs rotate"):
            assert warn_if_due(connection, 90, now=late)
        for nonsense in (0, -1):
            with pytest.raises(heliosvfs.UsageError, match="positive"):
                due(connection, nonsense)


@pytest.mark.parametrize("master", [False, True])
def test_two_rotations_at_once_never_remove_a_key_that_is_needed(tmp_path: Path, master: bool) -> None:
    """Another process publishes its epoch between the copy and the end of this run: pages are still under this one's."""
    path = tmp_path / "db"
    with closing(database(path, rows=3000)) as connection, closing(heliosvfs.connect(path, key=KEY)) as other:
        before = rows(connection)

        def intrude(done: int, total: int) -> None:
            if done < total:
                return
            file = files_of(other)[0]
            other.execute("BEGIN IMMEDIATE")
            try:
                if master:
                    replace_master(file, slots_opened_by(file, [heliosvfs.Secret.raw(KEY)]))
                else:
                    publish_epoch(file)
            finally:
                other.execute("ROLLBACK")

        report = rotate(connection, progress=intrude)
        assert (report.epoch, report.removed_epochs) == (2, (1,))
        assert [epoch.id for epoch in copies(path)[0].epochs] == [2, 3]
        assert rows(other) == before
        assert rotate(other).removed_epochs == (2,)
        assert epochs_on_disk(path) == {3}
        assert rows(connection) == before
    assert check(path, key=KEY).ok


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_page_at_the_lock_bytes_is_sealed_anew_too(tmp_path: Path) -> None:
    """SQLite never writes it, so no copy of the content does; the file has it all the same."""
    path = tmp_path / "db"
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("takes 3 GiB of disk")
    with closing(heliosvfs.connect(path, key=KEY, page_size=65536, journal_mode="off")) as connection:
        connection.pragma("synchronous", "off")
        connection.execute("CREATE TABLE t(x)")
        for _ in range(36):
            connection.execute("INSERT INTO t VALUES(zeroblob(31000000))")
        assert rotate(connection).epoch == 2
        assert connection.execute("SELECT sum(length(x)) FROM t").get == 36 * 31000000
    assert check(path, key=KEY).ok
