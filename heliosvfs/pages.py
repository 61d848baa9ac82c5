"""Sealing and opening of pages: AES-256-GCM with the seal in the page's last 32 bytes (FORMAT.md, "Sealed pages").

    trailer = tag(16) | nonce(12) | epoch(3) | sub-key(1)

Nonces are random, 96 bits (NIST SP 800-38D, 8.2.2), so a key may seal at most 2^32 times (8.3). A page is therefore sealed
under a sub-key, HKDF-Expand(epoch key, UUID | sub-key): each sealer draws one of 256 at random and another every 2^20 seals, so
that an epoch carries about 2^39 page writes without anything to count on disk.

Sealers and openers own one reused buffer each, because a page read or written may allocate nothing that can be kept; what
they return is valid until their next call. One belongs to one file object, which SQLite uses from one thread at a time.
"""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from heliosvfs.errors import HeliosError
from heliosvfs.keys import KEY_BYTES, Randomness, expand, unwrap_epoch, wipe
from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.memory import random_key
from heliosvfs.superblock import Superblock

__all__ = [
    "KIND_DATABASE",
    "KIND_JOURNAL",
    "KIND_TEMPORARY",
    "KIND_WAL",
    "Buffer",
    "FileKeys",
    "NotAuthenticError",
    "Opener",
    "Sealer",
    "UnknownEpochError",
]

Buffer: TypeAlias = bytes | bytearray | memoryview

KIND_DATABASE = 1
KIND_WAL = 2
KIND_JOURNAL = 3
KIND_TEMPORARY = 4

TAG_BYTES = 16
NONCE_BYTES = 12
SELECTOR_BYTES = 4  # epoch(3) | sub-key(1)
NEVER_SEALED = bytes(SELECTOR_BYTES)  # epoch 0 does not exist: these bytes were never sealed

_SEALS_PER_SUB_KEY = 1 << 20
_EPOCHS_AHEAD = 4096
_POOL = 256  # nonces drawn at once: os.urandom(12) costs 0.46 µs, a 256th of os.urandom(3072) 0.02 µs

_Cipher: TypeAlias = Callable[[bytes, Buffer, bytes, memoryview], int]


class NotAuthenticError(HeliosError):
    """GCM rejected the bytes although the key is certain."""


class UnknownEpochError(HeliosError):
    """The trailer names an epoch that the superblock does not list."""


class FileKeys:
    """The epoch keys of one file, unwrapped, and the ciphers derived from them.

    Attributes:
        uuid: The file's UUID, 16 bytes.
        current: Number of the epoch that new pages are sealed under.
    """

    def __init__(self, uuid: bytes, epochs: Mapping[int, bytearray | memoryview], current: int) -> None:
        """Take over the epoch keys; `wipe` overwrites them."""
        self.uuid = uuid
        self.current = current
        self._epochs = dict(epochs)
        self._ciphers: dict[bytes, AESGCM] = {}

    @classmethod
    def of(cls, superblock: Superblock, master: bytearray | memoryview) -> FileKeys:
        """Unwrap all epochs of a superblock.

        Raises:
            FormatError: An epoch does not unwrap.
        """
        uuid = superblock.uuid_bytes
        epochs = {epoch.id: unwrap_epoch(uuid, epoch, master) for epoch in superblock.epochs}
        return cls(uuid, epochs, superblock.epoch.id)

    @classmethod
    def ephemeral(cls, random: Randomness) -> FileKeys:
        """Make keys for a temporary file: random, and stored nowhere."""
        return cls(random(16), {1: random_key() if random is os.urandom else bytearray(random(KEY_BYTES))}, 1)

    def may_be_newer(self, selector: bytes) -> bool:
        """Tell whether a trailer may have been written under an epoch that this superblock does not list yet.

        Bytes that a torn write left behind name any epoch; one that was dropped, or none at all, says that the record is not of
        this file's present. One just above the newest may be of its future, and then nothing may be concluded from it.
        """
        return 0 < int.from_bytes(selector[:3], "big") - max(self._epochs) <= _EPOCHS_AHEAD

    def cipher(self, selector: bytes) -> AESGCM:
        """Return the cipher of a selector, epoch(3) | sub-key(1).

        Raises:
            UnknownEpochError: The superblock has no such epoch.
        """
        cipher = self._ciphers.get(selector)
        if cipher is None:
            key = self._epochs.get(int.from_bytes(selector[:3], "big"))
            if key is None:
                msg = f"names epoch {int.from_bytes(selector[:3], 'big')}, which is not in the superblock"
                raise UnknownEpochError(msg)
            cipher = self._ciphers[selector] = AESGCM(self.sub_key(selector))
        return cipher

    def sub_key(self, selector: bytes) -> memoryview:
        """Return the 32-byte key that a selector stands for; the epoch must exist."""
        key = self._epochs[int.from_bytes(selector[:3], "big")]
        return expand(key, b"heliosvfs 1 sub-key" + self.uuid + selector[3:])

    def prefix(self, kind: int, selector: bytes) -> bytes:
        """Return the associated data that all seals of one kind of file and selector share, 31 bytes."""
        return b"heliosvfs1" + bytes([kind]) + self.uuid + selector

    def forget(self, epochs: set[int]) -> None:
        """Overwrite the keys of epochs that nothing is sealed under any more, and drop their ciphers."""
        for epoch in epochs & self._epochs.keys():
            wipe(self._epochs.pop(epoch))
        self._ciphers = {
            selector: cipher for selector, cipher in self._ciphers.items() if int.from_bytes(selector[:3], "big") in self._epochs
        }

    def wipe(self) -> None:
        """Overwrite the epoch keys and drop the ciphers (whose own copies OpenSSL frees)."""
        for key in self._epochs.values():
            wipe(key)
        self._epochs.clear()
        self._ciphers.clear()


class _Contexts(dict[bytes, tuple[_Cipher, bytes]]):
    """Decryption and associated-data prefix by trailer selector, derived when a selector is first met."""

    def __init__(self, keys: FileKeys, kind: int) -> None:
        super().__init__()
        self._keys = keys
        self._kind = kind

    def __missing__(self, selector: bytes) -> tuple[_Cipher, bytes]:
        context = self[selector] = self._keys.cipher(selector).decrypt_into, self._keys.prefix(self._kind, selector)
        return context


class Opener:
    """Opens sealed units of one size and kind.

    Its parts are public for the one reader that inlines `open`, page_io: there a call costs what the budget does not have.

    Attributes:
        buffer: The plain unit that was opened last, its reserved bytes zero.
        plain: View of ``buffer`` without the reserved bytes.
        unpack: Splits a sealed unit in body and tag, nonce, selector; raises `struct.error` where its length is wrong.
        unpack_from: The same at an offset in a buffer.
        contexts: Decryption and associated-data prefix by selector; raises `UnknownEpochError`.
    """

    __slots__ = ("buffer", "contexts", "plain", "unpack", "unpack_from")

    def __init__(self, keys: FileKeys, kind: int, size: int) -> None:
        """Prepare for units of ``size`` bytes, trailer included."""
        self.buffer = bytearray(size)  # its last 32 bytes stay zero: SQLite must see zeros there (its checksums cover them)
        self.plain = memoryview(self.buffer)[: size - RESERVED_BYTES]
        parts = struct.Struct(f"{size - NONCE_BYTES - SELECTOR_BYTES}s{NONCE_BYTES}s{SELECTOR_BYTES}s")
        self.unpack, self.unpack_from = parts.unpack, parts.unpack_from
        self.contexts = _Contexts(keys, kind)

    def open(self, sealed: bytes, suffix: bytes) -> bytearray:
        """Return the plain unit, its reserved bytes zero.

        Args:
            sealed: The unit as it is on disk, of the right length.
            suffix: Associated data of this unit alone: its page number, say.

        Raises:
            NotAuthenticError: GCM rejects it.
            UnknownEpochError: It names an epoch that the superblock does not list.
        """
        body, nonce, selector = self.unpack(sealed)
        decrypt_into, prefix = self.contexts[selector]
        try:
            decrypt_into(nonce, body, prefix + suffix, self.plain)
        except InvalidTag:
            self.plain[:] = bytes(len(self.plain))  # what GCM rejected must not be found there by anyone
            msg = "fails authentication"
            raise NotAuthenticError(msg) from None
        return self.buffer


class Sealer:
    """Seals units of one size and kind, each under a fresh random nonce.

    Attributes:
        seal: Function of a plain unit without its 32 reserved bytes, and of the associated data of this unit alone; returns the
            sealed unit. A closure rather than a method: each attribute it would look up costs a fiftieth of the whole.
        seal_into: The same into the two parts of a `place`, its further arguments.
        selector: Epoch and sub-key in use, 4 bytes.
    """

    __slots__ = (
        "__weakref__", "_draw", "_keys", "_kind", "_left", "_random", "forget", "prefix", "seal", "seal_into", "selector"
    )  # fmt: skip

    def __init__(self, keys: FileKeys, kind: int, size: int, random: Randomness) -> None:
        """Prepare for units of ``size`` bytes, trailer included; the first seal draws a sub-key."""
        self._keys = keys
        self._kind = kind
        self._random = random
        self._left = 0
        self.selector = bytes(SELECTOR_BYTES)
        self.prefix = b""
        self.seal, self.seal_into, self._draw, self.forget = self._functions(bytearray(size))
        _live_sealers.add(self)

    @staticmethod
    def place(unit: memoryview) -> tuple[memoryview, memoryview]:
        """Return the two parts of a buffer of the right size that `seal_into` fills."""
        split = len(unit) - NONCE_BYTES - SELECTOR_BYTES
        return unit[:split], unit[split:]

    def draw(self) -> tuple[bytes, bytes, bytes]:
        """Return nonce, selector and associated-data prefix for a seal that the caller makes piece by piece."""
        nonce = self._draw()
        return nonce, self.selector, self.prefix

    def _functions(
        self, buffer: bytearray
    ) -> tuple[
        Callable[[Buffer, bytes], bytearray],
        Callable[[Buffer, bytes, memoryview, memoryview], None],
        Callable[[], bytes],
        Callable[[], None],
    ]:
        body, trailer = self.place(memoryview(buffer))
        place = trailer[:NONCE_BYTES]
        nonces: Iterator[bytes] = iter(())
        encrypt_into: _Cipher
        prefix = selector = b""

        def draw() -> bytes:
            nonlocal nonces, encrypt_into, prefix, selector
            for nonce in nonces:
                return nonce
            encrypt_into = self._sub_key()
            prefix, selector = self.prefix, self.selector
            buffer[-SELECTOR_BYTES:] = selector
            nonces = map(itemgetter(0), struct.iter_unpack(f"{NONCE_BYTES}s", self._random(NONCE_BYTES * _POOL)))
            return next(nonces)

        def seal(plain: Buffer, suffix: bytes) -> bytearray:
            nonce = next(nonces, None) or draw()
            encrypt_into(nonce, plain, prefix + suffix, body)
            place[:] = nonce
            return buffer

        def seal_into(plain: Buffer, suffix: bytes, sealed: memoryview, end: memoryview) -> None:
            nonce = next(nonces, None) or draw()
            encrypt_into(nonce, plain, prefix + suffix, sealed)
            end[:] = nonce + selector

        def forget() -> None:
            """Drop the nonces in store and the sub-key: a forked child must not use its parent's."""
            nonlocal nonces
            nonces = iter(())
            self._left = 0

        return seal, seal_into, draw, forget

    def _sub_key(self) -> _Cipher:
        """Return the cipher for the next nonces, under another random sub-key every 2^20 seals."""
        if self._left <= 0:
            self._left = _SEALS_PER_SUB_KEY
            self.selector = self._keys.current.to_bytes(3, "big") + self._random(1)
            self.prefix = self._keys.prefix(self._kind, self.selector)
        self._left -= _POOL
        return self._keys.cipher(self.selector).encrypt_into


_live_sealers: weakref.WeakSet[Sealer] = weakref.WeakSet()


def _forget_nonces() -> None:
    for sealer in list(_live_sealers):
        sealer.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_nonces)
