"""Power cuts and process deaths while slots, data keys and master keys change: the database opens, and the next rotation ends it.

520 crashes in the short form; with ``--power-cuts N`` of 2000 and more, N of them over more modes.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import pytest

import heliosvfs
from heliosvfs.check import check
from heliosvfs.rotation import rotate
from tests.crash.key_changes import KINDS
from tests.crash.recovery import crashes, record, survive
from tests.crash.subjects import HELIOS
from tests.crash.test_power_cuts import ALL_MODES_FROM
from tests.crash.workloads import Mode
from tests.keylife.examining import copies, epochs_on_disk

if TYPE_CHECKING:
    from pathlib import Path

CRASHES = 520
RERUNS = 4  # every so many crashes the interrupted rotation is finished as well

_SHORT = [
    ("wal", "full"),
    ("wal", "normal"),
    ("delete", "full"),
    ("delete", "extra"),
    ("truncate", "full"),
    ("persist", "normal"),
]
SHORT = [
    *(
        Mode(journal, level, psow=number % 2 == 0, page_size=(512, 4096)[number // 2 % 2], workload=workload)
        for number, ((journal, level), workload) in enumerate(itertools.product(_SHORT, KINDS))
    ),
    Mode("wal", "full", psow=False, page_size=4096, workload="slots"),
]
LONG = [
    Mode(journal, level, psow=psow, page_size=size, workload=workload)
    for journal, level, psow, size, workload in itertools.product(
        ["delete", "truncate", "persist", "wal"], ["full", "normal", "extra"], [True, False], [512, 4096], KINDS
    )
    # a rotation deletes the journal that TRUNCATE keeps; at NORMAL SQLite lets a power cut bring that back with its transaction,
    # and the simulator does not know the moment from which it can't: the next sync of the folder
    if (journal, level) != ("truncate", "normal")
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spread the crashes over the modes, one test for each."""
    asked = metafunc.config.getoption("--power-cuts")
    modes, total = (LONG, asked) if asked >= ALL_MODES_FROM else (SHORT, CRASHES)
    metafunc.parametrize("mode", modes, ids=map(str, modes))
    metafunc.parametrize("count", [-(-total // len(modes))])


def _finish(path: Path) -> None:
    """Run a rotation over what a recovery has left, and require that it leaves one key."""
    vfs = heliosvfs.HeliosVFS("key-changes", keyring=heliosvfs.Keyring(default=HELIOS._keys["first"]))
    try:
        with contextlib.closing(heliosvfs.connect(path, vfs=vfs.name, create=False)) as connection:
            before = connection.execute("SELECT * FROM ledger").fetchall()
            report = rotate(connection)
            page_size = connection.pragma("page_size")
            assert connection.execute("SELECT * FROM ledger").fetchall() == before
        one, two = copies(path)
        assert one == two
        assert [epoch.id for epoch in one.epochs] == [report.epoch]
        assert epochs_on_disk(path, page_size) == {report.epoch}
        assert check(path, vfs=vfs.name).ok
    finally:
        vfs.unregister()


@pytest.mark.parametrize("kind", ["power", "death"])
def test_a_crash_during_a_change_of_keys_leaves_a_database_that_opens(mode: Mode, count: int, kind: str, tmp_path: Path) -> None:
    """With the old keys or the new ones, as far as the change had come, and never with neither."""
    (tmp_path / "database").mkdir()
    recording = record(HELIOS, mode, tmp_path / "database")
    filled = recording.marks[2].returned  # the table is there
    failures, finished = [], 0
    share = count - count // 4 if kind == "power" else count // 4
    for number, crash in enumerate(crashes(recording, share, 7, kind)):
        try:
            survive(recording, crash)
            if number % RERUNS == 0 and crash.point > filled and _has_table(recording.path):
                _finish(recording.path)
                finished += 1
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, f"{len(failures)} of {share} crashes:\n" + "\n".join(failures[:5])
    assert finished or share < 4 * RERUNS, "no rotation was run again"


def _has_table(path: Path) -> bool:
    """Tell whether the recovery left the ledger: without its durability a crash may undo its creation."""
    vfs = heliosvfs.HeliosVFS("key-changes", keyring=heliosvfs.Keyring(default=HELIOS._keys["first"]))
    try:
        with contextlib.closing(heliosvfs.connect(path, vfs=vfs.name)) as connection:
            return bool(connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'ledger'").get)
    finally:
        vfs.unregister()
