"""Signed checkpoints: what the chain had come to, to be kept elsewhere (AUDIT.md, "Checkpoints").

They take the form of C2SP's tlog-checkpoint (https://c2sp.org/tlog-checkpoint) in a signed note (https://c2sp.org/signed-note):
origin, number of events, hash in base64, and an extension line with the time; then Ed25519 signatures. The hash is the checksum
of the last event, not the root of a tree.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import time
from dataclasses import dataclass

import apsw
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from heliosaudit.errors import AuditError
from heliosaudit.events import timestamp
from heliosaudit.queries import rows
from heliosaudit.schemas import LOG

__all__ = ["Checkpoint", "CheckpointError", "SigningKey", "VerifyingKey"]

_ED25519 = b"\x01"
_HASH_SIZE = 4
_DASH = "\N{EM DASH} "
_PREFIX = "heliosaudit.log"
_NO_CHECKPOINT = "this is no checkpoint (c2sp.org/tlog-checkpoint)"
_NUMBER = re.compile("0|[1-9][0-9]{0,18}", re.ASCII)


class CheckpointError(AuditError):
    """A checkpoint, or a key for checkpoints, can't be read, or its signature does not hold."""


@dataclass(frozen=True)
class VerifyingKey:
    """A public key and its name, as C2SP's verifier key: ``name+hash+base64``.

    Attributes:
        name: Name of the signer.
        key: The Ed25519 public key.
    """

    name: str
    key: Ed25519PublicKey

    @property
    def raw(self) -> bytes:
        """The 32 bytes of the key."""
        return self.key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    @property
    def hash(self) -> bytes:
        """The first 4 bytes of SHA-256(name || newline || 0x01 || key), which name the key in a signature line."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.raw).digest()[:_HASH_SIZE]

    def __str__(self) -> str:
        """Return it in C2SP's form."""
        return f"{self.name}+{self.hash.hex()}+{base64.b64encode(_ED25519 + self.raw).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifyingKey:
        """Read a verifier key.

        Raises:
            CheckpointError: It is none.
        """
        try:
            name, hashed, encoded = text.strip().split("+", 2)
            data = _decoded(encoded)
            key = cls(name, Ed25519PublicKey.from_public_bytes(data[1:]))
            right = data[:1] == _ED25519 and key.hash.hex() == hashed
        except (ValueError, binascii.Error) as error:
            msg = "this is no verifier key: name+hash+base64 is due (c2sp.org/signed-note)"
            raise CheckpointError(msg) from error
        if not _is_name(name):
            msg = "the verifier key has no name, or one with white space in it"
            raise CheckpointError(msg)
        if not right:
            msg = f"the verifier key of {name} is damaged: its hash does not fit"
            raise CheckpointError(msg)
        return key


class SigningKey:
    """A private key that signs checkpoints, archives and exports."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        """Use ``key`` under a name.

        Raises:
            CheckpointError: The name is empty, or holds white space, a plus sign or what can't be printed.
        """
        if not _is_name(name):
            msg = "the name of a key is not empty and holds neither white space nor a plus sign, nor what can't be printed"
            raise CheckpointError(msg)
        self.name = name
        self._key = key

    def __repr__(self) -> str:
        """Return its name, and nothing of the key."""
        return f"SigningKey({self.name!r})"

    @classmethod
    def make(cls, name: str) -> SigningKey:
        """Make a new key pair."""
        return cls(name, Ed25519PrivateKey.generate())

    @property
    def public(self) -> VerifyingKey:
        """The public half."""
        return VerifyingKey(self.name, self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        """Return the Ed25519 signature (RFC 8032) of some bytes."""
        return self._key.sign(data)

    def save(self, path: str | os.PathLike[str], passphrase: bytes | None = None) -> None:
        """Write the private key to a new file that only its owner may read: PKCS #8 in PEM, under a line with its name.

        Args:
            path: The file; it must not exist.
            passphrase: Encrypts it; None: it is stored as it is.

        Raises:
            CheckpointError: The file exists.
            OSError: It can't be written; nothing of it is left.
        """
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            encryption = serialization.BestAvailableEncryption(passphrase)
        pem = self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            msg = f"{os.fspath(path)} exists: a signing key is never overwritten"
            raise CheckpointError(msg) from error
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(f"name: {self.name}\n".encode() + pem)
        except BaseException as error:  # half a key would be in the way of a whole one
            os.unlink(path)
            if isinstance(error, OSError):
                error.filename = error.filename or os.fspath(path)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: bytes | None = None) -> SigningKey:
        """Read a private key that `save` wrote.

        Raises:
            CheckpointError: It is none, or the passphrase is wrong.
        """
        try:
            with open(path, "rb") as file:
                first, _, pem = file.read().partition(b"\n")
            key = serialization.load_pem_private_key(pem, passphrase)
        except OSError as error:
            msg = f"{os.fspath(path)} can't be read: {error.strerror}"
            raise CheckpointError(msg) from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            msg = f"{os.fspath(path)} can't be read as a signing key: it is none, or its passphrase is wrong or missing"
            raise CheckpointError(msg) from error
        if not first.startswith(b"name: ") or not isinstance(key, Ed25519PrivateKey):
            msg = f"{os.fspath(path)} is no signing key of heliosaudit"
            raise CheckpointError(msg)
        try:
            name = first[len(b"name: ") :].decode()
        except UnicodeDecodeError as error:
            msg = f"{os.fspath(path)} is no signing key of heliosaudit: its name is not UTF-8"
            raise CheckpointError(msg) from error
        return cls(name, key)


@dataclass(frozen=True)
class Checkpoint:
    """What a log had come to.

    Attributes:
        origin: "heliosaudit.log/" and the log's UUID.
        size: Id of the last event.
        head: Its checksum, 32 bytes.
        time: When the checkpoint was made: UTC, ISO 8601.
    """

    origin: str
    size: int
    head: bytes
    time: str

    @classmethod
    def of(cls, connection: apsw.Connection, uuid: str) -> Checkpoint:
        """Describe the log of a connection as it is now; verify it first.

        Args:
            connection: The connection.
            uuid: UUID of the log.

        Raises:
            CheckpointError: The log is empty.
        """
        found = rows(connection, f"SELECT id, checksum FROM main.{LOG} ORDER BY id DESC LIMIT 1")
        if not found:
            msg = "the audit log is empty: there is nothing to make a checkpoint of"
            raise CheckpointError(msg)
        return cls(f"{_PREFIX}/{uuid}", found[0][0], found[0][1], timestamp(time.time_ns()))

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.head).decode()}\ntime {self.time}\n"

    def sign(self, key: SigningKey) -> str:
        """Return the signed note."""
        signature = base64.b64encode(key.public.hash + key.sign(self.text.encode())).decode()
        return f"{self.text}\n{_DASH}{key.name} {signature}\n"

    @classmethod
    def parse(cls, note: str | bytes, key: VerifyingKey) -> Checkpoint:
        """Read a signed note, and verify the signature of a key that is trusted.

        Args:
            note: As it was written, byte for byte: bytes, or text whose line ends nobody has translated.
            key: The key.

        Raises:
            CheckpointError: It is no checkpoint, it has no signature of this key, or that does not hold.
        """
        try:
            note = note.decode() if isinstance(note, bytes) else note
            text, signatures = _parted(note)
            origin, size, head, *extensions = text[:-1].split("\n")
            moment = next((line[5:] for line in extensions if line.startswith("time ")), "")
            unverified_checkpoint = cls(origin, _number(size), _decoded(head, 32), moment)
            found = [_signature(line) for line in signatures]
        except ValueError as error:
            raise CheckpointError(_NO_CHECKPOINT) from error
        for name, signature in found:
            if name != key.name or signature[:_HASH_SIZE] != key.hash:
                continue
            try:
                key.key.verify(signature[_HASH_SIZE:], text.encode())
            except InvalidSignature as error:
                msg = f"the checkpoint's signature by {key.name} does not hold: it was altered"
                raise CheckpointError(msg) from error
            return unverified_checkpoint
        msg = f"the checkpoint is not signed by {key.name}, or by another key of that name"
        raise CheckpointError(msg)


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and name.isprintable() and not any(character.isspace() for character in name)


def _parted(note: str) -> tuple[str, list[str]]:
    """Return the text of a signed note, which is signed with its last newline, and its signature lines.

    Raises:
        ValueError: It is none.
    """
    text, blank, signatures = note.partition("\n\n")
    if not blank or not signatures.endswith("\n") or any(character < " " and character != "\n" for character in note):
        msg = "a text, an empty line and signature lines are due, and no control characters"
        raise ValueError(msg)
    return f"{text}\n", signatures[:-1].split("\n")


def _number(text: str) -> int:
    """Return a number that is written in the one way there is.

    Raises:
        ValueError: It is none.
    """
    if not _NUMBER.fullmatch(text):
        msg = "a decimal number without leading zeros is due"
        raise ValueError(msg)
    return int(text)


def _decoded(text: str, size: int | None = None) -> bytes:
    """Return what base64 stands for, which is written in the one way there is.

    Raises:
        ValueError: It is none, or has another size.
    """
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text or size not in (None, len(data)):
        msg = "this is no base64, or has another size than is due"
        raise ValueError(msg)
    return data


def _signature(line: str) -> tuple[str, bytes]:
    """Return name and signature of a signature line.

    Raises:
        ValueError: It is none.
    """
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not _is_name(name):
        msg = "a dash, a name and a signature are due"
        raise ValueError(msg)
    return name, _decoded(encoded)
