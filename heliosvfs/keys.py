"""The key hierarchy: secret → key-encryption key → master key → epoch keys (FORMAT.md, "Keys").

Bytes in, bytes out: randomness and time enter as parameters. What is derived here:

    passphrase --Argon2id or PBKDF2--> KEK ─┐
    32 raw bytes -----HKDF-Extract+Expand--> KEK ─┴─ unwraps ─> master key ─HKDF─> superblock HMAC key, epoch wrapping key
                                                                     epoch wrapping key ─ unwraps ─> epoch keys

A secret's parameters are read from the file before anything in it is trusted, so they are floored (a weak slot is not opened
in silence) and capped (a forged header can't exhaust the machine).
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import argon2.exceptions
import argon2.low_level
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from heliosvfs.errors import FormatError, PolicyViolationError, UsageError, WrongKeyError
from heliosvfs.memory import KeyBuffer, buffer, wipe
from heliosvfs.superblock import Epoch, Kdf, Slot

__all__ = [
    "KEY_BYTES",
    "KdfSettings",
    "Randomness",
    "Secret",
    "derive_kek",
    "epoch_wrapping_key",
    "expand",
    "new_kdf",
    "require_settings",
    "superblock_hmac_key",
    "unwrap_epoch",
    "unwrap_slot",
    "wipe",
    "wrap_epoch",
    "wrap_slot",
]

Randomness = Callable[[int], bytes]

KEY_BYTES = 32
_SALT_BYTES = 16  # RFC 9106, 3.1; SP 800-132, 5.1 asks for 128 bits
_NONCE_BYTES = 12
_NO_KEY = bytes(KEY_BYTES)
_GCM_TAG_BYTES = 16

# RFC 9106, section 4: the second recommended option
_ARGON2_MEMORY_KIB = 64 * 1024
_ARGON2_PASSES = 3
_ARGON2_LANES = 4
_ARGON2_FLOOR_KIB = 8 * 1024
_ARGON2_CEILING_KIB = 1024 * 1024
_ARGON2_MAX_PASSES = 16
_ARGON2_MAX_LANES = 16
# OWASP password storage cheat sheet, PBKDF2-HMAC-SHA-256
_PBKDF2_ITERATIONS = 600_000
_PBKDF2_FLOOR = 600_000
_PBKDF2_CEILING = 10_000_000


@dataclass(frozen=True)
class Secret:
    """What a user presents to unlock a database. Its value never shows in a repr.

    Attributes:
        kind: "passphrase" or "raw".
        value: A passphrase's UTF-8 bytes in Unicode NFC, or 32 raw bytes.
    """

    kind: str
    value: bytes

    @classmethod
    def passphrase(cls, text: str) -> Secret:
        """Make a secret from a passphrase, which is taken as it is and never guessed to be hexadecimal.

        Raises:
            UsageError: The passphrase is empty, or not valid Unicode.
        """
        if not text:
            msg = "the passphrase is empty"
            raise UsageError(msg)
        try:
            return cls("passphrase", unicodedata.normalize("NFC", text).encode())
        except UnicodeEncodeError:
            msg = "the passphrase has a lone surrogate, which UTF-8 can't represent"
            raise UsageError(msg) from None

    @classmethod
    def raw(cls, key: bytes) -> Secret:
        """Make a secret from a raw key.

        Raises:
            UsageError: The key is not 32 bytes long.
        """
        if len(key) != KEY_BYTES:
            msg = f"a raw key is exactly {KEY_BYTES} bytes, this one has {len(key)}"
            raise UsageError(msg)
        return cls("raw", bytes(key))

    def __repr__(self) -> str:
        """Name the kind alone."""
        return f"Secret({self.kind})"

    def fits(self, kdf: Kdf) -> bool:
        """Tell whether this kind of secret can open a slot with such a KDF."""
        return (kdf.name == "hkdf-sha256") == (self.kind == "raw")


@dataclass(frozen=True)
class KdfSettings:
    """Cost of turning a passphrase into a key, for slots made from now on.

    Attributes:
        fips_mode: PBKDF2-HMAC-SHA-256 instead of Argon2id, which is no approved algorithm.
        memory_kib: Argon2id memory in KiB.
        passes: Argon2id passes.
        lanes: Argon2id lanes.
        iterations: PBKDF2 iterations.
    """

    fips_mode: bool = False
    memory_kib: int = _ARGON2_MEMORY_KIB
    passes: int = _ARGON2_PASSES
    lanes: int = _ARGON2_LANES
    iterations: int = _PBKDF2_ITERATIONS


def new_kdf(secret: Secret, settings: KdfSettings, random: Randomness) -> Kdf:
    """Choose the KDF of a new slot for ``secret``.

    Raises:
        UsageError: The settings are below the floors or above the ceilings.
    """
    salt = random(_SALT_BYTES).hex()
    return Kdf("hkdf-sha256", salt) if secret.kind == "raw" else _stretching_kdf(settings, salt)


def require_settings(settings: KdfSettings) -> None:
    """See that a passphrase can be used at this cost, before anything is made.

    Raises:
        UsageError: The settings are below the floors or above the ceilings.
    """
    _stretching_kdf(settings, "")


def _stretching_kdf(settings: KdfSettings, salt: str) -> Kdf:
    if settings.fips_mode:
        kdf = Kdf("pbkdf2-hmac-sha256", salt, iterations=settings.iterations)
    else:
        kdf = Kdf("argon2id", salt, memory_kib=settings.memory_kib, passes=settings.passes, lanes=settings.lanes)
    try:
        _check_cost(kdf)
    except FormatError as error:
        raise UsageError(str(error)) from None
    return kdf


def _check_cost(kdf: Kdf) -> None:
    if kdf.name == "argon2id":
        good = (
            _ARGON2_FLOOR_KIB <= kdf.memory_kib <= _ARGON2_CEILING_KIB
            and 1 <= kdf.passes <= _ARGON2_MAX_PASSES
            and 1 <= kdf.lanes <= _ARGON2_MAX_LANES
        )
        limits = (
            f"{_ARGON2_FLOOR_KIB} to {_ARGON2_CEILING_KIB} KiB, 1 to {_ARGON2_MAX_PASSES} passes, 1 to {_ARGON2_MAX_LANES} lanes"
        )
    elif kdf.name == "pbkdf2-hmac-sha256":
        good = _PBKDF2_FLOOR <= kdf.iterations <= _PBKDF2_CEILING
        limits = f"{_PBKDF2_FLOOR} to {_PBKDF2_CEILING} iterations"
    elif kdf.name == "hkdf-sha256":
        good, limits = True, ""
    else:
        msg = f"a key slot uses {kdf.name!r}, which format 1 does not know"
        raise FormatError(msg)
    if not good:
        msg = f"a key slot's {kdf.name} parameters are outside what is accepted: {limits}"
        raise FormatError(msg)


def derive_kek(secret: Secret, kdf: Kdf, *, fips_mode: bool = False) -> memoryview:
    """Derive the key-encryption key of a slot, 32 bytes in memory for keys.

    Raises:
        FormatError: The slot's parameters are outside the floors and ceilings, or its KDF is not known.
        PolicyViolationError: FIPS mode is on and the slot uses Argon2id.
    """
    _check_cost(kdf)
    salt = bytes.fromhex(kdf.salt)
    if kdf.name == "argon2id":
        if fips_mode:
            msg = "FIPS mode: this key slot uses Argon2id, which is not an approved algorithm; add a slot in FIPS mode"
            raise PolicyViolationError(msg)
        return _argon2id(secret.value, salt, kdf)
    kek = buffer()
    if kdf.name == "pbkdf2-hmac-sha256":
        PBKDF2HMAC(hashes.SHA256(), KEY_BYTES, salt, kdf.iterations).derive_into(secret.value, kek)
    else:
        HKDF(hashes.SHA256(), KEY_BYTES, salt, b"heliosvfs 1 raw key").derive_into(secret.value, kek)
        _cover(HKDF(hashes.SHA256(), KEY_BYTES, salt, b"heliosvfs 1 raw key"))
    return kek


def _argon2id(passphrase: bytes, salt: bytes, kdf: Kdf) -> memoryview:
    """Run Argon2id into memory for keys: argon2.low_level.hash_secret_raw would leave the result in two more places."""
    ffi, kek = argon2.low_level.ffi, buffer()
    out, pwd, salted = (
        ffi.from_buffer("uint8_t[]", kek),
        ffi.from_buffer("uint8_t[]", passphrase),
        ffi.from_buffer("uint8_t[]", salt),
    )
    context = ffi.new(
        "argon2_context *",
        {
            "version": argon2.low_level.ARGON2_VERSION,
            "out": out,
            "outlen": len(kek),
            "pwd": pwd,
            "pwdlen": len(passphrase),
            "salt": salted,
            "saltlen": len(salt),
            "t_cost": kdf.passes,
            "m_cost": kdf.memory_kib,
            "lanes": kdf.lanes,
            "threads": kdf.lanes,
        },
    )
    code = argon2.low_level.core(context, argon2.low_level.Type.ID.value)
    if code:
        raise argon2.exceptions.HashingError(argon2.low_level.error_to_str(code))
    return kek


def expand(key: KeyBuffer, info: bytes) -> memoryview:
    """Return HKDF-Expand (RFC 5869, 2.3) of ``key``, 32 bytes in memory for keys, for the purpose ``info``."""
    made = buffer()
    HKDFExpand(hashes.SHA256(), KEY_BYTES, info).derive_into(key, made)
    _cover(HKDFExpand(hashes.SHA256(), KEY_BYTES, info))
    return made


def _cover(kdf: HKDF | HKDFExpand) -> None:
    """Derive from no key at all, in the same way as a key was derived just before.

    The last block of an HKDF is the key itself, and the library computes it in a Python object of its own, which is freed without
    being overwritten. The next object of that size takes its place: this one, which says nothing.
    """
    kdf.derive_into(_NO_KEY, buffer())


def superblock_hmac_key(master: KeyBuffer) -> memoryview:
    """Return the key of the superblock's HMAC."""
    return expand(master, b"heliosvfs 1 superblock hmac")


def epoch_wrapping_key(master: KeyBuffer) -> memoryview:
    """Return the key that wraps the epoch keys."""
    return expand(master, b"heliosvfs 1 epoch wrap")


def _slot_associated_data(uuid: bytes, slot_id: int, kdf: Kdf) -> bytes:
    parameters = f"{kdf.name} m={kdf.memory_kib} t={kdf.passes} p={kdf.lanes} i={kdf.iterations} salt={kdf.salt}".encode()
    return b"heliosvfs 1 slot" + uuid + struct.pack(">I", slot_id) + parameters


def _epoch_associated_data(uuid: bytes, epoch_id: int, cipher: str) -> bytes:
    return b"heliosvfs 1 epoch" + uuid + struct.pack(">I", epoch_id) + cipher.encode()


def _wrap(kek: KeyBuffer, key: KeyBuffer, associated_data: bytes, random: Randomness) -> str:
    nonce = random(_NONCE_BYTES)
    return (nonce + AESGCM(kek).encrypt(nonce, key, associated_data)).hex()


def _unwrap(kek: KeyBuffer, wrapped: str, associated_data: bytes) -> memoryview:
    sealed = bytes.fromhex(wrapped)
    if len(sealed) != _NONCE_BYTES + KEY_BYTES + _GCM_TAG_BYTES:
        raise InvalidTag
    key = buffer()
    AESGCM(kek).decrypt_into(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated_data, key)
    return key


def wrap_slot(  # noqa: PLR0913 - what the wrap binds
    uuid: bytes, slot_id: int, label: str, created: str, kdf: Kdf, kek: KeyBuffer, master: KeyBuffer, random: Randomness
) -> Slot:
    """Make a key slot: the master key wrapped under a key-encryption key."""
    return Slot(slot_id, label, created, kdf, _wrap(kek, master, _slot_associated_data(uuid, slot_id, kdf), random))


def unwrap_slot(uuid: bytes, slot: Slot, kek: KeyBuffer) -> memoryview:
    """Return the master key, 32 bytes.

    Raises:
        WrongKeyError: The key-encryption key does not open this slot.
    """
    try:
        return _unwrap(kek, slot.wrapped, _slot_associated_data(uuid, slot.id, slot.kdf))
    except (InvalidTag, ValueError):
        msg = "the key opens no key slot of this database"
        raise WrongKeyError(msg) from None


def wrap_epoch(  # noqa: PLR0913 - what the wrap binds
    uuid: bytes, epoch_id: int, created: str, key: KeyBuffer, master: KeyBuffer, random: Randomness
) -> Epoch:
    """Make an epoch: a data key wrapped under the master key."""
    cipher = "AES-256-GCM"
    wrapped = _wrap(epoch_wrapping_key(master), key, _epoch_associated_data(uuid, epoch_id, cipher), random)
    return Epoch(epoch_id, cipher, created, wrapped)


def unwrap_epoch(uuid: bytes, epoch: Epoch, master: KeyBuffer) -> memoryview:
    """Return an epoch's data key, 32 bytes.

    Raises:
        FormatError: The epoch does not unwrap, though the master key is right: the superblock is inconsistent.
    """
    try:
        return _unwrap(epoch_wrapping_key(master), epoch.wrapped, _epoch_associated_data(uuid, epoch.id, epoch.cipher))
    except (InvalidTag, ValueError):
        msg = f"epoch {epoch.id} of the superblock does not unwrap under the file's own master key"
        raise FormatError(msg) from None
