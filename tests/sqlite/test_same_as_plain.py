"""The same statements give the same content on an encrypted database as on plain SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sqlite.workload import AUTO_VACUUM, Encrypted, Plain, folders, run

PAGE_SIZES = (512, 1024, 4096, 8192, 65536)
JOURNAL_MODES = ("delete", "truncate", "persist", "memory", "off", "wal")


@pytest.mark.parametrize("auto_vacuum", AUTO_VACUUM)
@pytest.mark.parametrize("journal_mode", JOURNAL_MODES)
@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_a_workload_gives_the_same_content(tmp_path: Path, page_size: int, journal_mode: str, auto_vacuum: str) -> None:
    plain, encrypted = folders(tmp_path)
    seed = page_size * 100 + JOURNAL_MODES.index(journal_mode) * 10 + AUTO_VACUUM.index(auto_vacuum)
    expected = run(Plain(plain, page_size, auto_vacuum, journal_mode), seed, rounds=14)
    found = run(Encrypted(encrypted, page_size, auto_vacuum, journal_mode), seed, rounds=14)
    assert found == expected


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("journal_mode", JOURNAL_MODES)
def test_a_long_workload_gives_the_same_content(tmp_path: Path, journal_mode: str, seed: int) -> None:
    plain, encrypted = folders(tmp_path)
    page_size, auto_vacuum = PAGE_SIZES[seed % 5], AUTO_VACUUM[seed % 3]
    expected = run(Plain(plain, page_size, auto_vacuum, journal_mode), seed, rounds=150)
    assert run(Encrypted(encrypted, page_size, auto_vacuum, journal_mode), seed, rounds=150) == expected
