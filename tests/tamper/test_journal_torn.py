"""A journal that was not synced before its records were counted: a record that does not open may be torn, and ends the rollback.

The database itself is not touched before the journal is durable, so what recovery skips there was never overwritten. Here it was,
which shows what exactly recovery takes: from the first bad record on nothing at all.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from tests.tamper.samples import KEY, PAGE, Rows, flip, piece, put

RECORD = PAGE + 8


@pytest.fixture(params=["off", "normal"])
def hot(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Make a database with a hot journal whose headers do not vouch for their records."""
    live = tmp_path / "live"
    with closing(heliosvfs.connect(live, key=KEY, page_size=PAGE, journal_mode="delete", cache_mb=0.005)) as connection:
        connection.pragma("synchronous", request.param)
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x TEXT)")
        connection.executemany("INSERT INTO t VALUES(?, ?)", ((row, "0" * 200) for row in range(60)))
        connection.execute("BEGIN; UPDATE t SET x = replace(x, '0', '1')")
        (tmp_path / "left").mkdir()
        for suffix in ("", "-journal"):
            shutil.copy(f"{live}{suffix}", tmp_path / "left" / f"db{suffix}")
    return tmp_path / "left" / "db"


def journal_of(path: Path) -> Path:
    return Path(f"{path}-journal")


def read(path: Path) -> Rows:
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        return {row: value[0] for row, value in connection.execute("SELECT i, x FROM t")}


def without_journal(path: Path, folder: Path) -> Rows:
    """Return what the database file alone holds."""
    folder.mkdir()
    shutil.copy(path, folder / "db")
    return read(folder / "db")


def number_of(journal: Path, record: int) -> bytes:
    return piece(journal, 512 + record * RECORD, 4)


def zeros_under(checksum: Callable[[Path], bytes]) -> Callable[[Path], None]:
    return lambda journal: put(journal, 516, bytes(PAGE) + checksum(journal))


ATTACKS: dict[str, Callable[[Path], None]] = {
    "page flipped": lambda journal: flip(journal, 516),
    "tag flipped": lambda journal: flip(journal, 516 + PAGE - 32),
    "checksum flipped": lambda journal: flip(journal, 516 + PAGE),
    "zeros under the old checksum": lambda journal: put(journal, 516, bytes(PAGE)),
    "zeros under the nonce": zeros_under(lambda journal: piece(journal, 12, 4)),
    "zeros under zeros": zeros_under(lambda _: bytes(4)),
    "the next record, number and all": lambda journal: put(journal, 512, piece(journal, 512 + RECORD, RECORD)),
    "the next record under this number": lambda journal: put(journal, 516, piece(journal, 516 + RECORD, RECORD - 4)),
    "another number": lambda journal: put(journal, 512, number_of(journal, 1)),
    "number 0": lambda journal: put(journal, 512, bytes(4)),
    "the lock page": lambda journal: put(journal, 512, struct.pack(">I", 0x40000000 // PAGE + 1)),
    "cut off": lambda journal: journal.write_bytes(journal.read_bytes()[: 512 + RECORD - 1]),
}


def test_the_journal_is_what_these_tests_take_it_for(hot: Path, tmp_path: Path) -> None:
    """Its first segment counts several records and does not vouch for them; whole, it is rolled back whole."""
    header = piece(journal_of(hot), 0, 64)
    assert header[60] == 0 or header[8:12] == b"\xff" * 4
    assert int.from_bytes(header[8:12], "big") > 3
    assert set(without_journal(hot, tmp_path / "alone").values()) == {"0", "1"}
    assert set(read(hot).values()) == {"0"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_taken_from_a_bad_first_record_on(hot: Path, tmp_path: Path, attack: str) -> None:
    """In particular no zero page, and no image at another place than its own."""
    alone = without_journal(hot, tmp_path / "alone")
    ATTACKS[attack](journal_of(hot))
    try:
        assert read(hot) == alone
    except heliosvfs.TamperedError:
        assert journal_of(hot).exists()


def test_records_before_a_bad_one_are_taken(hot: Path, tmp_path: Path) -> None:
    alone = without_journal(hot, tmp_path / "alone")
    flip(journal_of(hot), 512 + 3 * RECORD + 4)
    found = read(hot)
    changed = {row for row, value in found.items() if value != alone[row]}
    assert changed
    assert {found[row] for row in changed} == {"0"}
