"""Seals: what opens what, how often a key is used, and what a fork must forget."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from heliosvfs import pages
from heliosvfs.keys import wrap_epoch
from heliosvfs.pages import (
    KIND_DATABASE,
    KIND_JOURNAL,
    KIND_TEMPORARY,
    KIND_WAL,
    FileKeys,
    NotAuthenticError,
    Opener,
    Sealer,
    UnknownEpochError,
)
from heliosvfs.superblock import Kdf, Slot, Superblock

SIZE = 512
KINDS = [KIND_DATABASE, KIND_WAL, KIND_JOURNAL, KIND_TEMPORARY]


@pytest.fixture
def keys() -> FileKeys:
    return FileKeys(bytes(16), {1: bytearray(b"1" * 32), 2: bytearray(b"2" * 32)}, 2)


def sealed(keys: FileKeys, kind: int = KIND_DATABASE, plain: bytes = b"p" * (SIZE - 32), suffix: bytes = b"0001") -> bytes:
    return bytes(Sealer(keys, kind, SIZE, os.urandom).seal(plain, suffix))


def test_what_is_sealed_opens_with_zeros_for_its_trailer(keys: FileKeys) -> None:
    """SQLite's checksums cover the reserved bytes: it must see what it wrote."""
    plain = os.urandom(SIZE - 32)
    assert bytes(Opener(keys, KIND_DATABASE, SIZE).open(sealed(keys, plain=plain), b"0001")) == plain + bytes(32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_opens_as_its_own_kind_only(keys: FileKeys, kind: int) -> None:
    unit = sealed(keys, kind)
    for other in KINDS:
        opener = Opener(keys, other, SIZE)
        if other == kind:
            opener.open(unit, b"0001")
        else:
            with pytest.raises(NotAuthenticError):
                opener.open(unit, b"0001")


def test_a_unit_is_bound_to_its_place_its_file_and_its_epoch(keys: FileKeys) -> None:
    unit = sealed(keys)
    with pytest.raises(NotAuthenticError):
        Opener(keys, KIND_DATABASE, SIZE).open(unit, b"0002")
    elsewhere = FileKeys(b"x" * 16, {1: bytearray(b"1" * 32), 2: bytearray(b"2" * 32)}, 2)
    with pytest.raises(NotAuthenticError):
        Opener(elsewhere, KIND_DATABASE, SIZE).open(unit, b"0001")
    same_key = FileKeys(bytes(16), {1: bytearray(b"2" * 32), 2: bytearray(b"2" * 32)}, 2)
    in_another_epoch = unit[:-4] + (1).to_bytes(3, "big") + unit[-1:]
    with pytest.raises(NotAuthenticError):
        Opener(same_key, KIND_DATABASE, SIZE).open(in_another_epoch, b"0001")
    in_another_sub_key = unit[:-1] + bytes([unit[-1] ^ 1])
    with pytest.raises(NotAuthenticError):
        Opener(keys, KIND_DATABASE, SIZE).open(in_another_sub_key, b"0001")


@pytest.mark.parametrize("epoch", [0, 3, 5000, (1 << 24) - 1])
def test_an_epoch_that_is_not_listed_is_told_from_damage(keys: FileKeys, epoch: int) -> None:
    unit = sealed(keys)[:-4] + epoch.to_bytes(3, "big") + b"\0"
    with pytest.raises(UnknownEpochError, match=str(epoch)):
        Opener(keys, KIND_DATABASE, SIZE).open(unit, b"0001")
    assert keys.may_be_newer(unit[-4:]) == (epoch == 3)


def test_zeros_are_never_a_sealed_unit(keys: FileKeys) -> None:
    with pytest.raises(UnknownEpochError):
        Opener(keys, KIND_DATABASE, SIZE).open(bytes(SIZE), b"0001")


def test_new_units_are_sealed_under_the_newest_epoch(keys: FileKeys) -> None:
    assert sealed(keys)[-4:-1] == (2).to_bytes(3, "big")


def test_a_unit_that_fails_leaves_nothing_for_the_next(keys: FileKeys) -> None:
    """The buffer is used again, and the cipher writes into it before it has seen the tag."""
    opener = Opener(keys, KIND_DATABASE, SIZE)
    unit = bytearray(sealed(keys, plain=b"s" * (SIZE - 32)))
    unit[-20] ^= 1
    with pytest.raises(NotAuthenticError):
        opener.open(bytes(unit), b"0001")
    assert bytes(opener.open(sealed(keys), b"0001")) == b"p" * (SIZE - 32) + bytes(32)


def test_nonces_are_drawn_fresh_and_never_twice(keys: FileKeys) -> None:
    """Drawn 256 at a time: across the end of the store too."""
    sealer = Sealer(keys, KIND_DATABASE, SIZE, os.urandom)
    nonces = Counter(bytes(sealer.seal(bytes(SIZE - 32), b"0001"))[-16:-4] for _ in range(1000))
    assert max(nonces.values()) == 1
    assert len(nonces) == 1000


def test_all_bytes_of_the_randomness_are_used_once() -> None:
    """With a randomness that counts, each nonce is another stretch of it."""
    drawn = bytearray()

    def counting(size: int) -> bytes:
        begin = len(drawn)
        drawn.extend((begin + n) // 12 % 256 if n % 12 else (begin + n) // 3072 % 256 for n in range(size))
        return bytes(drawn[begin:])

    keys = FileKeys(bytes(16), {1: bytearray(32)}, 1)
    sealer = Sealer(keys, KIND_DATABASE, SIZE, counting)
    got = b"".join(bytes(sealer.seal(bytes(SIZE - 32), b""))[-16:-4] for _ in range(600))
    assert got[: 256 * 12] in bytes(drawn)
    assert len({got[at : at + 12] for at in range(0, len(got), 12)}) > 500


def test_a_sealer_takes_another_sub_key_every_million_seals(keys: FileKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sub-key stays far below 2^32 random nonces (NIST SP 800-38D, 8.3)."""
    assert pages._SEALS_PER_SUB_KEY == 1 << 20
    monkeypatch.setattr(pages, "_SEALS_PER_SUB_KEY", 1024)
    sub_keys = iter(range(256))
    sealer = Sealer(keys, KIND_DATABASE, SIZE, lambda size: bytes([next(sub_keys)]) if size == 1 else os.urandom(size))
    used = Counter(bytes(sealer.seal(bytes(SIZE - 32), b"0001"))[-1] for _ in range(4096))
    assert used == {0: 1024, 1: 1024, 2: 1024, 3: 1024}


def test_sealers_draw_sub_keys_at_random(keys: FileKeys) -> None:
    assert len({sealed(keys)[-1] for _ in range(200)}) > 60


def test_what_a_fork_must_forget_is_forgotten(keys: FileKeys) -> None:
    """Parent and child hold the same store of nonces."""
    drawn: list[int] = []

    def noting(size: int) -> bytes:
        drawn.append(size)
        return os.urandom(size)

    sealer = Sealer(keys, KIND_DATABASE, SIZE, noting)
    sealer.seal(bytes(SIZE - 32), b"0001")
    assert len(drawn) == 2
    pages._forget_nonces()
    sealer.seal(bytes(SIZE - 32), b"0001")
    assert len(drawn) == 4


def test_wiped_keys_open_and_seal_nothing(keys: FileKeys) -> None:
    unit = sealed(keys)
    kept = keys._epochs[2]
    keys.wipe()
    assert bytes(kept) == bytes(32)
    with pytest.raises(UnknownEpochError):
        Opener(keys, KIND_DATABASE, SIZE).open(unit, b"0001")


def test_all_epochs_of_a_superblock_are_unwrapped() -> None:
    uuid, master = os.urandom(16), bytearray(os.urandom(32))
    epochs = tuple(wrap_epoch(uuid, number, "2030", bytes([number]) * 32, master, os.urandom) for number in (3, 9))
    slot = Slot(0, "first", "2030", Kdf("hkdf-sha256", "00" * 16), "00" * 60)
    keys = FileKeys.of(Superblock(uuid.hex(), 4096, (slot,), epochs, "2030"), master)
    assert keys.current == 9
    assert {number: bytes(key) for number, key in keys._epochs.items()} == {3: b"\3" * 32, 9: b"\t" * 32}
    assert keys.uuid == uuid


def test_temporary_keys_are_never_the_same() -> None:
    one, two = FileKeys.ephemeral(os.urandom), FileKeys.ephemeral(os.urandom)
    unit = sealed(one)
    with pytest.raises(NotAuthenticError):
        Opener(two, KIND_DATABASE, SIZE).open(unit, b"0001")
