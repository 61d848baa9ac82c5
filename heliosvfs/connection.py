"""A Connection that knows the keys of its databases; heliosvfs.connect (opening.py) makes one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apsw

from heliosvfs import slots
from heliosvfs.errors import HeliosError, UsageError
from heliosvfs.keyring import Key, as_secret
from heliosvfs.keys import KdfSettings
from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.metrics import note_closing
from heliosvfs.superblock import Slot, Superblock
from heliosvfs.vfs import Credential, DatabaseFile, change_secret, files_of, now, presenting, refuse_to_create
from heliosvfs.vfs.rekeying import require_master
from heliosvfs.write_locks import write_lock

if TYPE_CHECKING:
    from heliosvfs.config import Config
    from heliosvfs.rotation import RotationReport

__all__ = ["Connection", "KeySlot", "is_in_memory"]


def is_in_memory(where: str, key: Key | None = None) -> bool:
    """Tell whether a name is that of an in-memory or temporary database (https://sqlite.org/inmemorydb.html).

    SQLite's in-memory VFS counts only where no key is given: whoever gives one wants an encrypted file.
    """
    name, _, given = where.partition("?")
    options = given.split("&")
    named = name in ("", ":memory:", "file:", "file::memory:") or "mode=memory" in options
    return named or (key is None and "vfs=memdb" in options)


@dataclass(frozen=True)
class KeySlot:
    """A way to unlock a database, as `Connection.list_keys` shows it.

    Attributes:
        label: What its owner calls it.
        created: Time of creation, UTC ISO 8601.
        kdf: "argon2id", "pbkdf2-hmac-sha256" (both for passphrases) or "hkdf-sha256" (for raw keys).
        parameters: Cost of the KDF, for people to read.
        last_used: Day of its last use, UTC ISO 8601; "" where that is not noted (`heliosvfs.key_uses.note_use`).
    """

    label: str
    created: str
    kdf: str
    parameters: str
    last_used: str = ""

    @classmethod
    def of(cls, slot: Slot) -> KeySlot:
        """Describe a slot of a superblock."""
        kdf = slot.kdf
        parameters = {
            "argon2id": f"{kdf.memory_kib // 1024} MiB, {kdf.passes} passes, {kdf.lanes} lanes",
            "pbkdf2-hmac-sha256": f"{kdf.iterations} iterations",
        }
        return cls(slot.label, slot.created, kdf.name, parameters.get(kdf.name, "raw key"), slot.last_used)


class Connection(apsw.Connection):
    """An `apsw.Connection` to encrypted databases; everything that APSW offers works on it.

    `heliosvfs.connect` makes one. ``VACUUM INTO`` in SQL seals its copy under the key of this connection's main database, unless
    the VFS's keyring has a default: that serves whatever is opened without a key.
    """

    rotation_interval_days: float | None = None  # days that a data key may be used, where `connect` was told
    configuration: Config | None = None  # the configuration that it was opened with
    configured: dict[str, Any] | None = None  # what that adds to storage info

    def __exit__(self, *exception: object) -> Any:
        """See `apsw.Connection.__exit__`; where SQLite has rolled back, or `torn` has, the error that led to it is raised."""
        try:
            return super().__exit__(*exception)  # type: ignore[arg-type]
        except apsw.SQLError:
            if exception[0] is None or self.in_transaction:
                raise
            return False

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
            KeyUnavailableError: There is no key for it: a new database does not take this connection's.
            WrongKeyError: The key does not open it.
            FormatError: It is not a heliosvfs database.
        """
        where = os.fspath(path)
        if where != ":memory:" and where and not create and not where.startswith("file:") and not os.path.exists(where):
            msg = f"{where} does not exist"
            raise UsageError(msg)
        if key is None and create and not is_in_memory(where):
            refuse_to_create(where, self.open_vfs)
        credential = Credential(None if key is None else as_secret(key), create=create)
        # without a key of its own the file takes what the keyring has: nothing is presented then
        with presenting(credential if key is not None else None, where):
            self.execute("ATTACH ? AS ?", (where, name))
        path = self.db_filename(name)
        attached = next((file for file in files_of(self) if file.path == path), None)
        if attached is not None:
            if attached.access.is_empty:
                try:
                    attached.access.require_keys()
                except HeliosError:
                    self.execute("DETACH ?", (name,))
                    raise
            self.reserve_bytes(name, RESERVED_BYTES)
        elif not is_in_memory(where, key):
            self.execute("DETACH ?", (name,))
            msg = f"{where} names a VFS that does not encrypt: attach() opens no plain file; ATTACH in SQL does, if it is told to"
            raise UsageError(msg)

    def vacuum_into(self, path: str | os.PathLike[str], *, schema: str = "main", key: Key | None = None) -> None:
        """Write a compact copy of a database to a new file, as VACUUM INTO does, under the same or another key.

        Args:
            path: The new file; it must not exist, or be empty.
            schema: The database to copy.
            key: Key of the copy; None: the one that this connection's main database was opened with, or the registered key that
                the path names (``file:copy.db?heliosvfs_key=NAME``).

        Raises:
            apsw.SQLError: The file exists already, or a transaction is open.
            KeyUnavailableError: The main database was opened with a key that has been revoked or replaced since.
        """
        where = os.fspath(path)
        credential = None if key is None else Credential(as_secret(key))
        if credential is None and "heliosvfs_key=" not in where and files_of(self):
            credential = Credential(None)  # an empty one keeps the keyring's default away, and the main database's key is taken
        with presenting(credential, where):
            self.execute(f'VACUUM "{schema.replace(chr(34), chr(34) * 2)}" INTO ?', (where,))

    def close(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - APSW's signature
        """See `apsw.Connection.close`."""
        note_closing(self)
        super().close(force)

    @classmethod
    def open_with_config(cls, path: str | os.PathLike[str], config: Any) -> Connection:
        """Open a database as a configuration says, wherever it says that it is.

        Args:
            path: The file.
            config: A `heliosvfs.Config`, the path of a TOML file, or a dict of sections.

        Raises:
            ConfigError: The configuration can't be used.
            KeyUnavailableError, WrongKeyError, FormatError, UsageError: As `heliosvfs.connect`.
        """
        from heliosvfs.opening import connect  # noqa: PLC0415 - it opens connections of this class

        return connect(path, config=config)

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
        secret, master = as_secret(key), file.access.master
        new = slots.make(
            file.access.superblock,
            master.key,
            secret,
            label=label,
            created=now(),
            settings=settings or KdfSettings(),
            random=os.urandom,
        )

        def add(superblock: Superblock) -> Superblock:
            require_master(file, master)
            return slots.add(superblock, new.slot)

        self._update(file, add, schema)
        master.remember(secret, new.slot, new.kek)
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

    def rotate(self, **options: Any) -> RotationReport:
        """Seal the database anew under a fresh data key, while it is in use; for the options see `heliosvfs.rotation.rotate`."""
        from heliosvfs.rotation import rotate  # noqa: PLC0415 - it opens connections of this class

        return rotate(self, **options)

    def _update(self, file: DatabaseFile, change: Callable[[Superblock], Superblock], schema: str) -> None:
        self._immediately(lambda: file.update_superblock(change), schema)

    def _immediately(self, action: Callable[[], None], schema: str) -> None:
        """Run ``action`` in a write transaction, which rolls a hot journal back first and keeps other changes out."""
        if self.readonly(schema):
            msg = f"{self.db_filename(schema)} was opened for reading only, or may not be written: its keys can't be changed"
            raise UsageError(msg)
        if self.txn_state(schema) == apsw.SQLITE_TXN_WRITE:
            action()
            return
        if self.in_transaction:
            msg = "key slots can't be changed inside a transaction that only reads: end it first"
            raise UsageError(msg)
        with write_lock(self):
            action()

    def get_storage_info(self, schema: str = "main") -> dict[str, Any]:
        """Return what can be said of a database's storage, without anything secret.

        Returns:
            encryption_enabled, encryption_algorithm, fips_mode, and for an encrypted database uuid, format_version,
            page_size, page_count, created, key_slots, key_epochs, key_epoch_created, path, vfs; and, where `connect` was given
            rotation_interval_days, what `heliosvfs.rotation_dates.due_facts` says.
        """
        path = self.db_filename(schema)
        file = next((file for file in files_of(self) if path and file.path == path), None)
        if file is None or file.access.is_empty:
            plain = {"encryption_enabled": False, "encryption_algorithm": "", "fips_mode": False, "path": path}
            return plain | (self.configured or {})
        file.refresh()
        superblock = file.access.superblock
        credential = file.access.credential
        info: dict[str, Any] = {
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
        if self.rotation_interval_days is not None:
            from heliosvfs.rotation_dates import due_facts  # noqa: PLC0415 - it speaks of connections of this class

            info |= due_facts(self, self.rotation_interval_days, schema=schema)
        return info | (self.configured or {})
