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
import time
from dataclasses import dataclass

import apsw
from cryptography.exceptions import InvalidSignature
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
            data = base64.b64decode(encoded, validate=True)
            key = cls(name, Ed25519PublicKey.from_public_bytes(data[1:]))
            right = data[:1] == _ED25519 and key.hash.hex() == hashed
        except (ValueError, binascii.Error) as error:
            msg = "this is no verifier key: name+hash+base64 is due (c2sp.org/signed-note)"
            raise CheckpointError(msg) from error
        if not right:
            msg = f"the verifier key of {name} is damaged: its hash does not fit"
            raise CheckpointError(msg)
        return key


class SigningKey:
    """A private key that signs checkpoints, archives and exports."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        """Use ``key`` under a name.

        Raises:
            CheckpointError: The name is empty, or holds white space or a plus sign.
        """
        if not name or "+" in name or any(character.isspace() for character in name):
            msg = "the name of a key is not empty and holds neither white space nor a plus sign"
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
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"name: {self.name}\n".encode() + pem)

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
        except (ValueError, TypeError) as error:
            msg = f"{os.fspath(path)} can't be read as a signing key: it is none, or its passphrase is wrong or missing"
            raise CheckpointError(msg) from error
        if not first.startswith(b"name: ") or not isinstance(key, Ed25519PrivateKey):
            msg = f"{os.fspath(path)} is no signing key of heliosaudit"
            raise CheckpointError(msg)
        return cls(first[len(b"name: ") :].decode(), key)


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
    def parse(cls, note: str, key: VerifyingKey) -> Checkpoint:
        """Read a signed note, and verify the signature of a key that is trusted.

        Raises:
            CheckpointError: It is no checkpoint, it has no signature of this key, or that does not hold.
        """
        text, blank, signatures = note.partition("\n\n")
        lines = text.split("\n")
        try:
            origin, size, head = lines[:3]
            moment = next((line[5:] for line in lines[3:] if line.startswith("time ")), "")
            unverified_checkpoint = cls(origin, int(size), base64.b64decode(head, validate=True), moment)
        except (ValueError, binascii.Error) as error:
            msg = "this is no checkpoint (c2sp.org/tlog-checkpoint)"
            raise CheckpointError(msg) from error
        signed = f"{text}\n".encode()
        for line in signatures.splitlines() if blank else ():
            name, _, encoded = line.removeprefix(_DASH).rpartition(" ")
            if not line.startswith(_DASH) or name != key.name:
                continue
            try:
                signature = base64.b64decode(encoded, validate=True)
            except binascii.Error:
                continue
            if signature[:_HASH_SIZE] != key.hash:
                continue
            try:
                key.key.verify(signature[_HASH_SIZE:], signed)
            except InvalidSignature as error:
                msg = f"the checkpoint's signature by {key.name} does not hold: it was altered"
                raise CheckpointError(msg) from error
            return unverified_checkpoint
        msg = f"the checkpoint is not signed by {key.name}, or by another key of that name"
        raise CheckpointError(msg)
