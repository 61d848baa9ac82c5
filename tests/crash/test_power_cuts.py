"""Power cuts and process deaths at any moment, from the creation of the file on; recovery.py says what is required.

``--power-cuts N`` sets the number of crashes in all. A failure names its mode and crash; to see it again:
``survive(record(HELIOS, Mode(...), directory), Crash(...))``.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tests.crash.recovery import crashes, record, survive
from tests.crash.subjects import HELIOS
from tests.crash.workloads import Mode

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ALL_MODES_FROM = 2000  # crashes for which every combination is worth its recording

JOURNALS = ["delete", "truncate", "persist", "wal"]
LEVELS = ["full", "normal", "extra"]

_ledgers = list(itertools.product(JOURNALS, LEVELS))
# every pair of journal, level, psow and page size occurs
SHORT = [
    *(Mode(journal, level, number % 2 == 0, (512, 4096)[number // 2 % 2]) for number, (journal, level) in enumerate(_ledgers)),
    Mode("wal", "full", psow=False, page_size=512, workload="readers"),
    Mode("wal", "normal", psow=True, page_size=4096, workload="readers"),
    Mode("delete", "full", psow=True, page_size=4096, workload="two files"),
    Mode("truncate", "extra", psow=False, page_size=512, workload="two files"),
    Mode("persist", "normal", psow=True, page_size=512, workload="two files"),
    Mode("wal", "full", psow=True, page_size=512, workload="slots"),
    Mode("wal", "normal", psow=False, page_size=4096, workload="slots"),
    Mode("delete", "full", psow=False, page_size=512, workload="slots"),
]
LONG = [
    *(Mode(journal, level, *rest) for journal, level in _ledgers for rest in itertools.product([True, False], [512, 4096])),
    *(
        Mode("wal", level, psow, size, "readers")
        for level, psow, size in itertools.product(LEVELS, [True, False], [512, 4096])
        # at NORMAL without psow SQLite itself loses synced frames: a later commit shares their last sector
        if psow or level != "normal"
    ),
    *(
        Mode(journal, level, psow, size, workload)
        for journal, level, psow, size in itertools.product(JOURNALS, LEVELS, [True, False], [512, 4096])
        for workload in ("slots", "two files")
        if workload == "slots" or journal != "wal"  # a transaction over two files in WAL mode is not atomic
    ),
]
DEATHS = [
    Mode(journal, level, psow=True, page_size=size, workload=workload)
    for journal, level, size, workload in [
        ("delete", "off", 512, "ledger"),
        ("truncate", "off", 4096, "ledger"),
        ("persist", "normal", 512, "ledger"),
        ("wal", "off", 512, "ledger"),
        ("wal", "normal", 4096, "ledger"),
        ("wal", "off", 4096, "readers"),
        ("wal", "off", 512, "slots"),
        ("delete", "normal", 4096, "two files"),  # at OFF SQLite makes no super-journal
    ]
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spread the crashes over the modes, one test for each."""
    total = metafunc.config.getoption("--power-cuts")
    kind = "death" if "death" in metafunc.function.__name__ else "power"
    modes = DEATHS if kind == "death" else LONG if total >= ALL_MODES_FROM else SHORT
    share = total // 5 if kind == "death" else total - total // 5
    counts = [share // len(modes) + (number < share % len(modes)) for number in range(len(modes))]
    metafunc.parametrize(("mode", "count"), list(zip(modes, counts, strict=True)), ids=[str(mode) for mode in modes])


def _survives_all(mode: Mode, count: int, kind: str, directory: Path) -> None:
    directory.mkdir()
    recording = record(HELIOS, mode, directory)
    failures = []
    for crash in crashes(recording, count, 1, kind):
        try:
            survive(recording, crash)
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, f"{len(failures)} of {count} crashes:\n" + "\n".join(failures[:5])


def test_a_power_cut_neither_damages_the_database_nor_undoes_what_was_durable(mode: Mode, count: int, tmp_path: Path) -> None:
    """Torn, lost and reordered writes, undone names and truncations, garbage beside writes without psow."""
    _survives_all(mode, count, "power", tmp_path / "database")


def test_the_death_of_the_process_loses_no_commit_at_any_synchronous_level(mode: Mode, count: int, tmp_path: Path) -> None:
    """Every write that was made is kept then, so nothing may be held back when a commit returns."""
    _survives_all(mode, count, "death", tmp_path / "database")
