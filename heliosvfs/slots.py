"""Changes of a superblock's key slots: superblock in, superblock out (FORMAT.md, "Key slots").

Slots are independent ways to the same master key, as in LUKS2: adding or revoking one touches no page. Whoever kept a copy of an
old superblock keeps whatever way to the master key that copy holds; only a new master key ends that.
"""

from __future__ import annotations

import msgspec.structs

from heliosvfs.errors import UsageError, WrongKeyError
from heliosvfs.keys import KdfSettings, Randomness, Secret, derive_kek, new_kdf, unwrap_slot, wipe, wrap_slot
from heliosvfs.memory import KeyBuffer
from heliosvfs.superblock import MAX_SLOTS, Slot, Superblock

__all__ = ["NewSlot", "add", "make", "opened_by", "replace", "revoke", "rewrap"]


class NewSlot(msgspec.Struct, frozen=True):
    """A slot's key-encryption key, derived before any lock is held because the KDF is slow.

    Attributes:
        slot: The slot, wrapped for one master key.
        kek: Its key-encryption key.
    """

    slot: Slot
    kek: memoryview

    def __repr__(self) -> str:
        """Name the slot, never the key."""
        return f"NewSlot({self.slot.id}, {self.slot.label!r})"


def make(  # noqa: PLR0913 - each is a fact of the slot
    superblock: Superblock,
    master: KeyBuffer,
    secret: Secret,
    *,
    label: str,
    created: str,
    settings: KdfSettings,
    random: Randomness,
    replacing: bool = False,
) -> NewSlot:
    """Derive a new slot for ``secret``; it is in no superblock yet. With ``replacing`` the label may be one that is taken.

    Raises:
        UsageError: The label is empty, taken or too long.
    """
    if not label or len(label) > 64 or not label.isprintable():  # noqa: PLR2004 - stated in the message
        msg = "a slot's label is 1 to 64 printable characters"
        raise UsageError(msg)
    if not replacing and any(slot.label == label for slot in superblock.slots):
        msg = f"there is a slot labelled {label!r} already: labels name slots, so choose another"
        raise UsageError(msg)
    kdf = new_kdf(secret, settings, random)
    kek = derive_kek(secret, kdf, fips_mode=settings.fips_mode)
    number = max((slot.id for slot in superblock.slots), default=-1) + 1
    return NewSlot(wrap_slot(superblock.uuid_bytes, number, label, created, kdf, kek, master, random), kek)


def add(superblock: Superblock, new: Slot) -> Superblock:
    """Return the superblock with one slot more.

    Raises:
        UsageError: There are as many slots as format 1 allows, or another process took the number or label meanwhile.
    """
    if len(superblock.slots) >= MAX_SLOTS:
        msg = f"all {MAX_SLOTS} key slots are taken: revoke one that is no longer needed"
        raise UsageError(msg)
    if any(slot.id == new.id or slot.label == new.label for slot in superblock.slots):
        msg = "another process changed the key slots at the same moment: try again"
        raise UsageError(msg)
    return msgspec.structs.replace(superblock, slots=(*superblock.slots, new))


def revoke(superblock: Superblock, label: str) -> Superblock:
    """Return the superblock without the slot labelled ``label``.

    Raises:
        UsageError: There is no such slot, or it is the last one.
    """
    kept = tuple(slot for slot in superblock.slots if slot.label != label)
    if len(kept) == len(superblock.slots):
        labels = ", ".join(repr(slot.label) for slot in superblock.slots)
        msg = f"there is no key slot labelled {label!r}; there are {labels}"
        raise UsageError(msg)
    if not kept:
        msg = f"{label!r} is the last key slot: without it nobody could open the database; add another first"
        raise UsageError(msg)
    return msgspec.structs.replace(superblock, slots=kept)


def replace(superblock: Superblock, old: Slot, new: Slot) -> Superblock:
    """Return the superblock with ``new`` in the place, and under the label, of ``old``.

    Raises:
        UsageError: Another process has revoked or replaced ``old`` meanwhile.
    """
    if old not in superblock.slots:
        msg = "another process changed the key slots at the same moment: try again"
        raise UsageError(msg)
    return msgspec.structs.replace(superblock, slots=tuple(new if slot == old else slot for slot in superblock.slots))


def opened_by(superblock: Superblock, secret: Secret) -> Slot | None:
    """Return the first slot that ``secret`` opens, None if it opens none; the KDF runs for each slot that is tried.

    Raises:
        FormatError: A slot's parameters are outside what is accepted.
    """
    for slot in superblock.slots:
        if secret.fits(slot.kdf):
            try:
                key = unwrap_slot(superblock.uuid_bytes, slot, derive_kek(secret, slot.kdf))
            except WrongKeyError:
                continue
            wipe(key)
            return slot
    return None


def rewrap(superblock: Superblock, slot: Slot, secret: Secret, master: KeyBuffer, random: Randomness) -> NewSlot:
    """Derive the same slot, under a fresh salt, for a new master key.

    Raises:
        FormatError: The slot's parameters are outside what is accepted.
    """
    kdf = msgspec.structs.replace(slot.kdf, salt=random(len(slot.kdf.salt) // 2).hex())
    kek = derive_kek(secret, kdf)
    made = wrap_slot(superblock.uuid_bytes, slot.id, slot.label, slot.created, kdf, kek, master, random)
    return NewSlot(msgspec.structs.replace(made, last_used=slot.last_used), kek)
