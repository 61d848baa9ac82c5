"""What a rotation does to one open file: a new epoch, the proof that no page is under an older one, the end of the older ones.

Each function that changes the superblock is called inside BEGIN IMMEDIATE of the file's connection (FORMAT.md, "Updates").
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import msgspec.structs

from heliosvfs import slots
from heliosvfs.errors import UsageError, WrongKeyError
from heliosvfs.keys import Secret, unwrap_epoch, wrap_epoch
from heliosvfs.memory import KeyBuffer, random_key
from heliosvfs.superblock import Epoch, Slot, Superblock
from heliosvfs.vfs.creation import now
from heliosvfs.vfs.database import DatabaseFile

__all__ = [
    "PresentedSlot",
    "drop_old_epochs",
    "pages_under_old_epochs",
    "publish_epoch",
    "replace_master",
    "reseal_lock_page",
    "slots_opened_by",
]

PresentedSlot = tuple[Slot, Secret]
_LAST_EPOCH = (1 << 24) - 1  # three bytes of a page's trailer
_BATCH = 1024  # pages between two calls of a progress function


def _new_epoch(superblock: Superblock, master: KeyBuffer) -> Epoch:
    number = superblock.epoch.id + 1
    if number > _LAST_EPOCH:
        msg = f"the database has been through all {_LAST_EPOCH} epochs of its format: copy it into a new one (VACUUM INTO)"
        raise UsageError(msg)
    return wrap_epoch(superblock.uuid_bytes, number, now(), random_key(), master, os.urandom)


def publish_epoch(file: DatabaseFile) -> int:
    """Add an epoch to the superblock, durably, and return its number: from now on everything is sealed under it.

    Raises:
        UsageError: There is no room for it in the superblock, or no number left.
    """
    file.refresh()
    epoch = _new_epoch(file.access.superblock, file.access.master.key)
    file.update_superblock(lambda superblock: msgspec.structs.replace(superblock, epochs=(*superblock.epochs, epoch)))
    return epoch.id


def drop_old_epochs(file: DatabaseFile, epoch: int) -> None:
    """Remove all epochs before ``epoch`` from the superblock, durably: nothing may be sealed under them any more.

    Later ones stay: another rotation may have published one meanwhile.
    """
    file.update_superblock(
        lambda superblock: msgspec.structs.replace(
            superblock, epochs=tuple(kept for kept in superblock.epochs if kept.id >= epoch)
        )
    )


def pages_under_old_epochs(file: DatabaseFile, epoch: int, progress: Callable[[int, int], None] | None = None) -> list[int]:
    """Return the pages of the file on disk that are not sealed under ``epoch`` or a later one, by number.

    It is enough to look once: whoever writes a page takes over the newest epoch first, so none can turn up later.
    """
    file.refresh()
    good = {known.id.to_bytes(3, "big") for known in file.access.superblock.epochs if known.id >= epoch}
    pages = file.pages
    count = pages.page_count()
    found = []
    for page in range(1, count + 1):
        if pages.read_sealed(page)[-4:-1] not in good:
            found.append(page)
        if progress is not None and (page % _BATCH == 0 or page == count):
            progress(page, count)
    return found


def reseal_lock_page(file: DatabaseFile) -> None:
    """Seal the page that SQLite never uses anew, where the file reaches that far: no copy of the content rewrites it."""
    page = file.pages.layout.lock_page
    if page <= file.pages.page_count():
        file.pages.fill(page, page)


def replace_master(file: DatabaseFile, presented: Sequence[PresentedSlot]) -> int:
    """Put a new master key and a new epoch in force, in one update; only the slots that were presented open it from now on.

    The KDF of each slot runs here. Pages stay as they are: the older epochs are kept, under the new master key.

    Returns:
        The number of the new epoch.

    Raises:
        WrongKeyError: A secret does not open its slot.
        UsageError: A slot was revoked meanwhile, or there is no room in the superblock.
    """
    file.refresh()
    before = file.access.superblock
    master = random_key()
    new = [slots.rewrap(before, slot, secret, master, os.urandom) for slot, secret in presented]
    epoch = _new_epoch(before, master)
    old_master = file.access.master.key

    def change(superblock: Superblock) -> Superblock:
        if any(slot not in superblock.slots for slot, _ in presented):
            msg = "another process changed the key slots at the same moment: try again"
            raise UsageError(msg)
        uuid = superblock.uuid_bytes
        kept = []
        for old in superblock.epochs:
            key = unwrap_epoch(uuid, old, old_master)
            kept.append(wrap_epoch(uuid, old.id, old.created, key, master, os.urandom))
        return msgspec.structs.replace(superblock, slots=tuple(made.slot for made in new), epochs=(*kept, epoch))

    file.update_superblock(change, new_master=master)
    for (_, secret), made in zip(presented, new, strict=True):
        file.access.master.remember(secret, made.slot, made.kek)
    return epoch.id


def slots_opened_by(file: DatabaseFile, secrets: Sequence[Secret]) -> list[PresentedSlot]:
    """Return the slot that each secret opens, running the KDF where this process has not seen the secret before.

    Raises:
        WrongKeyError: A secret opens none.
    """
    file.refresh()
    superblock, master = file.access.superblock, file.access.master
    found: list[PresentedSlot] = []
    for secret in secrets:
        slot = master.slot_of(secret, superblock.slots) or slots.opened_by(superblock, secret)
        if slot is None:
            msg = f"{file.path}: one of the keys that were presented opens no key slot, so its slot can't be kept"
            raise WrongKeyError(msg)
        if all(slot.id != other.id for other, _ in found):
            found.append((slot, secret))
    return found
