"""Whatever is sealed opens, and whatever is changed in a seal does not."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosvfs.pages import KIND_DATABASE, KIND_WAL, FileKeys, NotAuthenticError, Opener, Sealer, UnknownEpochError

SIZES = [512 << n for n in range(8)]


def file_keys() -> FileKeys:
    return FileKeys(b"u" * 16, {1: bytearray(b"1" * 32), 5: bytearray(b"5" * 32)}, 5)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    size=st.sampled_from(SIZES),
    extra=st.sampled_from([0, 24]),
    pattern=st.binary(min_size=1, max_size=64),
    number=st.integers(1, (1 << 32) - 2),
)
def test_a_sealed_unit_opens_at_all_sizes(size: int, extra: int, pattern: bytes, number: int) -> None:
    keys, suffix = file_keys(), number.to_bytes(4, "big")
    kind, whole = (KIND_WAL, size + extra) if extra else (KIND_DATABASE, size)
    plain = (pattern * (whole // len(pattern) + 1))[: whole - 32]
    unit = bytes(Sealer(keys, kind, whole, os.urandom).seal(plain, suffix))
    assert len(unit) == whole
    assert plain not in unit
    assert bytes(Opener(keys, kind, whole).open(unit, suffix)) == plain + bytes(32)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    size=st.sampled_from(SIZES[:4]),
    places=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 7)), min_size=1, max_size=5),
)
def test_a_unit_with_any_bits_flipped_is_refused(size: int, places: list[tuple[int, int]]) -> None:
    keys = file_keys()
    unit = bytes(Sealer(keys, KIND_DATABASE, size, os.urandom).seal(bytes(size - 32), b"0001"))
    changed = bytearray(unit)
    for at, bit in places:
        changed[at % size] ^= 1 << bit
    opener = Opener(keys, KIND_DATABASE, size)
    if bytes(changed) == unit:
        opener.open(bytes(changed), b"0001")
    else:
        with pytest.raises((NotAuthenticError, UnknownEpochError)):
            opener.open(bytes(changed), b"0001")


def test_each_single_bit_of_a_small_unit_counts() -> None:
    """All 4096 of them."""
    keys = file_keys()
    unit = bytes(Sealer(keys, KIND_DATABASE, 512, os.urandom).seal(os.urandom(480), b"0001"))
    opener = Opener(keys, KIND_DATABASE, 512)
    for bit in range(512 * 8):
        changed = bytearray(unit)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((NotAuthenticError, UnknownEpochError)):
            opener.open(bytes(changed), b"0001")


@settings(derandomize=True, deadline=None, max_examples=100)
@given(one=st.integers(1, (1 << 32) - 2), other=st.integers(1, (1 << 32) - 2))
def test_a_unit_opens_at_its_own_number_only(one: int, other: int) -> None:
    keys = file_keys()
    unit = bytes(Sealer(keys, KIND_DATABASE, 512, os.urandom).seal(bytes(480), one.to_bytes(4, "big")))
    opener = Opener(keys, KIND_DATABASE, 512)
    if one == other:
        opener.open(unit, other.to_bytes(4, "big"))
    else:
        with pytest.raises(NotAuthenticError):
            opener.open(unit, other.to_bytes(4, "big"))
