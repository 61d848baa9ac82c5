"""The simulator itself: SQLite survives it where SQLite promises to, and whatever breaks the promise is caught."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.crash.broken import DeafVFS, EarlyVFS, ForgetfulVFS, HoldingVFS, LyingVFS
from tests.crash.disks import SECTOR, after_power_cut, after_process_death
from tests.crash.recorder import Create, Delete, Log, Sync, SyncDirectory, Write
from tests.crash.recovery import crashes, record, survive
from tests.crash.subjects import PLAIN, Plain
from tests.crash.workloads import Mode

if TYPE_CHECKING:
    from pathlib import Path

    import apsw

    from tests.crash.recorder import Operation

# NORMAL in a rollback journal is left out: a torn record can pass the checksum, a sum of every 200th byte of a page
SAFE = [
    Mode("delete", "full", psow=True, page_size=512),
    Mode("truncate", "full", psow=False, page_size=4096),
    Mode("persist", "full", psow=False, page_size=512),
    Mode("wal", "full", psow=False, page_size=4096),
    Mode("wal", "full", psow=True, page_size=512),
    Mode("wal", "normal", psow=True, page_size=4096),
    Mode("delete", "extra", psow=False, page_size=4096),
    Mode("wal", "full", psow=False, page_size=512, workload="readers"),
    Mode("persist", "extra", psow=True, page_size=512, workload="two files"),
    Mode("delete", "full", psow=True, page_size=4096, workload="two files"),
]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory that only the database under test uses."""
    path = tmp_path / "database"
    path.mkdir()
    return path


@pytest.mark.parametrize("mode", SAFE, ids=str)
def test_plain_sqlite_survives_every_power_cut(mode: Mode, directory: Path) -> None:
    """What SQLite promises holds on the simulated disk, so a failure of another subject is its own."""
    recording = record(PLAIN, mode, directory)
    for crash in crashes(recording, 25, 1, "power"):
        survive(recording, crash)


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_plain_sqlite_loses_nothing_when_the_process_dies(journal: str, directory: Path) -> None:
    """Not even at synchronous=OFF."""
    recording = record(PLAIN, Mode(journal, "off", psow=True, page_size=512), directory)
    for crash in crashes(recording, 15, 1, "death"):
        survive(recording, crash)


@pytest.mark.parametrize(
    ("layer", "mode", "kind"),
    [
        (DeafVFS, Mode("delete", "full", psow=True, page_size=4096), "power"),
        (DeafVFS, Mode("wal", "full", psow=True, page_size=4096), "power"),
        (EarlyVFS, Mode("delete", "full", psow=True, page_size=4096), "power"),
        (ForgetfulVFS, Mode("delete", "extra", psow=True, page_size=4096), "power"),
        (HoldingVFS, Mode("wal", "normal", psow=True, page_size=4096), "death"),
        (LyingVFS, Mode("wal", "full", psow=False, page_size=4096), "power"),
        (LyingVFS, Mode("delete", "full", psow=False, page_size=512), "power"),
    ],
)
def test_a_broken_disk_is_caught(layer: type[apsw.VFS], mode: Mode, kind: str, directory: Path) -> None:
    """Each way to lose data that the simulator exists for shows, and the report says how to see it again."""
    recording = record(Plain(layer.__name__, layer), mode, directory)
    for crash in crashes(recording, 500, 1, kind):
        try:
            survive(recording, crash)
        except AssertionError as error:
            assert repr(crash) in str(error)  # noqa: PT017 - which crash it will be is not known before
            assert repr(mode) in str(error)  # noqa: PT017
            return
    pytest.fail("nothing was noticed")


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_the_log_replayed_to_its_end_is_what_the_files_hold(journal: str, directory: Path) -> None:
    """The recorder misses no operation."""
    recording = record(PLAIN, Mode(journal, "full", psow=True, page_size=512), directory)
    assert after_process_death(recording.log, len(recording.log)) == {
        file.name: file.read_bytes() for file in directory.iterdir()
    }


def _log(*operations: Operation) -> Log:
    log = Log()
    log.operations.extend(operations)
    return log


def _cuts(log: Log, *, psow: bool = True, ordered: bool = True) -> list[dict[str, bytes]]:
    rngs = map(Random, range(300))
    return [after_power_cut(log, len(log), rng, psow=psow, ordered=ordered) for rng in rngs]


@pytest.mark.parametrize("psow", [True, False])
def test_what_was_synced_is_there_after_every_power_cut(psow: bool) -> None:
    """Later writes harm no synced bytes but those beside their own, and these only without psow."""
    log = _log(
        Create(0, "main"),
        Write(0, 0, b"s" * 8 * 4096),
        Sync(0, "main"),
        SyncDirectory(),
        Write(0, 4096 + 100, b"n" * 50),
    )
    contents = [files["main"] for files in _cuts(log, psow=psow)]
    assert {content[:4096] + content[8192:] for content in contents} == {b"s" * 7 * 4096}
    beside = {content[4096 : 4096 + 100] for content in contents}
    assert (beside == {b"s" * 100}) == psow


def test_an_unsynced_write_is_sometimes_there_sometimes_not_and_sometimes_torn() -> None:
    """All fates of a write occur, one later write without an earlier one among them."""
    old, new = b"o" * 4 * SECTOR, b"n" * 4 * SECTOR
    log = _log(
        Create(0, "main"),
        Write(0, 0, old + old),
        Sync(0, "main"),
        SyncDirectory(),
        Write(0, 0, new),
        Write(0, len(old), new),
    )
    contents = {files["main"] for files in _cuts(log)}
    assert {old + old, new + new, old + new, new + old} <= contents
    sectors = [{content[start : start + SECTOR] for start in range(0, len(content), SECTOR)} for content in contents]
    assert any({b"o" * SECTOR, b"n" * SECTOR} == parts for parts in sectors)
    assert any(not parts <= {b"o" * SECTOR, b"n" * SECTOR} for parts in sectors), "no sector was torn inside"


def test_names_are_undone_until_their_directory_is_synced() -> None:
    """A created file may be missing with all its synced content, a deleted one may be back."""
    created = _log(Create(0, "main"), Write(0, 0, b"x"), Sync(0, "main"))
    assert {tuple(files.items()) for files in _cuts(created)} == {(), (("main", b"x"),)}
    deleted = _log(Create(0, "main-journal"), Write(0, 0, b"x"), Sync(0, "main-journal"), SyncDirectory(), Delete("main-journal"))
    assert {tuple(files.items()) for files in _cuts(deleted)} == {(), (("main-journal", b"x"),)}
    durable = _log(*deleted.operations, SyncDirectory())
    assert _cuts(durable, ordered=False) == [{}] * 300
