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
    change_secret(file, credential)


def change_secret(file: DatabaseFile, credential: Credential) -> None:
    """Replace the slot that the file was opened with; a secret that was seen to open it already is left as it is.

    Raises:
        UsageError: The slot is gone.
        KeyUnavailableError: The file is locked.
    """
    master, secret, presented = file.access.master, credential.secret, file.access.credential
    file.refresh()
    superblock = file.access.superblock
    assert secret is not None  # noqa: S101 - callers have one
    if master.slot_of(secret, superblock.slots) is not None:
        return
    old = master.slot_of(None if presented is None else presented.secret, superblock.slots)
    if old is None:
        msg = f"{file.path}: the key slot that this connection was opened with has been revoked"
        raise UsageError(msg)
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
    file.update_superblock(lambda current: slots.replace(current, old, new.slot))
    master.remember(secret, new.slot, new.kek)
    file.access.credential = credential
