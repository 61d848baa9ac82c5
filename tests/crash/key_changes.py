"""Workloads in which the keys of a database change: slots, data keys, master keys, between and beside commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import heliosvfs
from heliosvfs.rotation import rotate
from heliosvfs.vfs import files_of
from heliosvfs.vfs.epochs import publish_epoch
from tests.crash.workloads import WORKLOADS, Bench

if TYPE_CHECKING:
    import apsw

    from tests.crash.subjects import Helios

__all__ = ["KINDS"]


class CutShortError(Exception):
    """A rotation that its user cancels."""


def _rotation(*, master: bool = False, cancelled: bool = False) -> object:
    """Return a change of keys that rotates, or begins to."""

    def change(_: Helios, connection: apsw.Connection) -> None:
        assert isinstance(connection, heliosvfs.Connection)
        # nobody else has the database open, so the write lock and the log are free at once
        if not cancelled:
            rotate(connection, master=master, busy_timeout=5.0)
            return

        def cancel(_: int, __: int) -> None:
            raise CutShortError

        try:
            rotate(connection, busy_timeout=5.0, progress=cancel)
        except CutShortError:
            return

    return change


def _fill(bench: Bench) -> None:
    page = bench.mode.page_size
    bench.run("CREATE TABLE ledger (seq INTEGER PRIMARY KEY, body BLOB, checksum TEXT)")
    bench.run("BEGIN")
    bench.rows(10, 2 * page)
    bench.run("COMMIT")
    bench.run("DELETE FROM ledger WHERE seq % 3 = 0")  # free pages, which a power cut may tear
    bench.change_slots(lambda _, __: None, {"first"})
    bench.change_slots(lambda subject, a: subject.add_key(a, "second"), {"first", "second"})


def _data_keys(bench: Bench) -> None:
    """Epochs come and go between commits."""
    page = bench.mode.page_size
    both = {"first", "second"}
    _fill(bench)
    bench.change_slots(_rotation(), both)
    bench.rows(2, page)
    bench.change_slots(_rotation(cancelled=True), both)
    bench.rows(1, 3 * page)
    bench.change_slots(_rotation(), both)
    bench.change_slots(_publish, both)  # an epoch and no rotation: what a kill leaves right after the first step
    bench.run("BEGIN")
    bench.rows(3, 2 * page)
    bench.run("COMMIT")
    bench.compare()
    bench.reopen()
    bench.change_slots(_rotation(), both)
    bench.rows(1, 40)
    bench.compare()
    bench.close()


def _publish(_: Helios, connection: apsw.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        publish_epoch(files_of(connection)[0])
    finally:
        connection.execute("ROLLBACK")


def _master_keys(bench: Bench) -> None:
    """Master keys are replaced: a crash leaves a database that the old keys open, or the kept ones, and never nobody's."""
    page = bench.mode.page_size
    _fill(bench)
    bench.change_slots(_rotation(master=True), {"first"})
    bench.rows(2, page)
    bench.change_slots(lambda subject, a: subject.add_key(a, "third"), {"first", "third"})
    bench.change_slots(lambda subject, a: subject.add_key(a, "fourth"), {"first", "third", "fourth"})
    bench.change_slots(lambda subject, a: subject.revoke_key(a, "third"), {"first", "fourth"})
    bench.rows(1, 3 * page)
    bench.change_slots(_rotation(master=True), {"first"})
    bench.change_slots(lambda subject, a: subject.add_key(a, "second"), {"first", "second"})
    bench.rows(2, 60)
    bench.reopen()
    bench.change_slots(_rotation(), {"first", "second"})
    bench.compare()
    bench.close()


KINDS = {"data keys": _data_keys, "master keys": _master_keys}
WORKLOADS.update(KINDS)
