"""What an application calls: connect(), and a Connection that knows the keys of its databases."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import apsw

from heliosvfs import slots
from heliosvfs.errors import FormatError, HeliosError, TamperedError, UsageError
from heliosvfs.keyring import Key, as_secret
from heliosvfs.keys import KdfSettings
from heliosvfs.layout import RESERVED_BYTES, is_page_size
from heliosvfs.superblock import Slot, Superblock
from heliosvfs.vfs import Credential, DatabaseFile, change_secret, files_of, now, presenting, reserving

__all__ = ["Connection", "KeySlot", "connect", "open_untouched"]

_CACHE_MB = 16


@dataclass(frozen=True)
class KeySlot:
    """A way to unlock a database, as `Connection.list_keys` shows it.

    Attributes:
        label: What its owner calls it.
        created: Time of creation, UTC ISO 8601.
        kdf: "argon2id", "pbkdf2-hmac-sha256" (both for passphrases) or "hkdf-sha256" (for raw keys).
        parameters: Cost of the KDF, for people to read.
    """

    label: str
    created: str
    kdf: str
    parameters: str

    @classmethod
    def of(cls, slot: Slot) -> KeySlot:
        """Describe a slot of a superblock."""
        kdf = slot.kdf
        parameters = {
            "argon2id": f"{kdf.memory_kib // 1024} MiB, {kdf.passes} passes, {kdf.lanes} lanes",
            "pbkdf2-hmac-sha256": f"{kdf.iterations} iterations",
        }
        return cls(slot.label, slot.created, kdf.name, parameters.get(kdf.name, "raw key"))


class Connection(apsw.Connection):
    """An `apsw.Connection` to encrypted databases; everything that APSW offers works on it.

    `heliosvfs.connect` makes one. ``VACUUM INTO`` in SQL seals its copy under the key of this connection's main database.
    """

    def _file(self, schema: str = "main") -> DatabaseFile:
        """Return the file of an attached database.

        Raises:
            UsageError: There is no such database, or it is not one of ours.
        """
        path = self.db_filename(schema)
        for file in reversed(files_of(self)):
            if file.path == path:
                return file
        msg = f"{schema} is not an encrypted database of this connection"
        raise UsageError(msg)

    def attach(self, path: str | os.PathLike[str], name: str, *, key: Key | None = None, create: bool = True) -> None:
        """Attach a further encrypted database, as ATTACH does, under a key of its own.

        Args:
            path: The database file, or a URI that names a registered key (``file:x.db?heliosvfs_key=NAME``).
            name: Schema name to attach it as.
            key: Its key; None: the VFS's keyring has it.
            create: False refuses a file that does not exist or is empty.

        Raises:
            KeyUnavailableError: There is no key for it.
            WrongKeyError: The key does not open it.
            FormatError: It is not a heliosvfs database.
        """
        where = os.fspath(path)
        if where != ":memory:" and where and not create and not where.startswith("file:") and not os.path.exists(where):
            msg = f"{where} does not exist"
            raise UsageError(msg)
        credential = Credential(None if key is None else as_secret(key), create=create)
        # without a key of its own the file takes what the keyring has: nothing is presented then
        with presenting(credential if key is not None else None):
            self.execute("ATTACH ? AS ?", (where, name))
        path = self.db_filename(name)
        if any(file.path == path for file in files_of(self)):
            self.reserve_bytes(name, RESERVED_BYTES)
        elif not _is_in_memory(where):
            self.execute("DETACH ?", (name,))
            msg = f"{where} names a VFS that does not encrypt: attach() opens no plain file; ATTACH in SQL does, if it is told to"
            raise UsageError(msg)

    def vacuum_into(self, path: str | os.PathLike[str], *, schema: str = "main", key: Key | None = None) -> None:
        """Write a compact copy of a database to a new file, as VACUUM INTO does, under the same or another key.

        Args:
            path: The new file; it must not exist, or be empty.
            schema: The database to copy.
            key: Key of the copy; None: that of this connection's main database.

        Raises:
            apsw.SQLError: The file exists already, or a transaction is open.
        """
        with presenting(None if key is None else Credential(as_secret(key))):
            self.execute(f'VACUUM "{schema.replace(chr(34), chr(34) * 2)}" INTO ?', (os.fspath(path),))

    # -- keys --------------------------------------------------------------------------------------------------------

    def list_keys(self, schema: str = "main") -> list[KeySlot]:
        """Return the key slots of a database."""
        file = self._file(schema)
        file.refresh()
        return [KeySlot.of(slot) for slot in file.access.superblock.slots]

    def add_key(self, key: Key, *, label: str, schema: str = "main", settings: KdfSettings | None = None) -> KeySlot:
        """Add a key slot: another passphrase or raw key that opens the database. No page is touched.

        Raises:
            UsageError: The label is taken, or all slots are.
            apsw.BusyError: Another connection is writing.
        """
        file = self._file(schema)
        file.refresh()
        secret = as_secret(key)
        new = slots.make(
            file.access.superblock,
            file.access.master.key,
            secret,
            label=label,
            created=now(),
            settings=settings or KdfSettings(),
            random=os.urandom,
        )
        self._update(file, lambda superblock: slots.add(superblock, new.slot), schema)
        file.access.master.remember(secret, new.slot, new.kek)
        return KeySlot.of(new.slot)

    def revoke_key(self, label: str, *, schema: str = "main") -> None:
        """Remove a key slot. Whoever kept a copy of the old superblock keeps that slot's way to the master key.

        Raises:
            UsageError: There is no such slot, or it is the last.
            apsw.BusyError: Another connection is writing.
        """
        self._update(self._file(schema), lambda superblock: slots.revoke(superblock, label), schema)

    def change_key(self, key: Key, *, schema: str = "main", settings: KdfSettings | None = None) -> None:
        """Put a new secret in the place of the one that this connection was opened with. No page is touched.

        Raises:
            UsageError: The slot that it was opened with is gone.
            apsw.BusyError: Another connection is writing.
        """
        credential = Credential(as_secret(key), settings or KdfSettings())
        file = self._file(schema)
        self._immediately(lambda: change_secret(file, credential), schema)

    def _update(self, file: DatabaseFile, change: Callable[[Superblock], Superblock], schema: str) -> None:
        self._immediately(lambda: file.update_superblock(change), schema)

    def _immediately(self, action: Callable[[], None], schema: str) -> None:
        """Run ``action`` in a write transaction, which rolls a hot journal back first and keeps other changes out."""
        if self.txn_state(schema) == apsw.SQLITE_TXN_WRITE:
            action()
            return
        if self.in_transaction:
            msg = "key slots can't be changed inside a transaction that only reads: end it first"
            raise UsageError(msg)
        self.execute("BEGIN IMMEDIATE")
        try:
            action()
        finally:
            self.execute("ROLLBACK")

    def get_storage_info(self, schema: str = "main") -> dict[str, Any]:
        """Return what can be said of a database's storage, without anything secret.

        Returns:
            encryption_enabled, encryption_algorithm, fips_mode, and for an encrypted database uuid, format_version,
            page_size, page_count, created, key_slots, key_epochs, key_epoch_created, path, vfs.
        """
        path = self.db_filename(schema)
        file = next((file for file in files_of(self) if path and file.path == path), None)
        if file is None or file.access.is_empty:
            return {"encryption_enabled": False, "encryption_algorithm": "", "fips_mode": False, "path": path}
        superblock = file.access.superblock
        credential = file.access.credential
        return {
            "encryption_enabled": True,
            "encryption_algorithm": superblock.epoch.cipher,
            "fips_mode": credential is not None and credential.settings.fips_mode,
            "path": path,
            "vfs": file.vfs_name,
            "format_version": 1,
            "uuid": superblock.uuid,
            "created": superblock.created,
            "page_size": superblock.page_size,
            "page_count": file.xFileSize() // superblock.page_size,
            "key_slots": [slot.label for slot in superblock.slots],
            "key_epochs": len(superblock.epochs),
            "key_epoch_created": superblock.epoch.created,
        }


def connect(  # noqa: PLR0913 - the options of a database
    path: str | os.PathLike[str],
    *,
    key: Key | None = None,
    create: bool = True,
    readonly: bool = False,
    page_size: int = 4096,
    auto_vacuum: str | None = None,
    encoding: str | None = None,
    vfs: str = "heliosvfs",
    journal_mode: str | None = None,
    busy_timeout: float = 5.0,
    cache_mb: float | None = None,
    settings: KdfSettings | None = None,
    label: str = "first",
) -> Connection:
    """Open an encrypted database, or create it.

    Args:
        path: The file, or a ``file:`` URI. ":memory:" and "" are SQLite's in-memory and temporary databases.
        key: Text is a passphrase, 32 bytes are a raw key, and a key source is asked; None: the VFS's keyring has it.
        create: False refuses a file that does not exist or is empty.
        readonly: Open for reading only.
        page_size: Bytes of a page of a new database, a power of two from 512 to 65536; an existing one keeps its own.
        auto_vacuum: "none", "full" or "incremental", for a new database: SQLite can't set it once the first page is written.
        encoding: "UTF-8", "UTF-16le" or "UTF-16be", for a new database likewise.
        vfs: Name of a registered `HeliosVFS`.
        journal_mode: SQLite's journal mode; None: WAL for a new database, and whatever an existing one has.
        busy_timeout: Seconds to wait for a lock.
        cache_mb: Page cache in MiB, 16 unless told otherwise: a page in the cache is not decrypted again.
        settings: Cost of a new database's KDF, and FIPS mode.
        label: Label of a new database's first key slot.

    Raises:
        KeyUnavailableError: There is no key for the database.
        WrongKeyError: The key does not open it.
        FormatError: It is not a heliosvfs database.
        TamperedError: Its superblock or its first page is damaged or was altered, or it was truncated.
        UsageError: It can't be opened for another reason, which the message names.
    """
    where = os.fspath(path)
    if not is_page_size(page_size):
        msg = f"page_size is a power of two from 512 to 65536, not {page_size}"
        raise UsageError(msg)
    credential = None
    if key is not None or settings is not None:
        credential = Credential(None if key is None else as_secret(key), settings or KdfSettings(), label, create)
    connection = _open(where, vfs, credential, create=create, readonly=readonly)
    try:
        connection.set_busy_timeout(int(busy_timeout * 1000))
        files = files_of(connection)
        if not files and not _is_in_memory(where):
            msg = f"{where} names a VFS that does not encrypt: heliosvfs.connect opens no plain file"
            raise UsageError(msg)  # noqa: TRY301 - closed below like any other failure
        if files:
            beginnings = {"page_size": page_size, "auto_vacuum": auto_vacuum, "encoding": encoding}
            _prepare(connection, files[0], beginnings, journal_mode, busy_timeout, create=create)
        elif journal_mode is not None:
            connection.pragma("journal_mode", journal_mode)
        connection.pragma("cache_size", -int((_CACHE_MB if cache_mb is None else cache_mb) * 1024))
    except (apsw.CantOpenError, apsw.ReadOnlyError) as error:
        connection.close()
        msg = (
            f"{where} can't be opened: {error}; it or its folder may not be written, and a WAL database needs to write its -shm "
            "file, one that was not closed properly to recover"
        )
        raise UsageError(msg) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _is_in_memory(where: str) -> bool:
    """Tell whether a name is that of an in-memory or temporary database (https://sqlite.org/inmemorydb.html)."""
    name, _, options = where.partition("?")
    return name in ("", ":memory:", "file:", "file::memory:") or "mode=memory" in options.split("&")


def _open(where: str, vfs: str, credential: Credential | None, *, create: bool, readonly: bool) -> Connection:
    if vfs not in apsw.vfs_names():
        msg = f"there is no VFS named {vfs!r}; a database is never opened through another one instead"
        raise UsageError(msg)
    flags = apsw.SQLITE_OPEN_URI  # ATTACH and VACUUM INTO may name a registered key in a URI
    flags |= apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE
    if create and not readonly:
        flags |= apsw.SQLITE_OPEN_CREATE
    try:
        with presenting(credential):
            return Connection(where, flags=flags, vfs=vfs)
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


def open_untouched(path: str | os.PathLike[str], *, key: Key | None = None, vfs: str = "heliosvfs") -> Connection:
    """Open an existing database for reading and leave it at that: nothing is read yet, so nothing has been recovered.

    Raises:
        KeyUnavailableError, WrongKeyError, FormatError, TamperedError, UsageError: As `connect`.
    """
    credential = None if key is None else Credential(as_secret(key), create=False)
    connection = _open(os.fspath(path), vfs, credential, create=False, readonly=True)
    try:
        files = files_of(connection)
        if not files or files[0].access.is_empty:
            msg = f"{os.fspath(path)} is empty: there is no database in it"
            raise FormatError(msg)  # noqa: TRY301 - closed below like any other failure
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
        msg = f"{file.path} is empty: there is no database in it"
        raise FormatError(msg)
    if new:
        file.access.require_keys()
        for name, value in beginnings.items():
            if value is not None:
                connection.pragma(name, value)
    mode = journal_mode or ("wal" if new else None)
    try:
        if mode is not None and not readonly:
            _set_journal_mode(connection, mode, busy_timeout)
        if new and not file.xFileSize():
            _write_first_page(connection)
        connection.pragma("schema_version")
    except apsw.CorruptError:
        _explain_corruption(file)
        raise


def _write_first_page(connection: Connection) -> None:
    """Create the file now, so that what connect() returns is there for other processes, and under this key."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        # any write makes SQLite write page 1; this one changes nothing, also if another process was faster
        connection.pragma("user_version", connection.pragma("user_version"))
    except BaseException:
        connection.execute("ROLLBACK")
        raise
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
