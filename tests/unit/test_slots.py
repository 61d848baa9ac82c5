"""Changes of key slots, superblock in and superblock out."""

from __future__ import annotations

import os

import msgspec.structs
import pytest

from heliosvfs import slots
from heliosvfs.errors import UsageError
from heliosvfs.keys import KdfSettings, Secret, derive_kek, unwrap_slot, wrap_epoch
from heliosvfs.superblock import MAX_SLOTS, Superblock

UUID = bytes(range(16))
MASTER = bytes(range(32))


def make(superblock: Superblock, label: str, secret: Secret | None = None, *, replacing: bool = False) -> slots.NewSlot:
    return slots.make(
        superblock,
        MASTER,
        secret or Secret.raw(os.urandom(32)),
        label=label,
        created="2030",
        settings=KdfSettings(),
        random=os.urandom,
        replacing=replacing,
    )


@pytest.fixture
def superblock() -> Superblock:
    epoch = wrap_epoch(UUID, 1, "2030", os.urandom(32), MASTER, os.urandom)
    empty = Superblock(UUID.hex(), 4096, (), (epoch,), "2030")
    return slots.add(empty, make(empty, "first").slot)


def test_a_new_slot_opens_with_its_secret(superblock: Superblock) -> None:
    secret = Secret.raw(b"s" * 32)
    new = make(superblock, "second", secret)
    added = slots.add(superblock, new.slot)
    assert [slot.label for slot in added.slots] == ["first", "second"]
    assert unwrap_slot(UUID, added.slots[1], derive_kek(secret, new.slot.kdf)) == MASTER
    assert superblock.slots == added.slots[:1]


def test_the_number_of_a_revoked_slot_is_free_only_where_nothing_is_bound_to_it(superblock: Superblock) -> None:
    """A wrapped key of an earlier slot never opens in a later one: each has a salt of its own."""
    one = make(superblock, "second")
    revoked = slots.revoke(slots.add(superblock, one.slot), "second")
    two = make(revoked, "third")
    mixed = msgspec.structs.replace(two.slot, wrapped=one.slot.wrapped)
    assert one.slot.kdf.salt != two.slot.kdf.salt
    with pytest.raises(Exception, match="opens no key slot"):
        unwrap_slot(UUID, mixed, one.kek)


@pytest.mark.parametrize("label", ["", "x" * 65, "two\nlines", "\x1b[31mred", "nul\0"])
def test_a_label_that_people_can_not_read_is_refused(superblock: Superblock, label: str) -> None:
    with pytest.raises(UsageError, match="label"):
        make(superblock, label)


def test_a_label_names_one_slot(superblock: Superblock) -> None:
    with pytest.raises(UsageError, match="already"):
        make(superblock, "first")
    other = make(superblock, "first", replacing=True)
    with pytest.raises(UsageError, match="try again"):
        slots.add(superblock, other.slot)


def test_a_number_that_another_process_took_is_refused(superblock: Superblock) -> None:
    mine, theirs = make(superblock, "mine"), make(superblock, "theirs")
    assert mine.slot.id == theirs.slot.id
    with pytest.raises(UsageError, match="try again"):
        slots.add(slots.add(superblock, theirs.slot), mine.slot)


def test_all_slots_can_be_used_and_no_more(superblock: Superblock) -> None:
    full = superblock
    for number in range(MAX_SLOTS - 1):
        full = slots.add(full, make(full, f"slot {number}").slot)
    assert len(full.slots) == MAX_SLOTS
    with pytest.raises(UsageError, match="all 32"):
        slots.add(full, make(full, "one more").slot)


def test_the_last_slot_and_an_unknown_one_are_not_revoked(superblock: Superblock) -> None:
    with pytest.raises(UsageError, match="last"):
        slots.revoke(superblock, "first")
    with pytest.raises(UsageError, match="'first'"):
        slots.revoke(superblock, "unknown")


def test_a_slot_is_replaced_in_its_place_or_not_at_all(superblock: Superblock) -> None:
    two = slots.add(superblock, make(superblock, "second").slot)
    new = make(two, "first", replacing=True).slot
    replaced = slots.replace(two, two.slots[0], new)
    assert replaced.slots == (new, two.slots[1])
    with pytest.raises(UsageError, match="try again"):
        slots.replace(replaced, two.slots[0], new)


def test_a_new_slot_shows_no_key(superblock: Superblock) -> None:
    new = make(superblock, "second")
    assert repr(new.kek) not in repr(new)
    assert new.kek.hex() not in repr(new)
