"""A superblock of any content is read as it was written, members of later releases included."""

from __future__ import annotations

import msgspec.structs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosvfs.errors import FormatError
from heliosvfs.superblock import COPY_SIZE, Epoch, Features, Kdf, Slot, Superblock, encode, parse_copy

hexadecimal = {size: st.binary(min_size=size, max_size=size).map(bytes.hex) for size in (16, 32, 60)}
texts = st.text(st.characters(codec="utf-8"), max_size=64)
kdfs = st.one_of(
    st.builds(Kdf, st.just("argon2id"), hexadecimal[16], st.integers(8192, 1 << 20), st.integers(1, 16), st.integers(1, 16)),
    st.builds(Kdf, st.just("hkdf-sha256"), hexadecimal[16]),
    st.builds(Kdf, st.just("pbkdf2-hmac-sha256"), hexadecimal[16], iterations=st.integers(600_000, 10_000_000)),
)
slots = st.lists(
    st.builds(Slot, st.integers(0, (1 << 32) - 1), texts, texts, kdfs, hexadecimal[60]),
    min_size=1,
    max_size=6,
    unique_by=lambda slot: slot.id,
)
epochs = st.lists(
    st.builds(Epoch, st.integers(1, (1 << 24) - 1), st.just("AES-256-GCM"), texts, hexadecimal[60]),
    min_size=1,
    max_size=6,
    unique_by=lambda epoch: epoch.id,
).map(lambda found: sorted(found, key=lambda epoch: epoch.id))
features = st.builds(Features, st.just(()), st.lists(texts, max_size=3).map(tuple), st.lists(texts, max_size=3).map(tuple))
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
unknown = st.dictionaries(texts.map(lambda name: "later " + name), json, max_size=4)
superblocks = st.builds(
    Superblock,
    uuid=hexadecimal[16],
    page_size=st.sampled_from([512 << n for n in range(8)]),
    slots=slots.map(tuple),
    epochs=epochs.map(tuple),
    created=texts,
    populated=st.booleans(),
    features=features,
    page_root=hexadecimal[32],
    sequence=st.integers(1, (1 << 64) - 1),
    unknown=unknown,
)


@settings(derandomize=True, deadline=None, max_examples=120)
@given(content=superblocks, key=st.binary(min_size=32, max_size=32))
def test_what_is_encoded_is_parsed(content: Superblock, key: bytes) -> None:
    for index, sealed in enumerate(encode(content, key)):
        copy = parse_copy(sealed, index)
        assert copy.superblock == content
        assert copy.is_authentic(key)
        again = msgspec.structs.replace(copy.superblock, sequence=1)
        assert parse_copy(encode(again, key)[index], index).superblock.unknown == content.unknown


@settings(derandomize=True, deadline=None, max_examples=120)
@given(
    content=superblocks,
    places=st.lists(
        st.tuples(st.integers(0, COPY_SIZE - 1), st.integers(1, 255)), min_size=1, max_size=3, unique_by=lambda place: place[0]
    ),
)
def test_a_copy_with_any_byte_changed_is_refused(content: Superblock, places: list[tuple[int, int]]) -> None:
    sealed = bytearray(encode(content, bytes(32))[0])
    for at, mask in places:
        sealed[at] ^= mask
    with pytest.raises(FormatError):
        parse_copy(bytes(sealed), 0)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(data=st.binary(max_size=COPY_SIZE))
def test_bytes_of_somebody_elses_making_are_refused(data: bytes) -> None:
    for sealed in (data, data.ljust(COPY_SIZE, b"\0")):
        with pytest.raises(FormatError):
            parse_copy(sealed, 0)
