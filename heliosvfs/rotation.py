"""Rotation of the data key while the database is in use, and of the master key (docs/KEYS.md).

    publish a new epoch · copy the database onto itself, in one write transaction · checkpoint and empty the WAL ·
    prove that no page on disk is under an older epoch · remove the older epochs' keys

Each step is durable before the next begins, and the database opens after a crash at any moment. Readers go on throughout; writers
wait for the copy within their own busy timeout. A run that was cancelled or killed is begun again by the next one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TypeVar

import apsw

from heliosvfs.connection import Connection
from heliosvfs.errors import HeliosError, TamperedError, UsageError
from heliosvfs.keyring import Key, as_secret
from heliosvfs.keys import Secret
from heliosvfs.notices import tell, telling
from heliosvfs.opening import connect
from heliosvfs.vfs import Credential, DatabaseFile, files_of
from heliosvfs.vfs.epochs import (
    drop_old_epochs,
    pages_under_old_epochs,
    publish_epoch,
    replace_master,
    reseal_lock_page,
    slots_opened_by,
)
from heliosvfs.write_locks import write_lock

__all__ = ["RotationReport", "RotationUnfinishedError", "epoch_time", "rotate"]

Progress = Callable[[int, int], None]
T = TypeVar("T")

_BATCH = 1000  # pages between two calls of a progress function
_SPACE = 1.1  # bytes of the WAL for a byte of the database: frames are a little larger than pages
_RESUMABLE = timedelta(days=1)  # age up to which the epoch of an interrupted run is good enough
_MANY_EPOCHS = 8  # so many interrupted runs take no further room in the superblock
_SLICE = 0.25  # seconds of waiting for readers, and as many before the next try
_LONGEST_SLICE = 4.0  # it is doubled up to this
_PAUSE = 0.0005  # seconds between two tries to get a lock


class RotationUnfinishedError(HeliosError, apsw.BusyError):
    """Everything is sealed under the new key but readers of an old state keep the old key from being removed: run it again."""

    result = apsw.SQLITE_BUSY
    extendedresult = apsw.SQLITE_BUSY


@dataclass(frozen=True)
class RotationReport:
    """A rotation that was carried out.

    Attributes:
        path: The database.
        epoch: Number of the epoch that everything is sealed under now, or a later one if others rotated at the same time.
        removed_epochs: Numbers of those whose keys were removed.
        pages: Pages that were sealed anew, none where an interrupted run had done so already.
        resumed: Whether it went on with the epoch of an interrupted run.
        revoked_slots: Labels of the key slots that a new master key has ended.
        journal_mode: The journal mode that the database is left in.
        seconds: Time it took.
    """

    path: str
    epoch: int
    removed_epochs: tuple[int, ...]
    pages: int
    resumed: bool
    revoked_slots: tuple[str, ...]
    journal_mode: str
    seconds: float


def rotate(  # noqa: PLR0913 - the options of a rotation
    connection: Connection,
    *,
    schema: str = "main",
    master: bool = False,
    keep: Sequence[Key] = (),
    busy_timeout: float = 30.0,
    progress: Progress | None = None,
) -> RotationReport:
    """Seal a database anew under a fresh data key, and remove the old one.

    Args:
        connection: A connection to the database, outside of any transaction and with no statement half read.
        schema: Which of its databases.
        master: Replace the master key as well: whoever kept a copy of an old header can then no longer open new data. Only the
            key that the connection was opened with, and those in ``keep``, keep their slots; all others are revoked.
        keep: Further keys whose slots shall be kept.
        busy_timeout: Seconds to wait for writers before the copy, and for readers of the old state after it.
        progress: Called with pages done and pages in all; an exception that it raises cancels the run.

    Raises:
        UsageError: The connection is read-only or in use, the disk has too little room, or ``keep`` is given without ``master``.
        apsw.BusyError: Somebody else was writing all the time; nothing was changed, or the next run goes on.
        RotationUnfinishedError: Readers held on to the old state all the time; the next run only has to remove the old key.
        WrongKeyError: A key in ``keep`` opens no slot.
        TamperedError: A page of the database is damaged: see `heliosvfs.check`.
    """
    began = time.monotonic()
    file, secret = _require_idle(connection, schema)
    if keep and not master:
        msg = "keep names keys that a new master key shall spare: it goes with master=True"
        raise UsageError(msg)
    presented = slots_opened_by(file, [secret, *map(as_secret, keep)]) if master else []
    labels = [slot.label for slot in file.access.superblock.slots]
    tell("ROTATION STARTED", file.path, master=master)
    with (
        telling("ROTATION", file.path, master=master) as facts,
        _two_connections(file, secret, busy_timeout) as (source, dest, mode),
    ):
        run = _Run(source, dest, busy_timeout, progress)
        before = tuple(epoch.id for epoch in run.file.access.superblock.epochs)
        resumed = not master and _is_resumable(run.file)
        if not resumed:
            run.require_space()
            run.settle()
            begin = (lambda: replace_master(run.file, presented)) if master else (lambda: publish_epoch(run.file))
            run.epoch = run.immediately(begin)
        done = 0 if resumed and run.is_rewritten() else run.rewrite()
        run.finish()
        superblock = run.file.access.superblock
        facts |= {"data_key": run.epoch, "pages": done, "resumed": resumed}
    file.refresh()
    kept = {slot.label for slot in superblock.slots}
    return RotationReport(
        path=file.path,
        epoch=run.epoch,
        removed_epochs=tuple(epoch for epoch in before if epoch < run.epoch),
        pages=done,
        resumed=resumed,
        revoked_slots=tuple(label for label in labels if label not in kept) if master else (),
        journal_mode=mode[-1],
        seconds=time.monotonic() - began,
    )


def epoch_time(text: str) -> datetime:
    """Read a time as the superblock states it, UTC ISO 8601."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def _file_of(connection: Connection, schema: str) -> DatabaseFile:
    path = connection.db_filename(schema)
    for file in reversed(files_of(connection)):
        if path and file.path == path:
            return file
    msg = f"{schema} is not an encrypted database of this connection"
    raise UsageError(msg)


def _require_idle(connection: Connection, schema: str) -> tuple[DatabaseFile, Secret]:
    file = _file_of(connection, schema)
    if connection.readonly(schema):
        msg = f"{file.path} was opened for reading only: open it for writing to rotate its key"
        raise UsageError(msg)
    if connection.in_transaction or connection.txn_state(schema) != apsw.SQLITE_TXN_NONE:
        msg = "a key can't be rotated inside a transaction, or while the rows of a SELECT are still being read: end that first"
        raise UsageError(msg)
    file.access.require_keys()
    credential = file.access.credential
    if credential is None or credential.secret is None or not file.xFileSize():
        msg = f"{file.path} has no page yet, so there is nothing to rotate"
        raise UsageError(msg)
    return file, credential.secret


def _is_resumable(file: DatabaseFile) -> bool:
    """Tell whether an interrupted run left an epoch that is as good as a fresh one."""
    epochs = file.access.superblock.epochs
    age = datetime.now(timezone.utc) - epoch_time(epochs[-1].created)
    return len(epochs) > 1 and (age < _RESUMABLE or len(epochs) >= _MANY_EPOCHS)


@contextlib.contextmanager
def _two_connections(
    file: DatabaseFile, secret: Secret, busy_timeout: float
) -> Iterator[tuple[Connection, Connection, list[str]]]:
    """Open the database twice, in WAL mode for the run; the list ends with the journal mode that it is left in."""
    settings = file.access.credential.settings if isinstance(file.access.credential, Credential) else None

    def opened(journal_mode: str | None = None) -> Connection:
        return connect(
            file.path,
            key=secret,
            settings=settings,
            create=False,
            vfs=file.vfs_name,
            busy_timeout=busy_timeout,
            cache_mb=2,  # every page is read and written once: a cache would only take room
            journal_mode=journal_mode,
        )

    with contextlib.closing(opened()) as source:
        modes = [str(source.pragma("journal_mode"))]
        if modes[0] != "wal":
            _remove_old_journal(source)
            _patiently(lambda: _require_mode(source, "wal"), busy_timeout)
        dest = opened()
        try:
            for connection in (source, dest):
                connection.wal_autocheckpoint(0)
                connection.set_busy_handler(_often(busy_timeout))
            dest.pragma("synchronous", "full")
            yield source, dest, modes
        finally:
            dest.close()
            if modes[0] != "wal":
                with contextlib.suppress(apsw.BusyError):  # others have it open in WAL mode by now: so it stays
                    _patiently(lambda: _require_mode(source, modes[0]), min(busy_timeout, 1.0))
            modes.append(str(source.pragma("journal_mode")))


def _often(seconds: float) -> Callable[[int], bool]:
    """Return a busy handler that asks often: SQLite's own sleeps for so long that writers without a pause starve it."""
    since = 0.0

    def handler(tries: int) -> bool:
        nonlocal since
        if not tries:
            since = time.monotonic()
        if time.monotonic() - since > seconds:
            return False
        time.sleep(_PAUSE)
        return True

    return handler


def _require_mode(connection: Connection, mode: str) -> None:
    if connection.pragma("journal_mode", mode) != mode:
        raise apsw.BusyError


def _remove_old_journal(connection: Connection) -> None:
    """Have SQLite delete a journal that an earlier transaction left to be used again: its pages are under the old key."""
    for mode in ("persist", "delete"):  # it looks for the file only when it leaves the mode that keeps one
        connection.pragma("journal_mode", mode)


def _patiently(action: Callable[[], T], seconds: float) -> T:
    """Repeat what SQLite calls no busy handler for.

    Raises:
        apsw.BusyError: It was busy all the time.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)


class _Run:
    """One run over two connections of its own."""

    def __init__(self, source: Connection, dest: Connection, busy_timeout: float, progress: Progress | None) -> None:
        self.source = source
        self.dest = dest
        self.file = _file_of(dest, "main")
        self.epoch = self.file.access.superblock.epoch.id  # that everything shall be under
        self.busy_timeout = busy_timeout
        self.progress = progress

    def require_space(self) -> None:
        """Refuse where the WAL could not hold the whole database once more.

        Raises:
            UsageError: It could not.
        """
        needed = int(_SPACE * self.file.xFileSize())
        free = shutil.disk_usage(os.path.dirname(self.file.path)).free
        if free < needed:
            msg = (
                f"rotation writes {self.file.path} once more into its WAL: that takes {needed:,} bytes, and {free:,} are free "
                "on that disk; nothing was changed"
            )
            raise UsageError(msg)

    def settle(self) -> None:
        """Make it durable that no rollback journal is there any more: one that came back would be under the old keys.

        The first sync of a WAL by a handle that may have created it makes the folder durable as well (unixSync), and SQLite does
        not sync the folder when it deletes a journal, unless told to by synchronous=EXTRA.
        """
        self.dest.execute("BEGIN IMMEDIATE")
        self.dest.pragma("user_version", self.dest.pragma("user_version"))
        self.dest.execute("COMMIT")

    def immediately(self, action: Callable[[], T]) -> T:
        """Run ``action`` in a write transaction that changes no page, and return what it does."""
        with write_lock(self.dest):
            return action()

    def rewrite(self) -> int:
        """Copy the database onto itself, which seals every page anew, and return the number of pages."""
        with self.dest.backup("main", self.source, "main") as copy:
            # The write lock first, and only then a snapshot: taken the other way round, what others commit between the two
            # would be overwritten with what was there before.
            copy.step(0)
            pages, done = copy.page_count, False
            while not done:
                done = copy.step(_BATCH)
                if self.progress is not None:
                    self.progress(pages - copy.remaining, pages)
        return pages

    def is_rewritten(self) -> bool:
        """Tell whether an interrupted run came as far as leaving nothing under an old epoch, in the file or in the WAL."""
        try:
            self._empty_wal(1.0)
        except RotationUnfinishedError:
            return False
        return not pages_under_old_epochs(self.file, self.epoch)

    def finish(self) -> None:
        """Bring the new pages into the database file, prove that they are all, and remove the old keys.

        Raises:
            RotationUnfinishedError: Readers of the old state did not end in time.
            TamperedError: A page stayed under an old epoch.
        """
        self._empty_wal(self.busy_timeout)
        # left by an earlier transaction in persist mode: this connection has rolled back what was hot, and while it has the
        # database open in WAL mode nobody can begin another
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.file.path + "-journal")

        def remove() -> None:
            reseal_lock_page(self.file)
            old = pages_under_old_epochs(self.file, self.epoch)
            if old:
                msg = f"{self.file.path}: page {old[0]} is not under the new key after a rotation: the old key was kept"
                raise TamperedError(msg, file=self.file.path, page=old[0])
            drop_old_epochs(self.file, self.epoch)

        self.immediately(remove)

    def _empty_wal(self, seconds: float) -> None:
        """Copy the whole WAL into the database and cut it to nothing, so that no frame under an old epoch is left.

        Raises:
            RotationUnfinishedError: Others were reading an old state, or writing, all the time.
        """
        deadline, slice_ = time.monotonic() + seconds, _SLICE
        old_state = None  # number of frames at the first look: who still needs the file as it is without them reads an old state
        try:
            while True:
                frames, done = self._checkpointed()
                old_state = frames if old_state is None else min(old_state, frames)  # fewer: the log was begun anew
                if done >= old_state:
                    # only readers of later states are left: writers are kept out while SQLite waits for those
                    self.dest.set_busy_handler(_often(slice_))
                    if not self.dest.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]:
                        break
                    slice_ = min(2 * slice_, _LONGEST_SLICE)
                if time.monotonic() > deadline:
                    msg = (
                        f"{self.file.path} is sealed under its new key, but others kept reading its old state for {seconds:g} "
                        "seconds: the old key was not removed; rotate again, which only does that"
                    )
                    raise RotationUnfinishedError(msg)
                time.sleep(_SLICE)
        finally:
            self.dest.set_busy_handler(_often(self.busy_timeout))
        if self.file.wal is not None:
            self.file.wal.xSync(apsw.SQLITE_SYNC_NORMAL)  # a cut that a power failure undoes would leave old frames on disk

    def _checkpointed(self) -> tuple[int, int]:
        """Copy as much of the WAL as readers allow, keeping nobody out; return its frames, and how many of them were copied."""
        try:
            return self.dest.wal_checkpoint(None, apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:  # another process is doing the same
            return 1 << 32, 0
