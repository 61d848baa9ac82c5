"""Writes events that belong to no transaction of the application's: reads, failures, denials, what was rolled back.

It does so on a connection of its own, so that the application's is not touched, and from a thread of its own if the application
is idle. It never waits for a lock, but at the very end: what can't be written now stays in memory until it can.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

import apsw

from heliosaudit import captures
from heliosaudit.errors import AuditError
from heliosaudit.events import Event, timestamp
from heliosaudit.policies import Policy
from heliosaudit.presences import Presence
from heliosaudit.private import allow
from heliosaudit.schemas import MAKE_OPEN, MAKE_STATE
from heliosaudit.stores import Store

if TYPE_CHECKING:
    from heliosaudit.ledgers import Ledger

__all__ = ["Recorder"]


_PATIENCE = 10_000  # milliseconds that the last events wait for the lock, when the connection closes


class Recorder:
    """A connection to the log of one database, shared by none."""

    def __init__(self, opener: Callable[[], apsw.Connection], policy: Policy) -> None:
        """Write through what ``opener`` opens.

        Args:
            opener: Opens a further connection to the same database, not audited.
            policy: Says how long an event waits at most while the lock is free.
        """
        self._opener = opener
        self._interval = policy.flush_interval
        self._presence = Presence(policy)
        self._connection: apsw.Connection | None = None
        self._cursor: apsw.Cursor
        self._store: Store | None = None
        self._lock = threading.RLock()
        self._ledger: weakref.ref[Ledger] | None = None
        self._thread: threading.Thread | None = None
        self._wake = threading.Lock()  # which no exception can leave half-taken, as it can an event's
        self._wake.acquire()
        self._closed = self._ended = False
        self._patience = 0  # milliseconds
        self._process = os.getpid()

    def _open(self) -> Store:
        if self._store is None:
            connection = self._opener()
            connection.set_busy_timeout(self._patience)
            cursor = apsw.Cursor(connection)
            cursor.exec_trace = allow
            self._connection, self._cursor, self._store = connection, cursor, Store()
        return self._store

    def arrive(self, ledger: Ledger) -> None:
        """Write the OPEN event, and that the connection is there, if the lock is free: else it goes without the latter."""

        def prepare(cursor: apsw.Cursor) -> list[Event]:
            cursor.execute(MAKE_OPEN)
            cursor.execute(MAKE_STATE)
            return self._presence.arrive(cursor, timestamp(time.time_ns()))

        self.write(ledger, prepare)

    def _leave(self, cursor: apsw.Cursor) -> list[Event]:
        self._presence.leave(cursor)
        return []

    def write(
        self,
        ledger: Ledger,
        prepare: Callable[[apsw.Cursor], list[Event]] | None = None,
        finish: Callable[[apsw.Cursor], None] | None = None,
    ) -> bool:
        """Write the facts of a connection; returns whether none is left.

        Args:
            ledger: Of the connection.
            prepare: Does something else in the same transaction first, and returns its events.
            finish: Does something last, before it commits.
        """
        if self._process != os.getpid():  # a forked child must not touch its parent's connection
            return False
        with self._lock:
            events = ledger.take_facts()
            if not events and prepare is None:
                return True
            connection, has_begun = None, False
            try:
                store = self._open()
                connection = self._connection
                assert connection is not None  # noqa: S101 - _open has made it
                connection.execute("BEGIN IMMEDIATE")
                has_begun = True
                others = [] if prepare is None else prepare(self._cursor)
                if events or others:
                    store.append(self._cursor, [*others, *events])
                if finish is not None:
                    finish(self._cursor)
                connection.execute("COMMIT")
            except BaseException as error:
                is_open = connection is not None and connection.in_transaction
                if connection is not None and is_open:
                    connection.execute("ROLLBACK")
                is_failure = isinstance(error, (apsw.Error, AuditError))
                if is_failure or is_open or not has_begun:  # else it was committed, and KeyboardInterrupt came just after
                    ledger.put_back(events)
                if not is_failure:
                    raise
                ledger.problem = captures.said(error)
                return False
            return True

    def last_event(self) -> int | None:
        """Return the id of the last event on disk, from whichever thread; None: it can't be asked for now."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return None if self._store is None else self._store.head(self._cursor)[0]
        except (apsw.Error, AuditError):
            return None
        finally:
            self._lock.release()

    def expect(self, ledger: Ledger) -> None:
        """Note that there are facts: they are written after the interval, if not before."""
        if self._thread is None and not self._closed and self._process == os.getpid():
            self._ledger = weakref.ref(ledger)
            self._thread = threading.Thread(target=self._work, name="heliosaudit recorder", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while not self._wake.acquire(timeout=self._interval):
            ledger = self._ledger() if self._ledger is not None else None
            if ledger is None:
                return
            if ledger.transactions.facts:
                ledger.flush_while_idle()
            del ledger

    def release(self) -> None:
        """Close the connection, for SQLite wants the database for one connection alone; it is opened again when needed."""
        with self._lock:
            connection, self._connection, self._store = self._connection, None, None
            if connection is not None and self._process == os.getpid():
                connection.close()

    def end(self, ledger: Ledger) -> None:
        """End with the connection that it serves."""
        if self._ended:
            return
        self._closed = True
        with contextlib.suppress(RuntimeError):  # it was, when this was interrupted before
            self._wake.release()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and self._process == os.getpid():
            thread.join()
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.set_busy_timeout(_PATIENCE)
            self._patience = _PATIENCE
            self.write(ledger, self._leave, self._presence.settle)
            self.release()
        self._ended = True
