"""Put another secret in the place of the one that a file was opened with (PRAGMA rekey, `Connection.change_key`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import apsw

from heliosvfs import slots
from heliosvfs.errors import UsageError
from heliosvfs.vfs.creation import now

if TYPE_CHECKING:
    from heliosvfs.keyring import MasterKey
    from heliosvfs.superblock import Superblock
    from heliosvfs.vfs.credentials import Credential
    from heliosvfs.vfs.database import DatabaseFile

__all__ = ["change_secret", "rekey", "require_master"]


def require_master(file: DatabaseFile, master: MasterKey) -> None:
    """Refuse to put a slot into the superblock that was made for a master key which is no longer the file's.

    Call it inside the change of an update: only there it is known which master key is in force.

    Raises:
        UsageError: Another process has replaced the master key.
    """
    if file.access.master is not master:
        msg = f"{file.path}: another process replaced the master key at the same moment: try again"
        raise UsageError(msg)


def rekey(file: DatabaseFile, credential: Credential) -> None:
    """Do what PRAGMA rekey asks, in a transaction or outside of one.

    Raises:
        UsageError: The slot that the file was opened with is gone, or the file needs recovery first.
        KeyUnavailableError: The file is locked.
    """
    if file.access.is_empty:
        file.access.present(credential)
        return
    file.access.require_keys()
    if file.lock_level == apsw.SQLITE_LOCK_NONE:
        _refuse_hot_journal(file.base_name, file.path)
    try:
        change_secret(file, credential, in_write_transaction=False)
    except apsw.BusyError:
        msg = f"{file.path} is in use: PRAGMA rekey can't wait for a lock; heliosvfs.Connection.change_key does"
        raise UsageError(msg) from None


def change_secret(file: DatabaseFile, credential: Credential, *, in_write_transaction: bool = True) -> None:
    """Replace the slot that the file was opened with; where the new secret has a slot already, the old one is just revoked.

    One secret in two slots would still open the file when one of them is revoked.

    Raises:
        UsageError: The slot is gone.
        KeyUnavailableError: The file is locked.
    """
    file.refresh()
    master, secret, presented = file.access.master, credential.secret, file.access.credential
    superblock = file.access.superblock
    assert secret is not None  # noqa: S101 - callers have one
    old = master.slot_of(None if presented is None else presented.secret, superblock.slots)
    if old is None:
        msg = f"{file.path}: the key slot that this connection was opened with has been revoked"
        raise UsageError(msg)
    existing = master.slot_of(secret, superblock.slots)
    if existing is None and file.access.opens_with(credential):  # which costs a run of the KDF for each slot
        existing = master.slot_of(secret, superblock.slots)
    if existing is not None:
        if existing != old:
            file.update_superblock(lambda current: slots.revoke(current, old.label), in_write_transaction=in_write_transaction)
            file.access.credential = credential
        return
    new = slots.make(
        superblock,
        master.key,
        secret,
        label=old.label,
        created=now(),
        settings=credential.settings,
        random=os.urandom,
        replacing=True,
    )

    def replace(current: Superblock) -> Superblock:
        require_master(file, master)
        return slots.replace(current, old, new.slot)

    file.update_superblock(replace, in_write_transaction=in_write_transaction)
    master.remember(secret, new.slot, new.kek)
    file.access.credential = credential


def _refuse_hot_journal(base: str, path: str) -> None:
    """Refuse to take a write lock beside a journal that has not been rolled back: others would take it for a live one.

    Raises:
        UsageError: There is such a journal.
    """
    journal = path + "-journal"
    try:
        file = apsw.VFSFile(base, journal, [apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_READONLY, 0])
    except apsw.CantOpenError:
        return
    try:
        if file.xRead(8, 0).strip(b"\0"):
            msg = f"{path} needs recovery first: read from it (SELECT), then change the key"
            raise UsageError(msg)
    finally:
        file.xClose()
