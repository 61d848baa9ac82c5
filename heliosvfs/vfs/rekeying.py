"""Put another secret in the place of the one that a file was opened with (PRAGMA rekey, `Connection.change_key`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import apsw

from heliosvfs import slots
from heliosvfs.errors import UsageError
from heliosvfs.vfs import pragmas
from heliosvfs.vfs.creation import now

if TYPE_CHECKING:
    from heliosvfs.vfs.credentials import Credential
    from heliosvfs.vfs.database import DatabaseFile

__all__ = ["change_secret", "rekey"]


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
        pragmas.refuse_hot_journal(file.base_name, file.path)
    try:
        change_secret(file, credential, in_write_transaction=False)
    except apsw.BusyError:
        msg = f"{file.path} is in use: PRAGMA rekey can't wait for a lock; heliosvfs.Connection.change_key does"
        raise UsageError(msg) from None


def change_secret(file: DatabaseFile, credential: Credential, *, in_write_transaction: bool = True) -> None:
    """Replace the slot that the file was opened with; where the new secret has a slot already, the old one is just revoked.

    Raises:
        UsageError: The slot is gone.
        KeyUnavailableError: The file is locked.
    """
    master, secret, presented = file.access.master, credential.secret, file.access.credential
    file.refresh()
    superblock = file.access.superblock
    assert secret is not None  # noqa: S101 - callers have one
    old = master.slot_of(None if presented is None else presented.secret, superblock.slots)
    if old is None:
        msg = f"{file.path}: the key slot that this connection was opened with has been revoked"
        raise UsageError(msg)
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
    file.update_superblock(lambda current: slots.replace(current, old, new.slot), in_write_transaction=in_write_transaction)
    master.remember(secret, new.slot, new.kek)
    file.access.credential = credential
