"""Events as they come, for `heliosvfs audit tail -f` (AUDIT.md, "Following").

A lock is waited for here, not in SQLite, where a signal would have to wait as well. The file that the path leads to is looked at
before each read: SQLite would go on with one that was deleted, and with the journal of the one that is in its place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select as selecting
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import apsw
import typer

from heliosaudit.errors import AuditError
from heliosaudit.queries import rows
from heliosaudit.schemas import LOG
from heliosvfs.cli.logs import SHOWN, open_log, record, say_unrecorded, select, try_to_record
from heliosvfs.cli.output import visible
from heliosvfs.connection import Connection
from heliosvfs.keyring import Key

__all__ = ["follow", "show"]

_EVERY = 0.5  # seconds between looks for new events
_AGAIN = 0.1  # between looks whether a lock is gone
_PATIENCE = 5.0  # before it is said that there is one
_BATCH = 1000  # events of one look
_READ = ("READ LOG", {"follow": True})

_Done = TypeVar("_Done")


def show(found: list[tuple[Any, ...]]) -> None:
    """Print events, a line each: SQL that goes on in a second one can't forge an event."""
    for row in found:
        event = dict(zip(SHOWN, row, strict=True))
        mark = "" if event["success"] else " FAILED"
        mark += " ROLLED BACK" if event["rolled_back"] else ""
        line = f"{event['id']} {event['timestamp']} {event['user']} {event['operation']}{mark} {event['query']}"
        typer.echo(visible(line, keep=""))


def follow(file: Path, key: Key, lines: int) -> None:
    """Print the last events, then each new one, until a signal or the reader of the output ends that.

    Raises:
        AuditError: The database was deleted or replaced, or its log goes less far than it did.
        BrokenPipeError: Nobody reads the output any more.
        UsageError: It has no audit log, or can't be opened.
    """
    waiting = _Waiting(file)
    place = None if os.fspath(file).startswith("file:") else _Place(file)
    with contextlib.ExitStack() as stack:
        opening = waiting.patiently(lambda: stack.enter_context(open_log(file, key, busy_timeout=0)))
        tail = stack.enter_context(contextlib.closing(_Tail(opening, place or _Place(Path(opening.filename)), lines)))
        while True:
            found = waiting.patiently(tail.look)
            show(found)
            if len(found) < _BATCH:
                waiting.pause(_EVERY)


class _Place:
    """Where a database lies, to be taken before it is opened."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._first: os.stat_result | None = None
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # opening it will say so
            self._first = os.stat(file)

    def require_same(self) -> None:
        """See that the path leads to the file that it led to at first.

        Raises:
            AuditError: It does not.
        """
        if self._first is None:
            return
        try:
            same = os.path.samestat(os.stat(self._file), self._first)
        except (FileNotFoundError, NotADirectoryError):
            msg = f"{self._file} was deleted or renamed: no more events will come from it"
            raise AuditError(msg) from None
        if not same:
            msg = (
                f"{self._file} was replaced by another file while it was followed, in whose log other events may have the ids of "
                "those that were shown: begin again to follow that"
            )
            raise AuditError(msg)


class _Tail:
    """The log of an open database, read on and on; that this is done is recorded as soon as the lock is free."""

    def __init__(self, connection: Connection, place: _Place, lines: int) -> None:
        self._connection = connection
        self._place = place
        self._lines = lines
        self._last: int | None = None
        self._is_recorded = False

    def look(self) -> list[tuple[Any, ...]]:
        """Return what came since the last look, up to a batch of it; the first time the last events.

        Raises:
            AuditError: The database was deleted or replaced, or its log goes less far than it did.
            apsw.BusyError: Somebody has locked it.
        """
        self._place.require_same()
        if not self._is_recorded:
            self._record()
        if self._last is None:
            found = select(self._connection, {}, 0, self._lines, newest=True)
        else:
            found = select(self._connection, {}, self._last, _BATCH, newest=False)
            if not found:
                self._require_end(self._last)
        if found:
            self._last = found[-1][0]
        return found

    def _record(self) -> None:
        try:
            try_to_record(self._connection, *_READ)
        except apsw.BusyError:  # in WAL mode the log can be read all the same
            return
        except (apsw.Error, AuditError) as error:
            say_unrecorded(error)
        self._is_recorded = True

    def _require_end(self, last: int) -> None:
        """See that the log still has the event that was shown last; pruning leaves the newest one.

        Raises:
            AuditError: It ends before that.
        """
        end = rows(self._connection, f"SELECT max(id) FROM main.{LOG}")[0][0] or 0
        if end < last:
            msg = (
                f"the log ends with event {end}, and event {last} was shown: it was cut, or the database put back to what it was "
                "before; `heliosvfs audit verify` with a checkpoint tells"
            )
            raise AuditError(msg)

    def close(self) -> None:
        """Record what could not be recorded before, or say that it could not."""
        if self._is_recorded:
            return
        with contextlib.suppress(AuditError):
            self._place.require_same()  # nothing is written to a file that is gone
            record(self._connection, *_READ)


class _Waiting:
    """Waits, as long as somebody reads the output."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._locked_since: float | None = None
        self._has_told = False
        self._output = selecting.poll() if sys.platform != "win32" else None
        if self._output is not None:
            self._output.register(sys.stdout.fileno(), 0)

    def pause(self, seconds: float) -> None:
        """Wait so long.

        Raises:
            BrokenPipeError: Nobody reads the output any more.
        """
        if self._output is None:
            time.sleep(seconds)
            return
        happened = self._output.poll(seconds * 1000)
        if any(what & (selecting.POLLERR | selecting.POLLHUP) for _, what in happened):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        if happened:  # POLLNVAL: this can't be watched here
            self._output = None
            time.sleep(seconds)

    def patiently(self, work: Callable[[], _Done]) -> _Done:
        """Return what a call returns, however long somebody else has locked the database; after a while say so, once.

        Raises:
            BrokenPipeError: Nobody reads the output any more.
        """
        while True:
            try:
                done = work()
            except apsw.BusyError:
                self._tell()
                self.pause(_AGAIN)
            else:
                self._locked_since, self._has_told = None, False
                return done

    def _tell(self) -> None:
        now = time.monotonic()
        if self._locked_since is None:
            self._locked_since = now
        if not self._has_told and now - self._locked_since >= _PATIENCE:
            self._has_told = True
            sys.stderr.write(f"heliosvfs: {visible(self._file)} is locked by another program: waiting for it\n")
