"""The rollback journal: what was altered in it ends the rollback there, or is refused; it never brings a page of its own making.

A rollback that is cut short leaves pages of the transaction that it should have undone, each of them authentic: who can alter a
journal can as well remove it (docs/THREAT-MODEL.md). Which of the two happens where is stated in `test_what_was_synced...`.
"""

from __future__ import annotations

import struct
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from tests.tamper.samples import KEY, OTHER_KEY, PAGE, Sample, flip, make, outcome, page_offset, piece, put

RECORD = PAGE + 8
HEADER = {
    "magic": 0,
    "end of the magic": 7,
    "record count": 11,
    "nonce": 12,
    "initial size": 19,
    "sector size": 22,
    "page size": 26,
    "HMAC": 28,
    "end of the HMAC": 59,
}
PARTS = {
    "page number": 3,
    "page": 4,
    "end of the page": 4 + PAGE - 33,
    "tag": 4 + PAGE - 32,
    "nonce": 4 + PAGE - 16,
    "epoch": 4 + PAGE - 2,
    "sub-key": 4 + PAGE - 1,
    "checksum": 4 + PAGE,
    "end of the checksum": 4 + PAGE + 3,
}
MODES = ["delete", "truncate", "persist"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    return {mode: make(tmp_path_factory.mktemp(mode), mode) for mode in MODES}


@pytest.fixture(params=MODES)
def sample(request: pytest.FixtureRequest, originals: dict[str, Sample], tmp_path: Path) -> Sample:
    return originals[request.param].copy(tmp_path / "sample")


@pytest.fixture
def hot(originals: dict[str, Sample], tmp_path: Path) -> Sample:
    return originals["delete"].copy(tmp_path / "hot")


def segments(journal: Path) -> list[tuple[int, int]]:
    """Return offset and record count of each header."""
    data, found, at = journal.read_bytes(), [], 0
    while data[at : at + 8] == b"\0HELIOSJ":
        count = int.from_bytes(data[at + 8 : at + 12], "big")
        found.append((at, count))
        at = -(-(at + 512 + count * RECORD) // 512) * 512
    return found


def records(journal: Path) -> list[int]:
    """Return the offsets of all records."""
    return [at + 512 + n * RECORD for at, count in segments(journal) for n in range(count)]


def authentic(sample: Sample) -> None:
    """Require an error, or pages of the transaction or of the commit before it and nothing else (`outcome` sees to that)."""
    found = outcome(sample)
    if isinstance(found, (heliosvfs.HeliosError, apsw.CorruptError)):
        return
    for row, value in found.items():
        assert all(byte in either for byte, *either in zip(value, sample.states[-1][row], sample.uncommitted[row], strict=True))


def test_the_sample_is_what_these_tests_take_it_for(sample: Sample) -> None:
    """The journal has several segments with several records, and without it the database holds what was never committed."""
    journal = sample.beside("-journal")
    assert len(segments(journal)) > 3
    assert len(records(journal)) > 10
    kept = journal.with_name("kept")
    files = sample.path.read_bytes()
    journal.rename(kept)
    found = outcome(sample)
    assert not isinstance(found, Exception)
    assert set(found.items()) - set(sample.states[-1].items())
    sample.path.write_bytes(files)
    kept.rename(journal)
    assert outcome(sample) == sample.states[-1]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("record", [0, 1, 5, -1])
def test_a_flipped_bit_in_a_record_brings_no_page_of_its_own(sample: Sample, record: int, part: str) -> None:
    flip(sample.beside("-journal"), records(sample.beside("-journal"))[record] + PARTS[part])
    authentic(sample)


@pytest.mark.parametrize("field", HEADER)
@pytest.mark.parametrize("segment", [0, 1, -1])
def test_a_flipped_bit_in_a_header_brings_no_page(sample: Sample, segment: int, field: str) -> None:
    flip(sample.beside("-journal"), segments(sample.beside("-journal"))[segment][0] + HEADER[field])
    authentic(sample)


@pytest.mark.parametrize("field", [field for field in HEADER if "magic" not in field])
def test_an_altered_first_header_is_refused_and_the_journal_kept(sample: Sample, field: str) -> None:
    """Record count, nonce, sizes: all that steers the rollback is under the HMAC, and a whole wrong HMAC is no torn write."""
    journal = sample.beside("-journal")
    # an HMAC that ends in zero is one that a torn write left
    flip(journal, HEADER[field], mask=2 if piece(journal, HEADER[field], 1) == b"\1" else 1)
    altered = sample.beside("-journal").read_bytes()
    error = outcome(sample)
    assert isinstance(error, heliosvfs.TamperedError)
    assert error.file == str(sample.beside("-journal"))
    assert sample.beside("-journal").read_bytes() == altered


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("record", [0, 1, 5])
def test_what_was_synced_before_it_was_counted_must_open(hot: Sample, record: int, part: str) -> None:
    """At synchronous=FULL a record is durable before the header counts it: one that does not open then was altered, not torn.

    To take it for a torn one would present as committed what never was.
    """
    flip(hot.beside("-journal"), records(hot.beside("-journal"))[record] + PARTS[part])
    altered = hot.beside("-journal").read_bytes()
    assert isinstance(outcome(hot), heliosvfs.TamperedError)
    assert hot.beside("-journal").read_bytes() == altered


@pytest.mark.parametrize(
    "length", [0, 1, 27, 28, 59, 60, 511, 512, 512 + RECORD - 1, 512 + RECORD, 512 + RECORD + 3, 5000, 20000]
)
def test_a_truncated_journal_brings_no_page_of_its_own(sample: Sample, length: int) -> None:
    journal = sample.beside("-journal")
    journal.write_bytes(journal.read_bytes()[:length])
    authentic(sample)


def zero_page(journal: Path, at: int) -> bytes:
    """Return a record whose page is not authentic, and whose masked checksum was taken from an authentic one."""
    return piece(journal, at, 4) + bytes(PAGE) + piece(journal, at + 4 + PAGE, 4)


@pytest.mark.parametrize("record", range(6))
def test_a_record_of_zeros_never_becomes_a_page(sample: Sample, record: int) -> None:
    """The attack on a mask that can be learned: zeros under a checksum that fits zeros would be an authentic zero page."""
    journal = sample.beside("-journal")
    at = records(journal)[record]
    nonce = piece(journal, 12, 4)
    for checksum in (piece(journal, at + 4 + PAGE, 4), nonce, bytes(4), b"\xff" * 4, bytes(a ^ 255 for a in nonce)):
        copy = sample.copy(sample.path.parent.with_name("copy"))
        put(copy.beside("-journal"), at + 4, bytes(PAGE) + checksum)
        authentic(copy)


def test_a_checksum_mask_is_not_that_of_another_record(sample: Sample) -> None:
    """With the mask of a record known, no other checksum of the journal can be made: masks differ for all records."""
    journal = sample.beside("-journal")
    masks = {piece(journal, at + 4 + PAGE, 4) for at in records(journal)}
    assert len(masks) == len(records(journal))


@pytest.mark.parametrize(("target", "source"), [(0, 1), (1, 0), (0, 4), (4, 0), (5, -1)])
@pytest.mark.parametrize("number", ["its own number", "the other's number"])
def test_a_record_at_another_position_is_not_played_back(sample: Sample, target: int, source: int, number: str) -> None:
    journal = sample.beside("-journal")
    to, from_ = records(journal)[target], records(journal)[source]
    skip = 0 if number == "its own number" else 4
    put(journal, to + skip, piece(journal, from_ + skip, RECORD - skip))
    authentic(sample)


@pytest.mark.parametrize("key", [KEY, OTHER_KEY], ids=["same key", "other key"])
@pytest.mark.parametrize("what", ["journal", "records", "a record"])
def test_a_journal_of_another_file_is_not_played_back(hot: Sample, tmp_path: Path, key: bytes, what: str) -> None:
    other = make(tmp_path / "other", "delete", key=key).beside("-journal")
    journal, content = hot.beside("-journal"), other.read_bytes()
    if what == "journal":
        journal.write_bytes(content)
        assert isinstance(outcome(hot), heliosvfs.TamperedError)
    elif what == "records":
        journal.write_bytes(journal.read_bytes()[:512] + content[512:])
        authentic(hot)
    else:
        put(journal, 512, piece(other, 512, RECORD))
        authentic(hot)


@pytest.mark.parametrize("what", ["a record", "records", "a later segment"])
def test_records_of_an_earlier_journal_of_the_same_file_are_not_played_back(tmp_path: Path, what: str) -> None:
    """Their pages authenticate: only the nonce of the journal in force, in mask and HMAC, tells them apart."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, page_size=PAGE, journal_mode="delete", cache_mb=0.005)) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x TEXT)")
        connection.executemany("INSERT INTO t VALUES(?, ?)", ((row, "0" * 200) for row in range(60)))
        connection.execute("BEGIN; UPDATE t SET x = replace(x, '0', '1')")
        earlier = (tmp_path / "db-journal").read_bytes()
        connection.execute("COMMIT; BEGIN; UPDATE t SET x = replace(x, '1', '2')")
        states = tuple(dict.fromkeys(range(60), digit * 200) for digit in "1")
        left = Sample(path, states, dict.fromkeys(range(60), "2" * 200)).copy(tmp_path / "left")
    journal = left.beside("-journal")
    assert segments(journal)[0][1] == int.from_bytes(earlier[8:12], "big") > 1
    if what == "a record":
        put(journal, 512 + RECORD, earlier[512 + RECORD : 512 + 2 * RECORD])
    elif what == "records":
        journal.write_bytes(journal.read_bytes()[:512] + earlier[512:])
    else:
        second = segments(journal)[1][0]
        journal.write_bytes(journal.read_bytes()[:second] + earlier[second:])
    found = outcome(left)
    if not isinstance(found, Exception):
        assert {value[0] for value in found.values()} <= {"1", "2"}


LOCK_PAGE = 0x40000000 // PAGE + 1


@pytest.mark.parametrize("number", [0, LOCK_PAGE, LOCK_PAGE + 1, 21, 1 << 31, 0xFFFFFFFF])
def test_a_record_of_no_page_is_not_played_back(sample: Sample, number: int) -> None:
    """The lock-byte page's number announces the name of a super-journal, and is never a page."""
    journal = sample.beside("-journal")
    put(journal, records(journal)[0], struct.pack(">I", number))
    authentic(sample)


def super_journal(name: bytes) -> bytes:
    """Return the end of a journal that belongs to a super-journal, which anybody can write (pager.c, writeSuperJournal)."""
    return struct.pack(">I", LOCK_PAGE) + name + struct.pack(">II", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7")


@pytest.mark.parametrize("name", ["victim", "db-journal", "db", "db-mj1A2B3C9DE", "missing-mj1A2B3C9DE"])
def test_a_forged_super_journal_name_deletes_no_file(hot: Sample, name: str) -> None:
    """Whoever may write the journal must not be able to name a file for the database's owner to delete."""
    victim = hot.path.with_name(name)
    if not victim.exists() and not name.startswith("missing"):
        victim.write_bytes(b"precious")
    with hot.beside("-journal").open("ab") as file:
        file.write(super_journal(str(victim).encode()))
    authentic(hot)
    assert victim.exists() == (not name.startswith("missing") and not name.endswith("-journal"))


def test_a_name_record_in_place_of_a_page_is_not_played_back(sample: Sample) -> None:
    """A record that announces a super-journal name and holds a sealed page stays what it announces."""
    journal = sample.beside("-journal")
    at = records(journal)[1]
    put(journal, at, struct.pack(">I", LOCK_PAGE) + b"/tmp/x".ljust(PAGE, b"\0"))
    authentic(sample)


class _SwitchingFile(apsw.VFSFile):
    """A file beneath ours that gives SQLite one page number and us another: an attacker who writes between two reads."""

    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], vfs: Switching) -> None:
        self._vfs = vfs
        self._is_journal = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_JOURNAL)
        super().__init__("unix", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        found = super().xRead(amount, offset)
        if self._is_journal and (amount, offset) in self._vfs.once:
            self._vfs.used.append(offset)
            return self._vfs.once.pop((amount, offset))
        return found


class Switching(apsw.VFS):
    """A base VFS that answers chosen reads of a journal, once, with other bytes."""

    def __init__(self) -> None:
        self.once: dict[tuple[int, int], bytes] = {}
        self.used: list[int] = []
        super().__init__("switching", "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _SwitchingFile(name, flags, self)


@pytest.mark.parametrize("what", ["page number", "record count", "nonce", "initial size"])
def test_what_sqlite_reads_of_a_journal_is_what_was_verified(hot: Sample, what: str) -> None:
    """SQLite reads the fields of a header and the number of a record by itself, before or after we have looked at them."""
    base = Switching()
    vfs = heliosvfs.HeliosVFS("over-switching", base="switching")
    journal = hot.beside("-journal")
    at = records(journal)
    offset, value = {
        "page number": (at[5], piece(journal, at[0], 4)),
        "record count": (8, struct.pack(">I", 1)),
        "nonce": (12, bytes(4)),
        "initial size": (16, struct.pack(">I", 2)),
    }[what]
    base.once[4, offset] = value
    try:
        with closing(heliosvfs.connect(hot.path, key=KEY, vfs=vfs.name)) as connection:
            found = dict(connection.execute("SELECT i, x FROM t").fetchall())
        assert found == hot.states[-1]
    except heliosvfs.TamperedError:
        pass
    finally:
        vfs.unregister()
        base.unregister()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("record", [0, 5])
def test_a_record_altered_before_its_own_writer_rolls_back_is_refused(tmp_path: Path, record: int, part: str) -> None:
    """There is no torn write while the writer lives: its rollback is whole, or an error."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, page_size=PAGE, journal_mode="delete", cache_mb=0.001)) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x TEXT)")
        connection.executemany("INSERT INTO t VALUES(?, ?)", ((row, "0" * 200) for row in range(60)))
        connection.execute("BEGIN; UPDATE t SET x = replace(x, '0', '1')")
        journal = tmp_path / "db-journal"
        flip(journal, records(journal)[record] + PARTS[part])
        with pytest.raises(heliosvfs.TamperedError):
            connection.execute("ROLLBACK")
        flip(journal, records(journal)[record] + PARTS[part])
        assert connection.execute("SELECT DISTINCT substr(x, 1, 1) FROM t").fetchall() == [("0",)]


def test_a_page_of_the_database_in_a_record_is_not_played_back(sample: Sample) -> None:
    journal = sample.beside("-journal")
    at = records(journal)[0]
    number = int.from_bytes(piece(journal, at, 4), "big")
    put(journal, at + 4, piece(sample.path, page_offset(number), PAGE))
    authentic(sample)
