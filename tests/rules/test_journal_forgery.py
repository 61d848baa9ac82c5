"""Rule 11: what someone without the key can make of a hot journal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from tests.rules.conftest import EXPECTED, Crash, states

PAGE = 512
RECORD = PAGE + 8
LOCK_PAGE = (0x40000000 // PAGE + 1).to_bytes(4, "big")


def first_record(journal: bytes) -> int:
    """Return the offset of the first record: behind the header's sector."""
    return int.from_bytes(journal[20:24], "big")


def zero_page(journal: bytearray) -> None:
    """Put an all-zero page over a chosen page: with a mask that depended on the trailer alone this was accepted."""
    at = first_record(journal)
    journal[at + 4 : at + 4 + PAGE] = bytes(PAGE)


def move_record(journal: bytearray) -> None:
    at = first_record(journal)
    journal[at : at + RECORD], journal[at + RECORD : at + 2 * RECORD] = (
        journal[at + RECORD : at + 2 * RECORD],
        journal[at : at + RECORD],
    )


def repeat_record(journal: bytearray) -> None:
    at = first_record(journal)
    journal[at + RECORD : at + 2 * RECORD] = journal[at : at + RECORD]


def rename_record(journal: bytearray) -> None:
    at = first_record(journal)
    journal[at + 3] ^= 1


def lock_page_record(journal: bytearray) -> None:
    at = first_record(journal)
    journal[at : at + 4] = LOCK_PAGE


def no_page_record(journal: bytearray) -> None:
    at = first_record(journal)
    journal[at : at + 4] = bytes(4)


ATTACKS = [zero_page, move_record, repeat_record, rename_record, lock_page_record, no_page_record]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_forged_record_puts_nothing_into_the_database(crashed: Crash, attack: Callable[[bytearray], None]) -> None:
    """Its records were durable before they were counted, so a record that is not authentic in its place is no torn one.

    Nor is one that SQLite would take for the end of the journal: the name of a super-journal is not counted.
    """
    path = crashed("delete")
    journal, before = path.with_name("db-journal"), path.read_bytes()
    original = journal.read_bytes()
    forged = bytearray(original)
    attack(forged)
    journal.write_bytes(forged)
    with pytest.raises(heliosvfs.TamperedError):
        states(path)
    assert journal.read_bytes() == bytes(forged), "recovery data was given up"
    path.write_bytes(before)
    journal.write_bytes(original)
    assert states(path) == EXPECTED["delete"]


def test_the_name_of_a_super_journal_is_never_restored_as_a_page(crashed: Crash) -> None:
    """It stands behind the records; without syncs nothing counts these, and whatever lies there is read as if it were one."""
    path = crashed("delete", synchronous="off")
    journal = path.with_name("db-journal")
    records = journal.read_bytes()
    assert records[8:12] == b"\xff" * 4
    journal.write_bytes(records + LOCK_PAGE + records[4 - RECORD :])
    assert states(path) == EXPECTED["delete"]
    assert path.stat().st_size == 32768 + PAGE * int.from_bytes(records[16:20], "big")
    assert not journal.exists()


@pytest.mark.parametrize("field", ["records", "nonce", "initial size", "sector size", "page size"])
def test_an_altered_header_is_tampering_and_the_journal_stays(crashed: Crash, field: str) -> None:
    path = crashed("delete")
    journal = path.with_name("db-journal")
    original = journal.read_bytes()
    at = {"records": 11, "nonce": 15, "initial size": 19, "sector size": 22, "page size": 26}[field]
    altered = bytearray(original)
    altered[at] ^= 1
    journal.write_bytes(altered)
    with pytest.raises(heliosvfs.TamperedError):
        states(path)
    assert journal.read_bytes() == bytes(altered)
    journal.write_bytes(original)
    assert states(path) == EXPECTED["delete"]


def test_the_journal_of_another_database_is_refused(crashed: Crash) -> None:
    path, other = crashed("delete"), crashed("persist", key=b"other key of thirty-two bytes ok")
    foreign = other.with_name("db-journal").read_bytes()
    path.with_name("db-journal").write_bytes(foreign)
    with pytest.raises(heliosvfs.TamperedError):
        states(path)
    assert path.with_name("db-journal").read_bytes() == foreign


@pytest.mark.parametrize("written", [0, 1, 9, 31])
def test_a_header_that_was_torn_while_it_was_counted_protects_nothing_yet(tmp_path: Path, written: int) -> None:
    """Its sync had not returned, so the database was not touched: the journal must not keep it from opening."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=bytes(range(32)), journal_mode="delete", page_size=PAGE)) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.executemany("INSERT INTO t VALUES(randomblob(300))", [()] * 100)
        before = path.read_bytes()
        connection.pragma("cache_size", 2)
        connection.execute("BEGIN; UPDATE t SET x = randomblob(310)")
        journal = bytearray((tmp_path / "db-journal").read_bytes())
        assert journal[60] == 1, "the records were not durable before they were counted"
        connection.execute("ROLLBACK")
    journal[28 + written : 61] = bytes(33 - written)
    path.write_bytes(before)
    (tmp_path / "db-journal").write_bytes(journal)
    with closing(heliosvfs.connect(path, key=bytes(range(32)), create=False)) as connection:
        assert connection.execute("SELECT count(*) FROM t WHERE length(x) = 300").get == 100
        assert connection.pragma("integrity_check") == "ok"
