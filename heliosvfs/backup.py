"""Encrypted backups of a database in use, proven before they get their name; restoring them; and how long they are kept.

A backup is a database of its own: its pages are the source's, sealed under fresh keys, and one key slot opens it. Its superblock
says what it is a backup of, and since when, in the member ``backup_of`` (docs/FORMAT.md); the HMAC covers that.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import apsw

from heliosvfs.audited import AuditedConnection
from heliosvfs.check import check
from heliosvfs.connection import Connection
from heliosvfs.convert import Content
from heliosvfs.errors import HeliosError, TamperedError, UsageError
from heliosvfs.keyring import Key, as_secret
from heliosvfs.keys import KdfSettings, Secret
from heliosvfs.notices import telling
from heliosvfs.opening import connect
from heliosvfs.origins import Backup, Origin, backups_in, name_in, note_origin, origin_of
from heliosvfs.partials import named_when_done
from heliosvfs.vfs import files_of, now

__all__ = ["Backup", "BackupReport", "RestoreReport", "backup", "backups_in", "prune", "restore"]

Progress = Callable[[int, int], None]

_BATCH = 1000  # pages between two calls of a progress function
_RESTARTS = 5  # of a copy in rollback mode, because others wrote, before it keeps writers out


@dataclass(frozen=True)
class BackupReport:
    """A backup that was made and proven.

    Attributes:
        source: The database.
        path: The backup.
        pages: Its pages, each of which was opened again.
        size: Its bytes.
        digest: SHA-256 over schema, settings and all rows as they are stored, hexadecimal.
        compared: Whether that was also compared with the source; in rollback mode the source may have changed since.
        removed: Older backups that were removed because their days were over.
        seconds: Time it took.
        notes: What could not be checked, because only the database's application has the functions for it.
    """

    source: str
    path: str
    pages: int
    size: int
    digest: str
    compared: bool
    removed: tuple[str, ...]
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RestoreReport:
    """A backup that was checked and copied into a new database.

    Attributes:
        backup: The backup.
        path: The new database.
        source_uuid: UUID of the database that it was a backup of, "" if it does not say.
        created: When that was, UTC ISO 8601, "" if it does not say.
        pages: Pages.
        digest: SHA-256 over schema, settings and all rows as they are stored, hexadecimal, the same for both.
        seconds: Time it took.
        notes: What could not be checked, because only the database's application has the functions for it.
    """

    backup: str
    path: str
    source_uuid: str
    created: str
    pages: int
    digest: str
    seconds: float
    notes: tuple[str, ...] = ()


def backup(  # noqa: PLR0913 - the options of a backup
    connection: Connection,
    dest: str | os.PathLike[str],
    *,
    schema: str = "main",
    key: Key | None = None,
    settings: KdfSettings | None = None,
    retention_days: float | None = None,
    busy_timeout: float = 30.0,
    progress: Progress | None = None,
) -> BackupReport:
    """Write an encrypted copy of a database that stays in use, prove it, and only then give it its name.

    Args:
        connection: A connection to the database.
        dest: The path of the backup, which must not exist; or a folder, where it is named after the database and the time.
        schema: Which of its databases.
        key: Key of the backup; None: the one that the connection was opened with.
        settings: Cost of the backup's KDF, and FIPS mode.
        retention_days: Then remove older backups of this database beside it (see `prune`).
        busy_timeout: Seconds to wait for locks.
        progress: Called with pages done and pages in all; an exception that it raises cancels the backup.

    Raises:
        UsageError: The destination exists, is a URI or can't be written.
        DiskFullError: There is no room for it.
        AccessDeniedError: A rule of the connection refuses it; or that rule's own error.
        TamperedError: A page of the source is damaged, or the copy does not pass its proof; nothing is left of it.
        apsw.BusyError: Somebody else was writing all the time.
    """
    began = time.monotonic()
    if isinstance(connection, AuditedConnection):
        connection.ask_copy(schema, "BACKUP")
    file = connection._file(schema)  # noqa: SLF001 - a Connection knows its files
    file.access.require_keys()
    credential = file.access.credential
    if credential is None or credential.secret is None or not file.xFileSize():
        msg = f"{file.path} has no page yet, so there is nothing to back up"
        raise UsageError(msg)
    secret = credential.secret if key is None else as_secret(key)
    cost = settings or credential.settings
    origin = Origin(file.access.superblock.uuid, now())
    target = os.fspath(dest)
    if os.path.isdir(target):
        target = name_in(target, file.path, origin.created)
    with (
        telling("BACKUP", file.path, to=target) as facts,
        named_when_done(target) as partial,
        contextlib.closing(
            connect(
                file.path,
                key=credential.secret,
                settings=credential.settings,
                create=False,
                readonly=connection.readonly(schema),
                vfs=file.vfs_name,
                busy_timeout=busy_timeout,
            )
        ) as source,
    ):
        content, pages = _copy(source, partial, secret, cost, origin, progress)
        digest, notes = _prove(partial, secret, cost, file.vfs_name, content)
        facts["pages"], size = pages, os.path.getsize(partial)
    if isinstance(connection, AuditedConnection) and connection.auditor is not None:
        connection.auditor.record("BACKUP", target=schema, query=f"backup to {os.path.basename(target)}")
    removed: tuple[str, ...] = ()
    if retention_days is not None:
        removed = tuple(
            prune(os.path.dirname(target) or ".", origin.uuid, key=secret, days=retention_days, vfs=file.vfs_name, proven=target)
        )
    return BackupReport(
        source=file.path,
        path=target,
        pages=pages,
        size=size,
        digest=digest,
        compared=content is not None,
        removed=removed,
        seconds=time.monotonic() - began,
        notes=notes,
    )


def restore(  # noqa: PLR0913 - the options of a restoration
    path: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    key: Key | None = None,
    new_key: Key | None = None,
    settings: KdfSettings | None = None,
    source_uuid: str | None = None,
    vfs: str = "heliosvfs",
    progress: Progress | None = None,
) -> RestoreReport:
    """Check a backup, copy it into a new database, and prove that one equal to it.

    Args:
        path: The backup, or any encrypted database that nobody is writing to.
        dest: The path of the new database, which must not exist: nothing is ever overwritten.
        key: Key of the backup; None: the VFS's keyring has it.
        new_key: Key of the new database; None: the same.
        settings: Cost of the new database's KDF, and FIPS mode.
        source_uuid: Refuse unless it is a backup of the database with this UUID.
        vfs: Name of a registered `heliosvfs.HeliosVFS`.
        progress: Called with pages done and pages in all.

    Raises:
        UsageError: The destination exists, is a URI or can't be written, or it is a backup of another database.
        KeyUnavailableError, WrongKeyError, FormatError: The backup can't be opened.
        TamperedError: The backup is damaged, or the copy is not equal to it; nothing is left of the copy.
    """
    began = time.monotonic()
    where, cost = os.fspath(path), settings or KdfSettings()
    with telling("RESTORE", where, to=os.fspath(dest)) as facts, named_when_done(os.fspath(dest)) as partial:
        checked = check(where, key=key, vfs=vfs)
        if not checked.ok:
            bad = len([page for page in checked.bad_pages if not page.harmless])
            why = "; ".join([f"{bad} bad pages", *checked.problems, *checked.integrity])
            msg = f"{where} is damaged and was not restored: {why}"
            raise TamperedError(msg, file=where)
        with contextlib.closing(connect(where, key=key, create=False, vfs=vfs)) as source:
            access = files_of(source)[0].access
            origin = origin_of(access.superblock)
            if source_uuid is not None and (origin is None or origin.uuid != source_uuid):
                msg = f"{where} is a backup of {'no database' if origin is None else origin.uuid}, not of {source_uuid}"
                raise UsageError(msg)
            assert access.credential is not None  # noqa: S101 - it is unlocked
            assert access.credential.secret is not None  # noqa: S101 - it is unlocked
            secret = access.credential.secret if new_key is None else as_secret(new_key)
            content, pages = _copy(source, partial, secret, cost, None, progress)
        digest, notes = _prove(partial, secret, cost, vfs, content)
        facts["pages"] = pages
    return RestoreReport(
        backup=where,
        path=os.fspath(dest),
        source_uuid="" if origin is None else origin.uuid,
        created="" if origin is None else origin.created,
        pages=pages,
        digest=digest,
        seconds=time.monotonic() - began,
        notes=notes,
    )


def prune(  # noqa: PLR0913 - the options of a retention
    folder: str | os.PathLike[str],
    source_uuid: str,
    *,
    key: Key | None = None,
    days: float,
    vfs: str = "heliosvfs",
    at: datetime | None = None,
    proven: str | None = None,
) -> list[str]:
    """Remove the backups of a database that are older than so many days, but only those older than one that is proven good.

    The newest backups are checked page by page until one is good; it, and all newer ones, are kept whatever their age.

    Args:
        folder: Where they are.
        source_uuid: UUID of the database.
        key: Key of the newest ones; None: the VFS's keyring has it.
        days: Days that a backup is kept.
        vfs: Name of a registered `heliosvfs.HeliosVFS`.
        at: The time; None: the clock's.
        proven: Path of one that was found good just now.

    Returns:
        The paths that were removed.

    Raises:
        UsageError: ``days`` is not positive.
    """
    if days <= 0:
        msg = f"backup_retention_days is a positive number of days, not {days}"
        raise UsageError(msg)
    oldest = (at or datetime.now(timezone.utc)) - timedelta(days=days)
    found = backups_in(folder, source_uuid)
    good = next((number for number, item in enumerate(found) if item.path == proven or _is_good(item.path, key, vfs)), None)
    if good is None:
        return []
    removed = [item.path for item in found[good + 1 :] if item.created < oldest]
    for path in removed:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + suffix)
    return removed


def _is_good(path: str, key: Key | None, vfs: str) -> bool:
    try:
        return check(path, key=key, vfs=vfs).ok
    except (HeliosError, apsw.Error):
        return False


def _copy(  # noqa: PLR0913 - what a copy is made of
    source: Connection, partial: str, secret: Secret, settings: KdfSettings, origin: Origin | None, progress: Progress | None
) -> tuple[Content | None, int]:
    """Copy all pages into a new database, and return the content of the source, where it could be held still, and the pages."""
    still = origin is None or source.pragma("journal_mode") == "wal"
    page_size = source.pragma("page_size")
    vfs = files_of(source)[0].vfs_name
    if still:  # in WAL mode a snapshot disturbs nobody; in rollback mode it keeps writers out, and to a backup nobody writes
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    with contextlib.closing(
        connect(partial, key=secret, settings=settings, page_size=page_size, journal_mode="off", vfs=vfs)
    ) as dest:
        dest.pragma("synchronous", "off")  # made durable as a whole before it gets its name
        if origin is not None:
            note_origin(dest, origin)
        with dest.backup("main", source, "main") as copy:
            _step(copy, progress)
            pages = copy.page_count
        # the copied header says WAL if the source's does; a backup says no such thing: SQLite can't read a WAL database from a
        # medium that can only be read. A restored database is in WAL mode like any new one.
        dest.pragma("journal_mode", "wal" if origin is None else "delete")
    content = Content.of(source) if still else None
    if still:
        source.execute("COMMIT")
    return content, pages


def _step(copy: apsw.Backup, progress: Progress | None) -> None:
    """Copy in batches; where others write between them SQLite begins again, and after a few times it is done in one go."""
    restarts, last, done = 0, 0, False
    while not done:
        done = copy.step(_BATCH if restarts < _RESTARTS else -1)
        reached = copy.page_count - copy.remaining
        restarts += not done and reached <= last
        last = reached
        if progress is not None:
            progress(reached, copy.page_count)


def _prove(partial: str, secret: Secret, settings: KdfSettings, vfs: str, content: Content | None) -> tuple[str, tuple[str, ...]]:
    """Open every page of a copy, have SQLite check it, compare it with its source; return the content's digest, and notes.

    Raises:
        TamperedError: It is not what it should be.
    """
    report = check(partial, key=secret, vfs=vfs)
    if not report.ok or report.bad_pages:
        msg = f"the copy does not pass its check: {[*report.bad_pages, *report.problems, *report.integrity]}"
        raise TamperedError(msg, file=partial)
    with contextlib.closing(connect(partial, key=secret, settings=settings, create=False, vfs=vfs)) as connection:
        copied = Content.of(connection)
    if content is not None and copied != content:
        msg = f"the copy is not equal to its source: {content.difference(copied)}"
        raise TamperedError(msg, file=partial)
    return copied.digest(), report.notes
