"""Rule 4: a frame's header waits for its page alone, and nothing but that page makes it reach the disk."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs.vfs import files_of
from heliosvfs.vfs.wal import WalFile
from tests.rules.conftest import KEY
from tests.rules.observing import ObservingVFS, observed

PAGE = 512
FRAME = 24 + PAGE


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[ObservingVFS, WalFile, bytes, int]]:
    """Give a WAL to which the header of its next frame has just been handed, the header and the frame's offset."""
    with observed() as (base, vfs), closing(heliosvfs.connect(tmp_path / "db", key=KEY, page_size=PAGE, vfs=vfs)) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        wal = files_of(connection)[0].wal
        assert wal is not None
        offset = wal.xFileSize()
        header = struct.pack(">II", 2, 0) + bytes(wal.xRead(32, 0))[16:24] + b"checksum"
        base.events.clear()
        wal.xWrite(header, offset)
        yield base, wal, header, offset


def test_a_header_is_written_with_its_page_in_one_write(held: tuple[ObservingVFS, WalFile, bytes, int]) -> None:
    base, wal, header, offset = held
    assert not base.writes("-wal")
    wal.xWrite(b"p" * (PAGE - 32) + bytes(32), offset + 24)
    assert [(event.offset, len(event.data)) for event in base.writes("-wal")] == [(offset, FRAME)]
    assert bytes(wal.xRead(FRAME, offset)) == header + b"p" * (PAGE - 32) + bytes(32)


@pytest.mark.parametrize(
    "call",
    [lambda wal, _: wal.xFileSize(), lambda wal, _: wal.xRead(32, 0), lambda wal, _: wal.xRead(PAGE, 32 + 24)],
    ids=["size", "header", "page"],
)
def test_who_only_looks_writes_nothing(
    held: tuple[ObservingVFS, WalFile, bytes, int], call: Callable[[WalFile, int], object]
) -> None:
    base, wal, _, offset = held
    call(wal, offset)
    assert not base.writes("-wal")


NOT_ITS_PAGE: dict[str, Callable[[bytes, int], tuple[bytes, int]]] = {
    "a page elsewhere": lambda _, offset: (bytes(PAGE), offset + FRAME + 24),
    "a page that is too long": lambda _, offset: (bytes(PAGE + 1), offset + 24),
    "a page with bytes in the place of its seal": lambda _, offset: (b"\1" * PAGE, offset + 24),
}


@pytest.mark.parametrize("what", NOT_ITS_PAGE)
def test_anything_but_its_page_discards_it_and_fails(held: tuple[ObservingVFS, WalFile, bytes, int], what: str) -> None:
    base, wal, header, offset = held
    data, at = NOT_ITS_PAGE[what](header, offset)
    with pytest.raises(heliosvfs.UsageError):
        wal.xWrite(data, at)
    with pytest.raises(heliosvfs.HeliosError):
        wal.xWrite(bytes(PAGE), offset + 24)
    assert not base.writes("-wal")


def test_another_header_takes_its_place(held: tuple[ObservingVFS, WalFile, bytes, int]) -> None:
    """An interrupt may have kept its page from us, and what is written next is a healthy transaction's."""
    base, wal, header, offset = held
    wal.xWrite(header, offset + FRAME)
    with pytest.raises(heliosvfs.HeliosError):
        wal.xWrite(bytes(PAGE), offset + 24)
    assert not base.writes("-wal")


def test_a_log_that_begins_anew_takes_its_place(tmp_path: Path) -> None:
    """An interrupt kept its page from us, others checkpointed the log, and what is written next is a healthy transaction's."""
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, page_size=PAGE)) as connection:
        connection.execute("CREATE TABLE t(x)")
        wal = files_of(connection)[0].wal
        assert wal is not None
        wal.xWrite(struct.pack(">II", 2, 0) + wal.salts + b"checksum", wal.xFileSize())
        with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as other:
            other.pragma("wal_checkpoint", "RESTART")
        connection.execute("INSERT INTO t VALUES(1)")
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        assert connection.execute("SELECT x FROM t").get == 1
        assert connection.pragma("integrity_check") == "ok"


def test_closing_writes_nothing(tmp_path: Path) -> None:
    with observed() as (base, vfs):
        connection = heliosvfs.connect(tmp_path / "db", key=KEY, page_size=PAGE, vfs=vfs)
        connection.execute("CREATE TABLE t(x)")
        other = heliosvfs.connect(tmp_path / "db", key=KEY, vfs=vfs)
        other.execute("SELECT * FROM t").fetchall()
        wal = files_of(connection)[0].wal
        assert wal is not None
        wal.xWrite(bytes(24), wal.xFileSize())
        base.events.clear()
        connection.close()
        assert not base.writes("-wal")
        other.close()
