"""connect(): open an encrypted database or create it, and bring it into the state that the caller asked for."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import apsw

import heliosaudit
from heliosvfs.audited import AuditedConnection
from heliosvfs.connection import Connection, is_in_memory
from heliosvfs.errors import DiskFullError, HeliosError, TamperedError, UsageError
from heliosvfs.keyring import Key, as_secret
from heliosvfs.keys import KdfSettings, require_settings
from heliosvfs.layout import RESERVED_BYTES, is_page_size
from heliosvfs.vfs import Credential, DatabaseFile, files_of, presenting, refuse_to_create, reserving
from heliosvfs.write_locks import write_lock

if TYPE_CHECKING:
    from heliosvfs.config import Config

__all__ = ["connect", "open_untouched", "require_regular", "set_pragmas"]

_CACHE_MB = 16


def connect(  # noqa: PLR0913 - the options of a database
    path: str | os.PathLike[str] | None = None,
    *,
    key: Key | None = None,
    config: Config | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    create: bool = True,
    readonly: bool = False,
    page_size: int | None = None,
    auto_vacuum: str | None = None,
    encoding: str | None = None,
    vfs: str = "heliosvfs",
    journal_mode: str | None = None,
    busy_timeout: float = 5.0,
    cache_mb: float | None = None,
    pragmas: Mapping[str, Any] | None = None,
    settings: KdfSettings | None = None,
    label: str = "first",
    audit: heliosaudit.Policy | str | None = None,
    rotation_interval_days: float | None = None,
    auto_rotate: bool | None = None,
) -> Connection:
    """Open an encrypted database, or create it.

    Args:
        path: The file, or a ``file:`` URI. ":memory:" and "" are SQLite's in-memory and temporary databases. None: that of the
            configuration.
        key: Text is a passphrase, 32 bytes are a raw key, and a key source is asked; None: the VFS's keyring has it.
        config: A configuration, a dict of its sections, or the path of a TOML file (docs/CONFIG.md); what is said beside it goes
            before it, but never below its presets.
        create: False refuses a file that does not exist or is empty.
        readonly: Open for reading only.
        page_size: Bytes of a page of a new database, a power of two from 512 to 65536; None: 4096. An existing one keeps its own.
        auto_vacuum: "none", "full" or "incremental", for a new database: SQLite can't set it once the first page is written.
        encoding: "UTF-8", "UTF-16le" or "UTF-16be", for a new database likewise.
        vfs: Name of a registered `HeliosVFS`.
        journal_mode: SQLite's journal mode; None: WAL for a new database, and whatever an existing one has.
        busy_timeout: Seconds to wait for a lock.
        cache_mb: Page cache in MiB, 16 unless told otherwise: a page in the cache is not decrypted again.
        pragmas: Further PRAGMAs, set before auditing begins.
        settings: Cost of a new database's KDF, and FIPS mode.
        label: Label of a new database's first key slot.
        audit: Audit the connection under this policy, or the preset of this name: the connection is then an `AuditedConnection`.
        rotation_interval_days: Days that a data key may be used: get_storage_info() tells when it is due, and a
            `heliosvfs.rotation_dates.RotationDueWarning` when it was.
        auto_rotate: Rotate the data key now if it is due, instead of a warning; that takes as long as copying the database.

    Raises:
        ConfigError: The configuration can't be used.
        KeyUnavailableError: There is no key for the database.
        WrongKeyError: The key does not open it.
        FormatError: It is not a heliosvfs database.
        TamperedError: Its superblock or its first page is damaged or was altered, or it was truncated.
        AuditPolicyError: The database can't be audited as the policy asks.
        UsageError: It can't be opened for another reason, which the message names.
    """
    if config is not None:
        from heliosvfs.config.applying import connect as connect_as_configured  # noqa: PLC0415 - it opens by this function

        said = {
            "create": create,
            "readonly": readonly,
            "page_size": page_size,
            "auto_vacuum": auto_vacuum,
            "encoding": encoding,
            "vfs": vfs,
            "journal_mode": journal_mode,
            "busy_timeout": busy_timeout,
            "cache_mb": cache_mb,
            "pragmas": pragmas,
            "settings": settings,
            "label": label,
            "rotation_interval_days": rotation_interval_days,
            "auto_rotate": auto_rotate,
        }
        return connect_as_configured(config, path, key=key, audit=audit, opener=connect, **said)
    where = _named(path)
    page_size = 4096 if page_size is None else page_size
    if not is_page_size(page_size):
        msg = f"page_size is a power of two from 512 to 65536, not {page_size}"
        raise UsageError(msg)
    credential = None
    if key is not None or settings is not None:
        require_settings(settings or KdfSettings())
        credential = Credential(None if key is None else as_secret(key), settings or KdfSettings(), label, create)
    policy = heliosaudit.Policy.preset(audit) if isinstance(audit, str) else audit
    kind = Connection if policy is None else AuditedConnection
    beginnings = {"page_size": page_size, "auto_vacuum": auto_vacuum, "encoding": encoding}
    with reserving.beginning_with(beginnings):
        connection = _open(where, vfs, credential, kind, create=create, readonly=readonly)
    try:
        connection.set_busy_timeout(int(busy_timeout * 1000))
        files = _files(connection, where, key)
        if files:
            _prepare(connection, files[0], beginnings, journal_mode, busy_timeout, create=create)
        else:
            connection.reserve_bytes("main", RESERVED_BYTES)  # so that it can be backed up into an encrypted file
            if journal_mode is not None:
                connection.pragma("journal_mode", journal_mode)
        connection.pragma("cache_size", -int((_CACHE_MB if cache_mb is None else cache_mb) * 1024))
        set_pragmas(connection, pragmas or {})
        if isinstance(connection, AuditedConnection) and policy is not None:
            connection.audit(policy, vfs, None if key is None else as_secret(key))
        if rotation_interval_days is not None and files:
            _see_to_rotation(connection, rotation_interval_days, auto=bool(auto_rotate) and not readonly)
    except BaseException as error:
        connection.close()
        if isinstance(error, apsw.Error):
            _explain(error, where)
        raise
    return connection


def _explain(error: apsw.Error, where: str) -> None:
    """Raise what says more than an error of SQLite's, if there is anything to be said.

    Raises:
        UsageError: The file or its folder may not be written.
        DiskFullError: There is no room for the file that the users of a WAL share, which no VFS in Python sees.
    """
    if isinstance(error, (apsw.CantOpenError, apsw.ReadOnlyError)):
        msg = (
            f"{where} can't be opened: {error}; it or its folder may not be written, and a WAL database needs to write its -shm "
            "file, one that was not closed properly to recover: get the right to, or copy it and its -wal file elsewhere"
        )
        raise UsageError(msg) from error
    if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE:
        shared = f"{where}-shm"
        raise DiskFullError.of(shared) from error


def _named(path: str | os.PathLike[str] | None) -> str:
    if path is None:
        msg = "connect() takes the path of a database, or a configuration that names one"
        raise UsageError(msg)
    return os.fspath(path)


def set_pragmas(connection: Connection, pragmas: Mapping[str, Any]) -> None:
    """Set PRAGMAs of a connection."""
    for name, value in pragmas.items():
        connection.pragma(name, value)


def _files(connection: Connection, where: str, key: Key | None) -> list[DatabaseFile]:
    """Return a connection's encrypted files; none if it is in memory."""
    files = files_of(connection)
    if not files and not is_in_memory(where, key):
        msg = f"{where} names a VFS that does not encrypt: heliosvfs.connect opens no plain file"
        raise UsageError(msg)
    return files


def _see_to_rotation(connection: Connection, interval_days: float, *, auto: bool) -> None:
    """Rotate the data key if it is due, or warn."""
    from heliosvfs import rotation_dates  # noqa: PLC0415 - rotation opens connections itself

    connection.rotation_interval_days = interval_days
    found = rotation_dates.due(connection, interval_days)
    if auto and (found.is_due or found.unfinished):
        connection.rotate()
    else:
        rotation_dates.warn_if_due(connection, interval_days)


def _open(  # noqa: PLR0913 - how to open, and as what
    where: str, vfs: str, credential: Credential | None, kind: type[Connection] = Connection, *, create: bool, readonly: bool
) -> Connection:
    if vfs not in apsw.vfs_names():
        msg = f"there is no VFS named {vfs!r}; a database is never opened through another one instead"
        raise UsageError(msg)
    flags = apsw.SQLITE_OPEN_URI  # ATTACH and VACUUM INTO may name a registered key in a URI
    flags |= apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE
    if create and not readonly:
        flags |= apsw.SQLITE_OPEN_CREATE
        if (credential is None or credential.secret is None) and not is_in_memory(where):
            refuse_to_create(where, vfs)
    require_regular(where)
    try:
        with presenting(credential, where):
            return kind(where, flags=flags, vfs=vfs)
    except HeliosError:
        raise
    except apsw.CantOpenError as error:
        msg = f"{where} can't be opened: "
        if where.startswith("file:") or os.path.exists(where):
            msg += "it is no file that may be read and written here"
        elif not create or readonly:
            msg += "it does not exist"
        else:
            msg += "its folder does not exist or may not be written"
        raise UsageError(msg) from error


def require_regular(where: str) -> None:
    """See that a path, if there is something, leads to a regular file: what reads a pipe would wait for ever.

    Raises:
        UsageError: It is a folder, a pipe or a device.
    """
    if where.startswith("file:") or not os.path.exists(where) or os.path.isfile(where):
        return
    msg = f"{where} is {'a folder' if os.path.isdir(where) else 'no regular file'}: there is no database in it"
    raise UsageError(msg)


def open_untouched(path: str | os.PathLike[str], *, key: Key | None = None, vfs: str = "heliosvfs") -> Connection:
    """Open an existing database for reading and leave it at that: nothing is read yet, so nothing has been recovered.

    Raises:
        KeyUnavailableError, WrongKeyError, FormatError, TamperedError, UsageError: As `connect`.
    """
    credential = None if key is None else Credential(as_secret(key), create=False)
    connection = _open(os.fspath(path), vfs, credential, create=False, readonly=True)
    try:
        files = files_of(connection)
        if not files:
            msg = f"{vfs!r} is not a VFS of heliosvfs's"
            raise UsageError(msg)  # noqa: TRY301 - closed below like any other failure
        if files[0].access.is_empty:
            raise files[0].access.nothing_in_it()  # noqa: TRY301 - closed below like any other failure
        files[0].access.require_keys()
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(  # noqa: PLR0913 - the options of a database
    connection: Connection,
    file: DatabaseFile,
    beginnings: dict[str, Any],
    journal_mode: str | None,
    busy_timeout: float,
    *,
    create: bool,
) -> None:
    """Bring a freshly opened file into the state that the caller asked for, and see that it can be read.

    Args:
        connection: The connection.
        file: Its main database's file.
        beginnings: PRAGMAs that must come before a database's first page.
        journal_mode: As for `connect`.
        busy_timeout: As for `connect`.
        create: As for `connect`.
    """
    if file.access.is_locked:
        file.access.require_keys()
    readonly = connection.readonly("main")
    new = file.access.is_empty or not file.xFileSize()
    if new and (readonly or not create):
        raise file.access.nothing_in_it()
    if new:
        file.access.require_keys()
        reserving.set_beginnings(connection, beginnings)  # again: a program may have replaced APSW's list of hooks
    mode = journal_mode or ("wal" if new else None)
    try:
        if mode is not None and not readonly:
            _set_journal_mode(connection, mode, busy_timeout)
        if new and not file.xFileSize():
            _write_first_page(connection)
        if new:
            connection.pragma("page_size", 0)  # SQLite would go by ours in the VACUUM of any other database attached later
        connection.pragma("schema_version")
    except apsw.CorruptError:
        _explain_corruption(file)
        raise


def _write_first_page(connection: Connection) -> None:
    """Create the file now, so that what connect() returns is there for other processes, and under this key."""
    with write_lock(connection):
        # any write makes SQLite write page 1; this one changes nothing, also if another process was faster
        connection.pragma("user_version", connection.pragma("user_version"))
        connection.execute("COMMIT")


def _set_journal_mode(connection: Connection, mode: str, busy_timeout: float) -> None:
    """Set the journal mode, waiting for other processes: SQLite does not call the busy handler for this one."""
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            got = connection.pragma("journal_mode", mode)
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if str(got).lower() != mode.lower():
            msg = f"the journal mode is {got}, and SQLite can't set it to {mode} here"
            raise UsageError(msg)
        return


def _explain_corruption(file: DatabaseFile) -> None:
    """Raise if the file is shorter than its own header says.

    Raises:
        TamperedError: It is.
    """
    header = bytes(file.xRead(100, 0)).ljust(100, b"\0")
    pages, there = int.from_bytes(header[28:32], "big"), file.xFileSize() // file.access.superblock.page_size
    if header[24:28] == header[92:96] and there < pages:
        msg = f"{file.path} has been truncated: its header speaks of {pages} pages and {there} are there"
        raise TamperedError(msg, file=file.path, page=there + 1, offset=file.access.superblock.layout.offset(there + 1))


def _close_all() -> None:
    """Close what is still open when the interpreter ends: SQLite must not call into a VFS that is being torn down."""
    for connection in reserving.open_connections():
        try:
            connection.close(True)  # noqa: FBT003 - APSW's parameter is positional: do not raise
        except apsw.Error:  # pragma: no cover - nothing is left to report it to
            continue


reserving.install()
atexit.register(_close_all)
