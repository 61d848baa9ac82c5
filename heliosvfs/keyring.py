"""Keys that this process holds: secrets that were registered by name, and master keys that are unlocked right now.

A passphrase costs an Argon2id run, so connections to one file share its unlocked master key. They share it by the file's UUID
and only if what they present is the secret that was presented before, compared as an HMAC under a random key of this process,
in constant time; a different secret runs its own KDF. The superblock's HMAC is checked anew each time, so that a file with a
copied UUID gains nothing. The key is overwritten when the last user closes.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from heliosvfs.errors import KeyUnavailableError, UsageError, WrongKeyError
from heliosvfs.keys import Secret, derive_kek, superblock_hmac_key, unwrap_slot, wipe
from heliosvfs.locks import ProcessLock
from heliosvfs.memory import KeyBuffer, copy_of
from heliosvfs.notices import tell
from heliosvfs.superblock import Kdf, Slot, UnverifiedCopy

__all__ = [
    "InheritedKey",
    "Key",
    "KeySource",
    "Keyring",
    "MasterKey",
    "UnauthenticSuperblockError",
    "adopt",
    "as_secret",
    "unlock",
]


@runtime_checkable
class KeySource(Protocol):
    """Something that a secret can be asked of: a key file, an environment variable, a command."""

    def secret(self) -> Secret:
        """Return the secret.

        Raises:
            KeyUnavailableError: It can't be had; the message says why, and never what was read.
        """
        ...


Key: TypeAlias = "str | bytes | Secret | KeySource"


def as_secret(key: Key) -> Secret:
    """Turn what callers give as a key into a secret: text is a passphrase, 32 bytes a raw key, a source is asked.

    Raises:
        UsageError: It is none of these, empty, or of the wrong length.
        KeyUnavailableError: The source has no key.
    """
    if isinstance(key, Secret):
        return key
    if isinstance(key, str):
        return Secret.passphrase(key)
    if isinstance(key, (bytes, bytearray, memoryview)):
        return Secret.raw(bytes(key))
    if isinstance(key, KeySource):
        try:
            secret = key.secret()
        except Exception as error:
            tell("KEY SOURCE", error=error, source=type(key).__name__)
            raise
        if not isinstance(secret, Secret):
            msg = f"the key source {type(key).__name__} gave a {type(secret).__name__}; secret() returns a heliosvfs.Secret"
            raise UsageError(msg)
        return secret
    msg = f"a key is a passphrase (str), 32 raw bytes or a key source, not {type(key).__name__}"
    raise UsageError(msg)


class Keyring:
    """Keys that a VFS may use for databases that are opened without one.

    A URI names a registered key, ``file:app.db?heliosvfs_key=NAME``, so that no key stands in SQL text. The default, where
    there is one, serves every main or attached database that nothing else was given for.
    """

    def __init__(self, default: Key | None = None) -> None:
        """Make a keyring, empty but for ``default``."""
        self._keys: dict[str, Key] = {}
        self._default = default

    def add(self, name: str, key: Key) -> None:
        """Register ``key`` under ``name``, replacing what had that name."""
        self._keys[name] = key

    def discard(self, name: str) -> None:
        """Forget the key ``name``, if there is one."""
        self._keys.pop(name, None)

    def __repr__(self) -> str:
        """Tell the names, never the keys."""
        return f"Keyring({', '.join(sorted(self._keys))}{', default' if self._default is not None else ''})"

    def named(self, name: str) -> Secret:
        """Return the secret registered as ``name``.

        Raises:
            KeyUnavailableError: There is none of that name, or its source has no key.
        """
        try:
            key = self._keys[name]
        except KeyError:
            msg = f"no key named {name!r} is registered: add it with Keyring.add() before the database is opened"
            raise KeyUnavailableError(msg) from None
        return as_secret(key)

    @property
    def has_default(self) -> bool:
        """Whether there is a default; its source is not asked."""
        return self._default is not None

    def default(self) -> Secret | None:
        """Return the default secret, or None."""
        return None if self._default is None else as_secret(self._default)


class UnauthenticSuperblockError(Exception):
    """The secret opens a slot and the superblock's HMAC is wrong all the same: the superblock was altered."""


_process_key = os.urandom(32)


def _fingerprint(secret: Secret, kdf_salt: str) -> bytes:
    return hmac.digest(_process_key, f"{secret.kind} {kdf_salt} ".encode() + secret.value, "sha256")


@dataclass
class _Presented:
    """A secret that opened a slot in this process: enough to recognise it and to give a new file the same key."""

    kdf: Kdf
    label: str
    fingerprint: bytes = field(repr=False)
    kek: memoryview = field(repr=False)


@dataclass(frozen=True)
class InheritedKey:
    """A key-encryption key that a new file takes over from the database it is a copy of (VACUUM INTO).

    Attributes:
        kdf: The parameters, salt included, that made it from the secret.
        label: Label of the slot it came from.
        fingerprint: Recognises the secret in this process.
        kek: The 32 bytes.
    """

    kdf: Kdf
    label: str
    fingerprint: bytes = field(repr=False)
    kek: memoryview = field(repr=False)


@dataclass
class MasterKey:
    """An unlocked master key, shared by the open files of one UUID.

    Attributes:
        uuid: UUID of the file, hexadecimal.
        key: The 32 bytes; zero once the last user has released them.
        presented: Secrets that have opened it in this process, by the salt of their slot.
        users: Number of open files that hold it.
    """

    uuid: str
    key: bytearray | memoryview = field(repr=False)
    presented: dict[str, _Presented] = field(default_factory=dict, repr=False)
    users: int = 1

    @property
    def hmac_key(self) -> memoryview:
        """Key of the superblock's HMAC."""
        return superblock_hmac_key(self.key)

    def remember(self, secret: Secret, slot: Slot, kek: KeyBuffer) -> None:
        """Note that ``secret`` opens ``slot``, so that the next connection need not run the KDF."""
        with _lock:
            self.presented[slot.kdf.salt] = _Presented(slot.kdf, slot.label, _fingerprint(secret, slot.kdf.salt), copy_of(kek))

    def slot_of(self, secret: Secret | None, slots: tuple[Slot, ...]) -> Slot | None:
        """Return the slot that ``secret`` was seen to open in this process; None: the first that any secret opened."""
        with _lock:
            for slot in slots:
                presented = self.presented.get(slot.kdf.salt)
                if presented is not None and (
                    secret is None or hmac.compare_digest(presented.fingerprint, _fingerprint(secret, slot.kdf.salt))
                ):
                    return slot
        return None

    def inherit(self, inherited: InheritedKey) -> None:
        """Note that the secret behind an inherited key opens this file too."""
        with _lock:
            self.presented[inherited.kdf.salt] = _Presented(
                inherited.kdf, inherited.label, inherited.fingerprint, copy_of(inherited.kek)
            )

    def heirloom(self, secret: Secret, slots: tuple[Slot, ...]) -> InheritedKey | None:
        """Return the key of the slot among ``slots`` that ``secret`` was seen to open; a copy of the file is sealed under it."""
        with _lock:
            slot = self.slot_of(secret, slots)
            if slot is None:
                return None
            presented = self.presented[slot.kdf.salt]
            return InheritedKey(slot.kdf, slot.label, presented.fingerprint, copy_of(presented.kek))

    def forget(self, removed: set[str]) -> None:
        """Overwrite what is known of secrets whose slots are gone: they open nothing any more.

        Args:
            removed: The salts of those slots.
        """
        with _lock:
            for salt in removed:
                presented = self.presented.pop(salt, None)
                if presented is not None:
                    wipe(presented.kek)

    def release(self) -> None:
        """Give up one use; the last overwrites the key."""
        with _lock:
            self.users -= 1
            if self.users:
                return
            wipe(self.key)
            for presented in self.presented.values():
                wipe(presented.kek)
            self.presented.clear()
            _unlocked[self.uuid].remove(self)
            if not _unlocked[self.uuid]:
                del _unlocked[self.uuid]


_lock = ProcessLock()
_unlocked: dict[str, list[MasterKey]] = {}


def adopt(uuid: str, key: bytearray | memoryview) -> MasterKey:
    """Register the master key of a file that is being created."""
    master = MasterKey(uuid, key)
    with _lock:
        _unlocked.setdefault(uuid, []).append(master)
    return master


def unlock(copy: UnverifiedCopy, secret: Secret, *, fips_mode: bool = False) -> MasterKey:
    """Return the master key of a file, sharing it if this secret has unlocked the file before.

    The caller owns one use of it and must `MasterKey.release` it.

    Raises:
        WrongKeyError: The secret opens no slot.
        UnauthenticSuperblockError: It opens one, and the superblock's HMAC is wrong.
        FormatError: A slot's parameters are outside what is accepted.
        PolicyViolationError: FIPS mode forbids the slot's KDF.
    """
    superblock = copy.superblock
    allowed = tuple(slot for slot in superblock.slots if not (fips_mode and slot.kdf.name == "argon2id"))
    with _lock:
        for master in _unlocked.get(superblock.uuid, []):
            # a copy that this master key does not vouch for is not its file, or was altered: the KDF decides below
            if master.slot_of(secret, allowed) is not None and copy.is_authentic(master.hmac_key):
                master.users += 1
                return master
    fitting = [slot for slot in superblock.slots if secret.fits(slot.kdf)]
    slots = sorted(fitting, key=lambda slot: slot not in allowed)  # a forbidden one comes last, and derive_kek says so
    for slot in slots:
        kek = derive_kek(secret, slot.kdf, fips_mode=fips_mode)
        try:
            key = unwrap_slot(superblock.uuid_bytes, slot, kek)
        except WrongKeyError:
            continue
        if not copy.is_authentic(superblock_hmac_key(key)):
            wipe(key)
            raise UnauthenticSuperblockError
        master = _share(superblock.uuid, key)
        master.remember(secret, slot, kek)
        return master
    if slots:
        msg = f"the {_NAMES[secret.kind]} opens none of the {len(slots)} key slots it could open"
    else:
        msg = f"the database has no key slot for a {_NAMES[secret.kind]}: give the other kind of key"
    raise WrongKeyError(msg)


_NAMES = {"passphrase": "passphrase", "raw": "raw key"}


def _share(uuid: str, key: memoryview) -> MasterKey:
    with _lock:
        for master in _unlocked.get(uuid, []):
            if hmac.compare_digest(master.key, key):
                wipe(key)
                master.users += 1
                return master
        return adopt(uuid, key)
