"""The superblock: what a file says of itself before any page can be opened (FORMAT.md, "Superblock").

Bytes in, bytes out. A superblock is a fixed binary prefix, a JSON document, an HMAC-SHA-256 and a SHA-256. The SHA-256 tells
damage from a wrong key before any key is known; the HMAC, under a key derived from the master key, is what makes the content
trustworthy. Until it is checked everything here is `unverified`.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Any

import msgspec

from heliosvfs.errors import FormatError, UnsupportedVersionError, UsageError
from heliosvfs.layout import RESERVED_BYTES, Layout, is_page_size
from heliosvfs.memory import KeyBuffer

__all__ = [
    "COPY_OFFSETS",
    "COPY_SIZE",
    "FORMAT_VERSION",
    "MAGIC",
    "MAX_SLOTS",
    "SEQUENCE_OFFSET",
    "DamagedCopyError",
    "Epoch",
    "Features",
    "Kdf",
    "Slot",
    "Superblock",
    "UnverifiedCopy",
    "encode",
    "parse_copy",
]

MAGIC = b"heliosvfs\r\n\x1a\n\x00\x00\x00"  # a text-mode transfer damages it, as with PNG's signature
FORMAT_VERSION = 1
COPY_SIZE = 16 * 1024
COPY_OFFSETS = (0, COPY_SIZE)
SEQUENCE_OFFSET = 32  # of the 8-byte sequence number within a copy
MAX_SLOTS = 32

_PREFIX = struct.Struct(">16sHBxIIIQI20x")  # magic, version, copy, copy size, offset of B, S, sequence, JSON length
_TRAILER = 64  # HMAC-SHA-256, then SHA-256
_SALT_BYTES = 16
_WRAPPED_BYTES = 60  # nonce(12), key(32), tag(16)
_MAX_JSON = COPY_SIZE - _PREFIX.size - _TRAILER

Hex = str  # lower-case hexadecimal, as msgspec and people read it


class DamagedCopyError(FormatError):
    """A copy of the superblock whose SHA-256 does not match: torn by a crash, or damaged."""


class Kdf(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a slot's secret becomes its key-encryption key.

    Attributes:
        name: "argon2id" (RFC 9106), "pbkdf2-hmac-sha256" (SP 800-132) or "hkdf-sha256" (RFC 5869, for raw 32-byte keys).
        salt: Salt, hexadecimal.
        memory_kib: Argon2id memory in KiB.
        passes: Argon2id passes.
        lanes: Argon2id lanes.
        iterations: PBKDF2 iterations.
    """

    name: str
    salt: Hex
    memory_kib: int = 0
    passes: int = 0
    lanes: int = 0
    iterations: int = 0


class Slot(msgspec.Struct, frozen=True, omit_defaults=True):
    """An independent way to the master key, as in LUKS2.

    Attributes:
        id: Number of the slot, unlike any other's in the superblock.
        label: What its owner calls it.
        created: Time of creation, UTC ISO 8601.
        kdf: How the secret becomes the key that unwraps.
        wrapped: nonce(12) | AES-256-GCM(master key) | tag(16), hexadecimal.
        last_used: Day of its last use, UTC ISO 8601, where that is noted; "" is left out.
    """

    id: int
    label: str
    created: str
    kdf: Kdf
    wrapped: Hex
    last_used: str = ""


class Epoch(msgspec.Struct, frozen=True):
    """A data key and the time it has been in use.

    Attributes:
        id: 1 to 2^24-1; 0 never occurs, so that zeros on disk are never taken for a sealed page.
        cipher: "AES-256-GCM".
        created: Time of creation, UTC ISO 8601.
        wrapped: nonce(12) | AES-256-GCM(epoch key) | tag(16), hexadecimal.
    """

    id: int
    cipher: str
    created: str
    wrapped: Hex


class Features(msgspec.Struct, frozen=True):
    """Names of features that a later release may write.

    Attributes:
        incompatible: Whoever does not know one must not open the file.
        read_only_compatible: Whoever does not know one may read only.
        compatible: Whoever does not know one may ignore it.
    """

    incompatible: tuple[str, ...] = ()
    read_only_compatible: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()


class Superblock(msgspec.Struct, frozen=True):
    """The content of a superblock.

    Attributes:
        uuid: 16 random bytes that name the file, hexadecimal.
        page_size: Bytes of a page.
        slots: Key slots.
        epochs: Data keys, the newest last.
        created: Time of creation, UTC ISO 8601.
        populated: Whether pages have been committed: a file that says so and has none was truncated.
        features: Feature lists.
        reserved_bytes: Bytes at the end of each page that hold its seal: 32.
        page_root: 32 bytes kept for a root over all page tags, hexadecimal; zero in format 1.
        sequence: Number of the update that wrote it; part of the prefix, not of the JSON.
        unknown: JSON members that this release does not know, kept as they are.
    """

    uuid: Hex
    page_size: int
    slots: tuple[Slot, ...]
    epochs: tuple[Epoch, ...]
    created: str
    populated: bool = False
    features: Features = Features()
    reserved_bytes: int = RESERVED_BYTES
    page_root: Hex = "00" * 32
    sequence: int = 1
    unknown: dict[str, Any] = {}

    @property
    def layout(self) -> Layout:
        """Where the pages lie."""
        return Layout(self.page_size)

    @property
    def uuid_bytes(self) -> bytes:
        """The file's UUID, 16 bytes."""
        return bytes.fromhex(self.uuid)

    @property
    def epoch(self) -> Epoch:
        """The epoch that new pages are sealed under."""
        return self.epochs[-1]


_IN_PREFIX_OR_OURS = {"sequence", "unknown"}
_MEMBERS = {f.encode_name for f in msgspec.structs.fields(Superblock)} - _IN_PREFIX_OR_OURS


class UnverifiedCopy(msgspec.Struct, frozen=True):
    """A copy whose SHA-256 is right; who wrote it is not known until `verify` has been called with the file's own key.

    Attributes:
        superblock: The content.
        sealed: The copy's bytes.
    """

    superblock: Superblock
    sealed: bytes

    def is_authentic(self, hmac_key: KeyBuffer) -> bool:
        """Tell whether the HMAC is right under ``hmac_key`` (compared in constant time)."""
        body, mac = self.sealed[:-_TRAILER], self.sealed[-_TRAILER:-32]
        return hmac.compare_digest(hmac.digest(hmac_key, body, "sha256"), mac)


def encode(superblock: Superblock, hmac_key: KeyBuffer) -> tuple[bytes, bytes]:
    """Encode both copies of a superblock, 16 KiB each.

    Raises:
        UsageError: The content does not fit; nothing has been written.
    """
    members = {name: value for name, value in msgspec.to_builtins(superblock).items() if name not in _IN_PREFIX_OR_OURS}
    document = msgspec.json.encode({**superblock.unknown, **members})
    if len(document) > _MAX_JSON or len(superblock.slots) > MAX_SLOTS:
        msg = (
            f"the superblock is full: {len(superblock.slots)} key slots and {len(superblock.epochs)} epochs take "
            f"{len(document)} of {_MAX_JSON} bytes; revoke a slot that is no longer needed"
        )
        raise UsageError(msg)

    def sealed(index: int) -> bytes:
        prefix = _PREFIX.pack(
            MAGIC,
            FORMAT_VERSION,
            index,
            COPY_SIZE,
            COPY_OFFSETS[1],
            superblock.layout.start,
            superblock.sequence,
            len(document),
        )
        body = (prefix + document).ljust(COPY_SIZE - _TRAILER, b"\0")
        body += hmac.digest(hmac_key, body, "sha256")
        return body + hashlib.sha256(body).digest()

    return sealed(0), sealed(1)


def parse_copy(sealed: bytes, index: int) -> UnverifiedCopy:
    """Parse one copy of a superblock.

    Args:
        sealed: The 16 KiB at the copy's offset.
        index: 0 for copy A, 1 for copy B.

    Raises:
        DamagedCopyError: The SHA-256 is wrong, or there is no superblock here at all.
        UnsupportedVersionError: The copy is of a later format version or needs a feature that is not known here.
        FormatError: The SHA-256 is right and the content still makes no sense.
    """
    if len(sealed) != COPY_SIZE or not sealed.startswith(MAGIC):
        msg = "no superblock here"
        raise DamagedCopyError(msg)
    _, version, copy, copy_size, offset_b, start, sequence, length = _PREFIX.unpack_from(sealed)
    if hashlib.sha256(sealed[:-32]).digest() != sealed[-32:]:
        msg = "the superblock's SHA-256 is wrong"
        raise DamagedCopyError(msg)
    if version != FORMAT_VERSION:
        msg = f"the file has format version {version}, this release reads version {FORMAT_VERSION}: upgrade heliosvfs"
        raise UnsupportedVersionError(msg)
    if (copy, copy_size, offset_b) != (index, COPY_SIZE, COPY_OFFSETS[1]) or length > _MAX_JSON:
        msg = "the superblock's prefix is not one of format 1"
        raise FormatError(msg)
    superblock = _decode(sealed[_PREFIX.size : _PREFIX.size + length], sequence)
    if start != superblock.layout.start:
        msg = "the superblock's prefix and its JSON disagree"
        raise FormatError(msg)
    return UnverifiedCopy(superblock, sealed)


def _is_hex(text: str, size: int) -> bool:
    return len(text) == 2 * size and set(text) <= set("0123456789abcdef")


def _is_sound(slot: Slot) -> bool:
    return 0 <= slot.id < 1 << 32 and _is_hex(slot.kdf.salt, _SALT_BYTES) and _is_hex(slot.wrapped, _WRAPPED_BYTES)


def _decode(document: bytes, sequence: int) -> Superblock:
    try:
        members = msgspec.json.decode(document, type=dict[str, Any])
        superblock = msgspec.convert(
            {name: value for name, value in members.items() if name in _MEMBERS}, Superblock, strict=True
        )
        uuid_size = len(superblock.uuid_bytes)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError, RecursionError) as error:
        msg = f"the superblock's JSON is not one of format 1: {error}"
        raise FormatError(msg) from None
    if superblock.features.incompatible:
        msg = f"the file needs features that this release does not know: {', '.join(superblock.features.incompatible)}"
        raise UnsupportedVersionError(msg)
    ids = [epoch.id for epoch in superblock.epochs]
    if (
        not is_page_size(superblock.page_size)
        or superblock.reserved_bytes != RESERVED_BYTES
        or uuid_size != 16  # noqa: PLR2004 - bytes of a UUID
        or not 0 < len(superblock.slots) <= MAX_SLOTS
        or len({slot.id for slot in superblock.slots}) < len(superblock.slots)
        or any(not _is_sound(slot) for slot in superblock.slots)
        or any(not _is_hex(epoch.wrapped, _WRAPPED_BYTES) for epoch in superblock.epochs)
        or not ids
        or ids != sorted(set(ids))
        or not 0 < ids[0] <= ids[-1] < 1 << 24
        or any(epoch.cipher != "AES-256-GCM" for epoch in superblock.epochs)
    ):
        msg = "the superblock's values are outside format 1"
        raise FormatError(msg)
    unknown = {name: value for name, value in members.items() if name not in _MEMBERS}
    return msgspec.structs.replace(superblock, sequence=sequence, unknown=unknown)
