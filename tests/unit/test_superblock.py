"""The superblock's bytes: what is written is read, and what is not of format 1 is told apart."""

from __future__ import annotations

import hashlib
import struct

import msgspec.json
import msgspec.structs
import pytest

from heliosvfs.errors import FormatError, UnsupportedVersionError, UsageError
from heliosvfs.superblock import (
    COPY_SIZE,
    MAGIC,
    MAX_SLOTS,
    SEQUENCE_OFFSET,
    DamagedCopyError,
    Epoch,
    Features,
    Kdf,
    Slot,
    Superblock,
    encode,
    parse_copy,
)

HMAC_KEY = b"h" * 32
ARGON2 = Kdf("argon2id", "ab" * 16, memory_kib=65536, passes=3, lanes=4)


def slot(number: int, kdf: Kdf = ARGON2, label: str = "") -> Slot:
    return Slot(number, label or f"slot {number}", "2030-01-01T00:00:00Z", kdf, "cd" * 60)


def epoch(number: int) -> Epoch:
    return Epoch(number, "AES-256-GCM", "2030-01-01T00:00:00Z", "ef" * 60)


def superblock(**changes: object) -> Superblock:
    basis = Superblock("0f" * 16, 4096, (slot(0),), (epoch(1),), "2030-01-01T00:00:00Z")
    return msgspec.structs.replace(basis, **changes)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    "content",
    [
        superblock(),
        superblock(page_size=512, sequence=1 << 40, populated=True),
        superblock(page_size=65536, slots=(slot(0), slot(7, Kdf("hkdf-sha256", "01" * 16)))),
        superblock(epochs=(epoch(1), epoch(2), epoch((1 << 24) - 1))),
        superblock(features=Features(read_only_compatible=("a",), compatible=("b", "c"))),
        superblock(unknown={"later": {"a": [1, None, "ü", 1.5, True]}, "zz": 3}),
        superblock(slots=(slot(0, Kdf("pbkdf2-hmac-sha256", "02" * 16, iterations=700000), 'l"\\ü\n'),)),
    ],
    ids=range(7),
)
def test_what_is_encoded_is_parsed(content: Superblock, index: int) -> None:
    copy = parse_copy(encode(content, HMAC_KEY)[index], index)
    assert copy.superblock == content
    assert copy.is_authentic(HMAC_KEY)
    assert not copy.is_authentic(b"H" * 32)


def test_the_copies_differ_in_their_index_alone() -> None:
    one, two = encode(superblock(), HMAC_KEY)
    assert len(one) == len(two) == COPY_SIZE
    different = [at for at in range(COPY_SIZE - 64) if one[at] != two[at]]
    assert different == [18]
    assert one.startswith(MAGIC)
    assert one[SEQUENCE_OFFSET : SEQUENCE_OFFSET + 8] == (1).to_bytes(8, "big")


def test_a_copy_in_the_others_place_is_refused() -> None:
    one, two = encode(superblock(), HMAC_KEY)
    for copy, index in ((one, 1), (two, 0)):
        with pytest.raises(FormatError):
            parse_copy(copy, index)


@pytest.mark.parametrize("copy", [b"", MAGIC, bytes(COPY_SIZE), MAGIC.ljust(COPY_SIZE, b"\0"), b"x" * COPY_SIZE])
def test_what_is_no_superblock_is_damaged(copy: bytes) -> None:
    with pytest.raises(DamagedCopyError):
        parse_copy(copy, 0)


def altered(change: dict[str, object], *, index: int = 0, prefix: tuple[int, bytes] | None = None) -> bytes:
    """Return a copy with other members, or other bytes in its prefix, and a right SHA-256."""
    copy = bytearray(encode(superblock(), HMAC_KEY)[index])
    length = int.from_bytes(copy[40:44], "big")
    members = msgspec.json.decode(copy[64 : 64 + length])
    for name, value in change.items():
        if value is ...:
            del members[name]
        else:
            members[name] = value
    document = msgspec.json.encode(members)
    copy[40:44] = struct.pack(">I", len(document))
    copy[64:-64] = document.ljust(COPY_SIZE - 128, b"\0")
    if prefix:
        copy[prefix[0] : prefix[0] + len(prefix[1])] = prefix[1]
    copy[-32:] = hashlib.sha256(copy[:-32]).digest()
    return bytes(copy)


def test_the_altering_itself_is_accepted() -> None:
    """A guard: unchanged, the copy made by the helper of the tests below parses."""
    assert parse_copy(altered({}), 0).superblock == superblock()


OUTSIDE: list[dict[str, object]] = [
    {"page_size": 0},
    {"page_size": 4095},
    {"page_size": 1 << 17},
    {"page_size": "4096"},
    {"page_size": None},
    {"page_size": True},
    {"reserved_bytes": 31},
    {"uuid": "00" * 15},
    {"uuid": "00" * 17},
    {"uuid": 5},
    {"uuid": ...},
    {"slots": []},
    {"slots": ...},
    {"slots": {}},
    {"epochs": []},
    {"epochs": ...},
    {"epochs": [{"id": 0, "cipher": "AES-256-GCM", "created": "", "wrapped": "ef" * 60}]},
    {"epochs": [{"id": 1 << 24, "cipher": "AES-256-GCM", "created": "", "wrapped": "ef" * 60}]},
    {"epochs": [{"id": 1, "cipher": "NULL", "created": "", "wrapped": "ef" * 60}]},
    {"epochs": [{"id": n, "cipher": "AES-256-GCM", "created": "", "wrapped": "ef" * 60} for n in (2, 1)]},
    {"epochs": [{"id": n, "cipher": "AES-256-GCM", "created": "", "wrapped": "ef" * 60} for n in (1, 1)]},
    {"features": []},
    {"created": ...},
]


@pytest.mark.parametrize("change", OUTSIDE, ids=str)
def test_values_outside_format_1_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        parse_copy(altered(change), 0)


@pytest.mark.parametrize("number", range(MAX_SLOTS + 1, MAX_SLOTS + 3))
def test_more_slots_than_format_1_allows_are_refused(number: int) -> None:
    """Each could cost a KDF run of a stranger's choosing."""
    one = msgspec.to_builtins(slot(0, Kdf("hkdf-sha256", "01" * 16)))
    with pytest.raises(FormatError):
        parse_copy(altered({"slots": [{**one, "id": n} for n in range(number)]}), 0)


@pytest.mark.parametrize(
    "prefix", [(18, b"\1"), (20, b"\0\0\0\0"), (24, b"\0\0\x40\1"), (28, b"\0\0\0\0"), (40, b"\xff\xff\xff\xff")]
)
def test_a_prefix_outside_format_1_is_refused(prefix: tuple[int, bytes]) -> None:
    with pytest.raises(FormatError):
        parse_copy(altered({}, prefix=prefix), 0)


@pytest.mark.parametrize("version", [2, 3, 65535])
def test_another_version_is_unsupported(version: int) -> None:
    with pytest.raises(UnsupportedVersionError, match=f"version {version}"):
        parse_copy(altered({}, prefix=(16, struct.pack(">H", version))), 0)


def test_an_incompatible_feature_is_unsupported_and_named() -> None:
    features = {"incompatible": ["zones"], "read_only_compatible": [], "compatible": []}
    with pytest.raises(UnsupportedVersionError, match="zones"):
        parse_copy(altered({"features": features}), 0)


def test_members_that_are_not_known_are_kept() -> None:
    copy = parse_copy(altered({"later": [1, {"a": None}]}), 0)
    assert copy.superblock.unknown == {"later": [1, {"a": None}]}
    rewritten = msgspec.structs.replace(copy.superblock, sequence=2)
    assert parse_copy(encode(rewritten, HMAC_KEY)[1], 1).superblock.unknown == {"later": [1, {"a": None}]}


def length(content: Superblock) -> int:
    return int.from_bytes(encode(content, HMAC_KEY)[0][40:44], "big")


def test_a_superblock_takes_the_room_that_was_planned() -> None:
    """Rule 17: about 2.5 KB with 8 passphrase slots, 170 to 260 bytes more for each epoch."""
    eight = superblock(slots=tuple(slot(n) for n in range(8)))
    assert 2000 < length(eight) < 3600
    more = msgspec.structs.replace(eight, epochs=(epoch(1), epoch(2)))
    assert 170 <= length(more) - length(eight) <= 260
    assert length(superblock(slots=tuple(slot(n) for n in range(MAX_SLOTS)))) < COPY_SIZE - 128


@pytest.mark.parametrize(
    "content",
    [
        superblock(slots=tuple(slot(n) for n in range(MAX_SLOTS + 1))),
        superblock(slots=tuple(slot(n, label="\U0001f5dd" * 64) for n in range(MAX_SLOTS))),
        superblock(epochs=tuple(epoch(n) for n in range(1, 100))),
        superblock(unknown={"later": "x" * COPY_SIZE}),
    ],
    ids=["slots", "labels", "epochs", "unknown members"],
)
def test_a_full_superblock_is_a_clear_error(content: Superblock) -> None:
    with pytest.raises(UsageError, match="the superblock is full"):
        encode(content, HMAC_KEY)
