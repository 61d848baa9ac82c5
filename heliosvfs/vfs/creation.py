"""The keys of a database that does not exist yet, and what its first page must be like.

They are made before the file is: a rollback journal is opened, and sealed, before the first page is written. If another process
wins the race to create the file they are thrown away unused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timezone

import apsw

from heliosvfs.errors import KeyUnavailableError, RefusedWriteError
from heliosvfs.keyring import InheritedKey, MasterKey, adopt
from heliosvfs.keys import derive_kek, new_kdf, wrap_epoch, wrap_slot
from heliosvfs.layout import RESERVED_BYTES, is_page_size
from heliosvfs.memory import random_key
from heliosvfs.pages import Buffer, FileKeys
from heliosvfs.superblock import Epoch, Slot, Superblock
from heliosvfs.vfs.credentials import Credential
from heliosvfs.vfs.page_io import ZEROS

__all__ = ["NewDatabase", "check_first_page", "no_key_for", "now"]


def no_key_for(path: str) -> KeyUnavailableError:
    """Return the error of a file that would be created in the clear."""
    msg = (
        f"{path} would be created without a key: use heliosvfs.connect(path, key=...), Connection.attach(path, "
        "name, key=...), a registered key (file:...?heliosvfs_key=NAME) or PRAGMA key before the first write "
        "(SQLite itself ignores the KEY clause of ATTACH)"
    )
    return KeyUnavailableError(msg)


def now() -> str:
    """Return the time, UTC ISO 8601 to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class NewDatabase:
    """What a file will be created with.

    Attributes:
        master: Its master key.
        keys: Its epoch keys.
        slot: Its first key slot.
        epoch: Its first epoch.
    """

    master: MasterKey
    keys: FileKeys
    slot: Slot
    epoch: Epoch

    @classmethod
    def prepare(cls, key: Credential | InheritedKey | None, path: str) -> NewDatabase:
        """Make the keys of a new file; a passphrase costs its KDF here.

        Raises:
            KeyUnavailableError: There is no key to make it with: a file is never created in the clear.
        """
        random = os.urandom
        uuid, key_bytes, created = random(16), random_key(), now()
        if isinstance(key, InheritedKey):
            slot = wrap_slot(uuid, 0, key.label, created, key.kdf, key.kek, key_bytes, random)
            master = adopt(uuid.hex(), key_bytes)
            master.inherit(key)
        elif key is not None and key.secret is not None:
            kdf = new_kdf(key.secret, key.settings, random)
            kek = derive_kek(key.secret, kdf, fips_mode=key.settings.fips_mode)
            slot = wrap_slot(uuid, 0, key.label, created, kdf, kek, key_bytes, random)
            master = adopt(uuid.hex(), key_bytes)
            master.remember(key.secret, slot, kek)
        else:
            raise no_key_for(path)
        epoch_key = random_key()
        epoch = wrap_epoch(uuid, 1, created, epoch_key, key_bytes, random)
        return cls(master, FileKeys(uuid, {1: epoch_key}, 1), slot, epoch)

    def superblock(self, page_size: int) -> Superblock:
        """Return the superblock of the new file."""
        return Superblock(
            uuid=self.master.uuid,
            page_size=page_size,
            slots=(self.slot,),
            epochs=(self.epoch,),
            created=self.epoch.created,
        )

    def discard(self) -> None:
        """Throw the keys away unused."""
        self.keys.wipe()
        self.master.release()


def check_first_page(path: str, data: Buffer, offset: int, lock_level: int) -> None:
    """Refuse a first page that would make a database that can't be sealed, or could be made twice.

    Args:
        path: Path of the database file.
        data: What SQLite writes.
        offset: Where it writes that.
        lock_level: The lock that it holds, one of SQLITE_LOCK_*.

    Raises:
        RefusedWriteError: It is such a page.
    """
    if not is_page_size(len(data)) or offset % len(data):
        msg = f"{path}: the first write to a new database is {len(data)} bytes at offset {offset}: not a page"
        raise RefusedWriteError(msg)
    if data[-RESERVED_BYTES:] != ZEROS or (offset == 0 and data[20] != RESERVED_BYTES):
        msg = (
            f"{path}: a new database must leave {RESERVED_BYTES} bytes of each page to its seal: create it with "
            "heliosvfs.connect() or Connection.attach(), which see to that"
        )
        raise RefusedWriteError(msg)
    if lock_level < apsw.SQLITE_LOCK_EXCLUSIVE:
        msg = f"{path} can't be created without locks (nolock=1): another process may be creating it too"
        raise RefusedWriteError(msg)
