"""The WAL: what was altered in it ends the log there, as a torn write does, or is refused; it never adds anything.

A log that is cut short gives an earlier commit: who can alter it can as well remove it (docs/THREAT-MODEL.md).
"""

from __future__ import annotations

import itertools
import struct
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.vfs.wal_header import _checksum
from tests.tamper.samples import (
    FRAME,
    KEY,
    OTHER_KEY,
    PAGE,
    ROWS,
    Sample,
    flip,
    make,
    outcome,
    page_offset,
    piece,
    put,
    text,
)

PARTS = {
    "page number": 0,
    "commit size": 7,
    "salt": 8,
    "checksum": 16,
    "end of the checksum": 23,
    "page": 24,
    "end of the page": FRAME - 33,
    "tag": FRAME - 32,
    "nonce": FRAME - 16,
    "high byte of the epoch": FRAME - 4,
    "epoch": FRAME - 2,
    "sub-key": FRAME - 1,
}
HEADER = {
    "magic": 0,
    "byte order": 3,
    "version": 7,
    "page size": 10,
    "checkpoint number": 15,
    "salt 1": 16,
    "salt 2": 23,
    "checksum": 24,
    "end of the checksum": 31,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make(tmp_path_factory.mktemp("original"), "wal", states=4)


@pytest.fixture
def sample(original: Sample, tmp_path: Path) -> Sample:
    return original.copy(tmp_path / "sample")


def frames(sample: Sample) -> int:
    return (sample.beside("-wal").stat().st_size - 32) // FRAME


def frame_offset(frame: int) -> int:
    return 32 + frame * FRAME


def ends_before(sample: Sample, frame: int) -> None:
    """Require that recovery ends the log before a frame, writes nothing for it, and that the checkpoint keeps that state."""
    expected = sample.state_before(frame if frame >= 0 else sample.frames[-1] + frame)
    left = {file: file.read_bytes() for file in (sample.path, sample.beside("-wal"))}
    with closing(heliosvfs.connect(sample.path, key=KEY, create=False)) as connection:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        assert dict(connection.execute("SELECT i, x FROM t").fetchall()) == expected
    assert {file: file.read_bytes() for file in left} == left
    sample.path.with_name("db-shm").unlink(missing_ok=True)
    assert outcome(sample) == expected
    assert not sample.beside("-wal").exists()
    assert outcome(sample) == expected


def refuses(sample: Sample, kind: type[heliosvfs.HeliosError]) -> heliosvfs.HeliosError:
    """Require an error that names the file, and that not a byte was changed."""
    left = {file: file.read_bytes() for file in (sample.path, sample.beside("-wal"))}
    found = outcome(sample)
    assert type(found) is kind
    assert str(sample.path) in str(found)
    assert {file: file.read_bytes() for file in left} == left
    return found


def test_the_sample_is_what_these_tests_take_it_for(sample: Sample) -> None:
    """Each state took frames of its own, and none has been checkpointed."""
    assert frames(sample) == sample.frames[-1]
    assert all(after - before > 8 for before, after in itertools.pairwise(sample.frames))
    assert sample.state_before(0) == sample.states[0]
    assert sample.state_before(sample.frames[1] - 1) == sample.states[0]
    assert sample.state_before(sample.frames[1]) == sample.states[1]
    assert sample.state_before(frames(sample) - 1) == sample.states[-2]
    assert sample.state_before(frames(sample)) == sample.states[-1]
    log = sample.beside("-wal")
    log.rename(log.with_name("kept"))
    assert outcome(sample) == sample.states[0]
    log.with_name("kept").rename(log)
    assert outcome(sample) == sample.states[-1]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("frame", [0, 1, 9, 20, -2, -1])
def test_a_flipped_bit_in_a_frame_ends_the_log_before_it(sample: Sample, frame: int, part: str) -> None:
    flip(sample.beside("-wal"), frame_offset(frame % frames(sample)) + PARTS[part])
    ends_before(sample, frame)


@pytest.mark.parametrize("frame", [0, 9, -1])
def test_a_frame_that_names_an_epoch_to_come_is_refused_and_loses_nothing(sample: Sample, frame: int) -> None:
    """What another process may have sealed under a key that it has just published is no end of the log."""
    wal, number = sample.beside("-wal"), frame % frames(sample)
    flip(wal, frame_offset(number) + PARTS["epoch"], 3)
    error = refuses(sample, heliosvfs.TamperedError)
    assert isinstance(error, heliosvfs.TamperedError)
    assert (error.file, error.page, error.offset) == (str(wal), number + 1, frame_offset(number))
    flip(wal, frame_offset(number) + PARTS["epoch"], 3)
    assert outcome(sample) == sample.states[-1]


@pytest.mark.parametrize("field", HEADER)
def test_a_flipped_bit_in_the_header_voids_the_log(sample: Sample, field: str) -> None:
    flip(sample.beside("-wal"), HEADER[field])
    ends_before(sample, 0)


@pytest.mark.parametrize("field", [field for field in HEADER if "checksum" not in field])
def test_a_header_altered_with_its_checksum_voids_the_log(sample: Sample, field: str) -> None:
    """The header's checksum is no secret: anybody can put it right. A log of another program is refused."""
    wal = sample.beside("-wal")
    flip(wal, HEADER[field])
    put(wal, 24, _checksum(piece(wal, 0, 24)))
    if field == "version":
        refuses(sample, heliosvfs.FormatError)
    else:
        ends_before(sample, 0)


LENGTHS = [0, 1, 31, 32, 33, 55, 56, 57, 32 + FRAME - 1, 32 + FRAME, 32 + FRAME + 24, 32 + 9 * FRAME + 100, 32 + 20 * FRAME]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_truncated_log_holds_what_was_committed_in_its_whole_frames(sample: Sample, length: int) -> None:
    wal = sample.beside("-wal")
    expected = sample.state_before(max(0, length - 32) // FRAME)
    wal.write_bytes(wal.read_bytes()[:length])
    assert outcome(sample) == expected


@pytest.mark.parametrize(("target", "source"), [(0, 1), (1, 0), (5, 20), (20, 5), (-1, 0), (0, -1)])
def test_a_frame_at_another_position_ends_the_log_before_it(sample: Sample, target: int, source: int) -> None:
    wal, count = sample.beside("-wal"), frames(sample)
    put(wal, frame_offset(target % count), piece(wal, frame_offset(source % count), FRAME))
    ends_before(sample, target)


def test_frames_that_change_places_end_the_log(sample: Sample) -> None:
    wal = sample.beside("-wal")
    first, second = piece(wal, frame_offset(3), FRAME), piece(wal, frame_offset(4), FRAME)
    put(wal, frame_offset(3), second + first)
    ends_before(sample, 3)


def test_frames_appended_again_add_nothing(sample: Sample) -> None:
    wal = sample.beside("-wal")
    content = wal.read_bytes()
    count = frames(sample)
    wal.write_bytes(content + content[32:])
    ends_before(sample, count)


@pytest.mark.parametrize("frame", [0, 7, -1])
@pytest.mark.parametrize("page", [1, 2, 9])
def test_a_database_page_in_a_frame_ends_the_log_before_it(sample: Sample, frame: int, page: int) -> None:
    put(sample.beside("-wal"), frame_offset(frame % frames(sample)) + 24, piece(sample.path, page_offset(page), PAGE))
    ends_before(sample, frame)


@pytest.mark.parametrize("key", [KEY, OTHER_KEY], ids=["same key", "other key"])
@pytest.mark.parametrize("what", ["log", "frames", "a frame"])
def test_a_log_of_another_file_adds_nothing(sample: Sample, tmp_path: Path, key: bytes, what: str) -> None:
    other = make(tmp_path / "other", "wal", key=key, states=5).beside("-wal").read_bytes()
    wal = sample.beside("-wal")
    if what == "log":
        wal.write_bytes(other)
    elif what == "frames":
        wal.write_bytes(wal.read_bytes()[:32] + other[32:])
    else:
        put(wal, frame_offset(4), other[frame_offset(4) : frame_offset(5)])
    ends_before(sample, 4 if what == "a frame" else 0)


class Generations:
    """A log that was restarted, and its predecessor."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        path = folder / "db"
        with closing(heliosvfs.connect(path, key=KEY, page_size=PAGE)) as connection:
            connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x TEXT)")
            connection.executemany("INSERT INTO t VALUES(?, ?)", ((row, text(row, 0)) for row in range(ROWS)))
            connection.pragma("wal_checkpoint", "RESTART")
            connection.execute("UPDATE t SET x = 'long ' || x")
            self.older = (folder / "db-wal").read_bytes()
            connection.pragma("wal_checkpoint", "RESTART")
            ends = [0]
            connection.set_wal_hook(lambda _connection, _schema, frames: ends.append(frames) or 0)
            connection.executemany("UPDATE t SET x = ? WHERE i = ?", ((text(row, 1), row) for row in range(ROWS)))
            before = {row: f"long {text(row, 0)}" for row in range(ROWS)}
            states = [{**before, **{row: text(row, 1) for row in range(done)}} for done in range(ROWS + 1)]
            self.sample = Sample(path, tuple(states), {}, tuple(ends)).copy(folder.with_name(folder.name + "-left"))
        self.newer = self.sample.beside("-wal").read_bytes()


@pytest.mark.parametrize(
    "place", ["behind the end", "first frame", "frame in the middle", "last frame", "all frames", "the whole log"]
)
def test_frames_of_an_earlier_generation_end_the_log(tmp_path: Path, place: str) -> None:
    """They authenticate under their own salts, and the header in force has others."""
    generations = Generations(tmp_path / "generations")
    older, newer, sample = generations.older, bytearray(generations.newer), generations.sample
    assert older[16:24] != newer[16:24]
    used = 32 + FRAME * len([0 for at in range(32, len(newer), FRAME) if newer[at : at + FRAME] != older[at : at + FRAME]])
    assert used == 32 + sample.frames[-1] * FRAME > 32 + 10 * FRAME
    if place == "behind the end":
        newer[used:] = older[used:]
        newer += older[32 : 32 + 5 * FRAME]
    elif place == "all frames":
        newer = newer[:32] + older[32:]
    elif place == "the whole log":
        newer = bytearray(older)
    else:
        at = {"first frame": 32, "frame in the middle": 32 + 6 * FRAME, "last frame": used - FRAME}[place]
        newer[at : at + FRAME] = older[at : at + FRAME]
    sample.beside("-wal").write_bytes(newer)
    ends_before(sample, {"behind the end": sample.frames[-1], "frame in the middle": 6, "last frame": -1}.get(place, 0))


@pytest.mark.parametrize("part", PARTS)
def test_a_frame_altered_under_an_open_connection_is_refused(tmp_path: Path, part: str) -> None:
    """Only recovery may take a frame that does not open for the end of the log: a reader relies on those that it knows."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, page_size=PAGE, cache_mb=0.001)) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x TEXT)")
        connection.executemany("INSERT INTO t VALUES(?, ?)", ((row, text(row, 0)) for row in range(ROWS)))
        wal = tmp_path / "db-wal"
        count = (wal.stat().st_size - 32) // FRAME
        for frame in range(count):
            flip(wal, frame_offset(frame) + PARTS[part])
        connection.release_memory()
        left = {file: file.read_bytes() for file in (path, wal)}
        with pytest.raises(heliosvfs.TamperedError) as caught:
            connection.execute("SELECT * FROM t").fetchall()
        assert {file: file.read_bytes() for file in left} == left
        assert caught.value.file == str(wal)
        assert caught.value.page
        assert caught.value.offset == frame_offset(caught.value.page - 1)
        for frame in range(count):
            flip(wal, frame_offset(frame) + PARTS[part])
        assert connection.execute("SELECT count(*) FROM t").get == ROWS


@pytest.mark.parametrize("part", ["page", "commit size", "epoch"])
def test_a_checkpoint_stops_at_an_altered_frame(tmp_path: Path, part: str) -> None:
    """What is copied into the database is opened first; what stays in the log can still be restored."""
    path = tmp_path / "db"
    with closing(heliosvfs.connect(path, key=KEY, page_size=PAGE)) as connection:
        connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x TEXT)")
        connection.executemany("INSERT INTO t VALUES(?, ?)", ((row, text(row, 0)) for row in range(ROWS)))
        last = (tmp_path / "db-wal").stat().st_size - FRAME
        flip(tmp_path / "db-wal", last + PARTS[part])
        left = (tmp_path / "db-wal").read_bytes()
        with pytest.raises(heliosvfs.TamperedError):
            connection.pragma("wal_checkpoint", "TRUNCATE")
        assert (tmp_path / "db-wal").read_bytes() == left
        flip(tmp_path / "db-wal", last + PARTS[part])
        connection.pragma("wal_checkpoint", "TRUNCATE")
        assert connection.execute("SELECT count(*) FROM t").get == ROWS
        assert connection.pragma("integrity_check") == "ok"


def test_a_frame_made_without_the_key_is_no_frame(sample: Sample) -> None:
    """Plain frames with right checksums, as stock SQLite would write them, end the log."""
    wal = sample.beside("-wal")
    header = bytearray(piece(wal, 0, 32))
    page = bytes(PAGE)
    frame = struct.pack(">II", 2, 1) + header[16:24] + bytes(8) + page
    wal.write_bytes(bytes(header) + frame)
    assert outcome(sample) == sample.states[0]
