"""Verifying parts of a log in processes of their own (AUDIT.md, "Verification").

Each event's checksum is stored, so a segment can be followed from the event before it, and the segments together are the chain. A
worker is a fresh Python that opens the database itself. What it can't do, or does not find right, is left to the caller, who
holds a snapshot: a worker's word is only ever taken for "this segment holds".
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import apsw

from heliosaudit.following import TIME, Break, Head, check, entries
from heliosaudit.queries import rows
from heliosaudit.schemas import LOG

__all__ = ["Opener", "PlainFile", "follow"]

Opener = Callable[[], apsw.Connection]
_BLOCK = 20_000
_LEAST = 100_000  # events of a segment for which a process is worth its start


@dataclass(frozen=True)
class PlainFile:
    """Opens a database that is not encrypted, for reading.

    Attributes:
        path: The file.
    """

    path: str

    def __call__(self) -> apsw.Connection:
        """Open it."""
        return apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READONLY)


def _cut(first: int, last: int, workers: int) -> list[tuple[int, int]]:
    """Divide the events after ``first`` up to ``last`` into as many segments as there are workers, or fewer, larger ones."""
    pieces = max(1, min(workers, (last - first) // _LEAST))
    edges = [first + (last - first) * piece // pieces for piece in range(pieces + 1)]
    return list(itertools.pairwise(edges))


class _Worker:
    """A process that follows one segment."""

    def __init__(self, opener: Opener, start: Head, until: int) -> None:
        """Start it.

        Args:
            opener: Opens the database; it is pickled, and goes to the process through a pipe, with the key that it may hold.
            start: The event before the segment.
            until: Its last event.
        """
        self._until = until
        self._process = subprocess.Popen(
            [sys.executable, "-m", "heliosaudit.segments"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        with contextlib.suppress(BrokenPipeError):  # it died: the result will be None
            self._process.stdin.write(pickle.dumps((opener, start, until)))
            self._process.stdin.close()

    def result(self) -> tuple[Head, int] | None:
        """Wait for it; returns the last event and how many there were, None if anything is not as it should be."""
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        with self._process.stdout as pipe:
            said = pipe.read()
        if self._process.wait() or not said:
            return None
        head, count, broken = pickle.loads(said)  # noqa: S301 - our own child's, and the pipe is nobody else's
        return (head, count) if broken is None and head.id == self._until else None

    def stop(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@contextlib.contextmanager
def _working(workers: list[_Worker]) -> Iterator[None]:
    """See that no process outlives the block."""
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()


def follow(
    connection: apsw.Connection,
    start: Head,
    progress: Callable[[int, int], None] | None,
    helpers: tuple[Opener, int] | None,
) -> tuple[Head, int, Break | None]:
    """Follow the chain to its end.

    Args:
        connection: In a transaction that reads.
        start: The event before the first.
        progress: Told how many events are done, and how many there are.
        helpers: What opens the database in another process, and how many processes there may be with this one; None: it is alone.

    Returns:
        The last event that is right, how many are, and the first break.
    """
    ids = rows(connection, f"SELECT id FROM main.{LOG} ORDER BY id DESC LIMIT 1")
    last = ids[0][0] if ids else 0
    if helpers is None:
        return _follow_alone(connection, start, last, last - start.id, progress)
    (_, until), *others = _cut(start.id, last, helpers[1])
    starts = [_head_at(connection, first) for first, _ in others]
    workers = [_Worker(helpers[0], head, end) for head, (_, end) in zip(starts, others, strict=True) if head is not None]
    if len(workers) < len(others):  # an event is missing where a segment would begin
        others, until = [], last
    with _working(workers):
        head, events, broken = _follow_alone(connection, start, until, last - start.id, progress)
        for worker, begin, (_, end) in zip(workers, starts, others, strict=False):
            if broken is not None or begin is None:
                break
            result = worker.result() if head.checksum == begin.checksum else None
            count = 0
            if result is not None:
                head, count = result
            else:
                head, count, broken = _follow_alone(connection, head, end, last - start.id, None)
            events += count
            if progress is not None:
                progress(events, last - start.id)
    return head, events, broken


def _head_at(connection: apsw.Connection, number: int) -> Head | None:
    """Return what the log says of an event where a segment begins; the segment before shows whether it is true."""
    sound = "typeof(record) = 'text' AND typeof(checksum) = 'blob'"
    found = rows(connection, f"SELECT CAST(record AS BLOB), checksum FROM main.{LOG} WHERE id = ? AND {sound}", (number,))
    return Head(number, found[0][1], found[0][0][TIME].decode(errors="replace")) if found else None


def _follow_alone(
    connection: apsw.Connection, start: Head, last: int, of: int, progress: Callable[[int, int], None] | None
) -> tuple[Head, int, Break | None]:
    head, events, broken = start, 0, None
    for until in range(start.id + _BLOCK, last + _BLOCK, _BLOCK):
        head, count, broken = check(entries(connection, head.id, min(until, last)), head)
        events += count
        if progress is not None:
            progress(events, of)
        if broken is not None or head.id < min(until, last):
            break
    if broken is None and head.id < last:
        broken = Break(head.id + 1, "missing", f"event {head.id + 1}", "nothing")
    return head, events, broken


def _main() -> None:
    opener, start, until = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own parent's, and the pipe is nobody else's
    with closing(opener()) as connection:
        result = check(entries(connection, start.id, until), start)
    sys.stdout.buffer.write(pickle.dumps(result))


if __name__ == "__main__":
    _main()
