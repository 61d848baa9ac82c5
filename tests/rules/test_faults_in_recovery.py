"""Rule 2: MemoryError, KeyboardInterrupt and I/O errors never become zeros.

Zeros end a log or a rollback, and are an answer only after GCM itself has rejected a frame or record under a key that is certain.
Here a read fails in the middle of recovery, or what opens a frame or record does: the error comes out, no file is changed, and
without the fault everything is recovered.
"""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosvfs.pages import Opener
from heliosvfs.vfs import journal, wal
from tests.rules.conftest import EXPECTED, KEY, Crash, files_of_database, states
from tests.rules.observing import Event, ObservingVFS, observed

PAGE = 512
FRAME = 24 + PAGE
RECORD = PAGE + 8
ERRORS = [MemoryError, KeyboardInterrupt, apsw.IOError]


def behind(path: Path, size: int, *, epoch: bytes = b"") -> None:
    """Append the last frame or record once more: in that place it does not open."""
    content = path.read_bytes()
    again = bytearray(content[-size:])
    trailer = size - 4 if size == FRAME else size - 8
    if epoch:
        again[trailer : trailer + 3] = epoch
    path.write_bytes(content + again)


WAL, JOURNAL = "db-wal", "db-journal"
DROPPED = bytes(3)  # an epoch that no superblock has
SAMPLES: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "wal": ("wal", "full", lambda _: None),
    "wal, torn frame": ("wal", "full", lambda path: behind(path.with_name(WAL), FRAME)),
    "wal, frame of no epoch": ("wal", "full", lambda path: behind(path.with_name(WAL), FRAME, epoch=DROPPED)),
    "journal": ("delete", "full", lambda _: None),
    "journal, torn record": ("delete", "off", lambda path: behind(path.with_name(JOURNAL), RECORD)),
    "journal, record of no epoch": ("delete", "off", lambda path: behind(path.with_name(JOURNAL), RECORD, epoch=DROPPED)),
}


@dataclass(frozen=True)
class Left:
    """A database that a crash left: its path, what recovery finds, and where copies go."""

    path: Path
    expected: dict[str, int]

    def copy(self) -> Path:
        """Copy the files, to be recovered there."""
        folder = self.path.parent.with_name("copy")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.path.parent, folder)
        return folder / self.path.name


@pytest.fixture(params=SAMPLES)
def left(request: pytest.FixtureRequest, crashed: Crash) -> Left:
    mode, synchronous, alter = SAMPLES[request.param]
    path = crashed(mode, synchronous=synchronous)
    alter(path)
    return Left(path, EXPECTED[mode])


def recover(path: Path, vfs: str) -> None:
    with closing(heliosvfs.connect(path, key=KEY, create=False, vfs=vfs)) as connection:
        connection.execute("SELECT count(*) FROM t").fetchall()


def reads_of_recovery(left: Left, base: ObservingVFS, vfs: str) -> list[int]:
    """Return which reads to let fail, by their number: every tenth, and all that do not go on where the one before was."""
    base.events.clear()
    with closing(heliosvfs.connect(left.copy(), key=KEY, create=False, vfs=vfs)) as connection:
        connection.execute("SELECT count(*) FROM t").fetchall()
        events = list(base.events)
    # what recovery does last is a read of the WAL, or the sync of what was rolled back
    last = max(at for at, event in enumerate(events) if event.file != "main" or event.what == "sync")
    chosen = [0]
    for number, (before, event) in enumerate(pairwise(event for event in events[: last + 1] if event.what == "read"), 1):
        if number % 10 == 0 or event.file != before.file or event.offset <= before.offset:
            chosen.append(number)
    return chosen


@pytest.mark.parametrize("lasting", [True, False], ids=["for good", "once"])
@pytest.mark.parametrize("error", ERRORS)
def test_a_read_that_fails_ends_no_log_and_no_rollback(left: Left, error: type[BaseException], lasting: bool) -> None:
    with observed() as (base, vfs):
        chosen = reads_of_recovery(left, base, vfs)
        assert len(chosen) > 20
        for number in chosen:
            path, count = left.copy(), itertools.count()
            before = files_of_database(path)
            base.events.clear()

            def fail(event: Event, count: Iterator[int] = count, number: int = number) -> None:
                if event.what == "read" and ((at := next(count)) == number or (lasting and at > number)):
                    raise error

            base.before = fail
            with pytest.raises(error):
                recover(path, vfs)
            base.before = None
            if lasting:
                unchanged(path, before, base)
            assert states(path) == left.expected, f"read {number}"


@pytest.mark.parametrize("error", ERRORS)
def test_a_failure_to_open_a_frame_or_record_ends_no_log_and_no_rollback(
    left: Left, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lack of memory or Ctrl-C does not wait for a read."""
    calls, first = itertools.count(), sys.maxsize

    class Failing(Opener):
        def open(self, sealed: bytes, suffix: bytes) -> bytearray:
            if next(calls) >= first:
                raise error
            return super().open(sealed, suffix)

    for module in (journal, wal):
        monkeypatch.setattr(module, "Opener", Failing)
    with observed() as (base, vfs):
        recover(left.copy(), vfs)
        most = next(calls)
        assert most > 50
        for number in [0, 1, 2, *range(10, most, 10), most - 2, most - 1]:
            path, first, calls = left.copy(), number, itertools.count()
            before = files_of_database(path)
            base.events.clear()
            with pytest.raises(error):
                recover(path, vfs)
            unchanged(path, before, base)
            first = sys.maxsize
            assert states(path) == left.expected, f"call {number}"


def unchanged(path: Path, before: dict[str, bytes], base: ObservingVFS) -> None:
    """Require that no byte has changed, but for pages that a rollback had restored before its fault."""
    after = files_of_database(path)
    rolled_back = {"db"} if JOURNAL in before and any(event.what in ("write", "truncate") for event in base.events) else set()
    assert after.keys() >= before.keys()
    assert {name for name in before if after[name] != before[name]} <= rolled_back
