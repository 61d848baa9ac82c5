"""The keys of a database that does not exist yet.

They are made before the file is: a rollback journal is opened, and sealed, before the first page is written. If another process
wins the race to create the file they are thrown away unused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timezone

from heliosvfs.errors import KeyUnavailableError
from heliosvfs.keyring import InheritedKey, MasterKey, adopt
from heliosvfs.keys import KEY_BYTES, derive_kek, new_kdf, wrap_epoch, wrap_slot
from heliosvfs.pages import FileKeys
from heliosvfs.superblock import Epoch, Slot, Superblock
from heliosvfs.vfs.credentials import Credential

__all__ = ["NewDatabase", "now"]


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
        uuid, key_bytes, created = random(16), bytearray(random(KEY_BYTES)), now()
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
            msg = (
                f"{path} would be created without a key: use heliosvfs.connect(path, key=...), Connection.attach(path, "
                "name, key=...), a registered key (file:...?heliosvfs_key=NAME) or PRAGMA key before the first write "
                "(SQLite itself ignores the KEY clause of ATTACH)"
            )
            raise KeyUnavailableError(msg)
        epoch_key = bytearray(random(KEY_BYTES))
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
