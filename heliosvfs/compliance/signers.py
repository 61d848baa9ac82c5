"""Who may sign: people with a key pair of their own, the private half sealed under their passphrase (docs/SIGNATURES.md).

Signers are rows of ``__audit_signers``, a table that the audit log's guard keeps from everybody's SQL; each enrolment, change and
revocation is an event of the hash-chained log, and it is there that a signature's public key is looked up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apsw
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from heliosaudit.events import event_of
from heliosaudit.sessions import current
from heliosvfs.audited import AuditedConnection
from heliosvfs.errors import UsageError, WrongKeyError
from heliosvfs.keys import KdfSettings, Secret, derive_kek, new_kdf
from heliosvfs.memory import wipe
from heliosvfs.superblock import Kdf
from heliosvfs.vfs import now

if TYPE_CHECKING:
    from heliosaudit.events import Event
    from heliosaudit.writers import Writer
    from heliosvfs.connection import Connection

__all__ = ["Signer", "audited", "change_passphrase", "enrol", "revoke", "signers", "unlock"]

TABLE = "__audit_signers"
_NONCE_BYTES = 12
_MAKE = f"""CREATE TABLE IF NOT EXISTS main.{TABLE}(
    id TEXT PRIMARY KEY, name TEXT NOT NULL, public_key TEXT NOT NULL, sealed BLOB NOT NULL, kdf TEXT NOT NULL,
    enrolled TEXT NOT NULL, revoked TEXT) WITHOUT ROWID"""
_SHORTEST = 8  # characters of a passphrase


@dataclass(frozen=True)
class Signer:
    """Someone who may sign.

    Attributes:
        id: What identifies them: the first component of their signature (21 CFR 11.200(a)(1)).
        name: Their printed name (11.50(a)(1)).
        public_key: Of their Ed25519 key pair, hexadecimal.
        enrolled: When they were enrolled, UTC ISO 8601.
        revoked: When they were revoked; "" if they were not.
    """

    id: str
    name: str
    public_key: str
    enrolled: str
    revoked: str = ""


def signers(connection: Connection) -> list[Signer]:
    """Return all signers, revoked ones too, by id.

    Raises:
        UsageError: The connection is not audited.
    """
    return [
        Signer(*row) for row in _rows(connection, "SELECT id, name, public_key, enrolled, coalesce(revoked, '')", "ORDER BY id")
    ]


def enrol(connection: Connection, signer: str, *, name: str, passphrase: str, settings: KdfSettings | None = None) -> Signer:
    """Enrol a signer under a passphrase that nobody else shall know; an event says so.

    Args:
        connection: An audited connection, in no transaction.
        signer: What identifies them, unique in this database (21 CFR 11.300(a)), and never given to anybody else.
        name: Their printed name.
        passphrase: The second component of their signature.
        settings: Cost of the passphrase's KDF, and FIPS mode.

    Raises:
        UsageError: The id is taken or empty, the passphrase is too short, or a transaction is open.
        apsw.BusyError: Another connection is writing.
    """
    _auditor(connection)
    _check(passphrase)
    if not signer.strip() or not name.strip():
        msg = "a signer has an id and a printed name"
        raise UsageError(msg)
    key = Ed25519PrivateKey.generate()
    public = _public(key)
    kdf, sealed = _seal(key, signer, public, passphrase, settings or KdfSettings())
    made = Signer(signer, name, public, now())
    row = (signer, name, public, sealed, kdf, made.enrolled)
    insert = f"INSERT INTO main.{TABLE}(id, name, public_key, sealed, kdf, enrolled) VALUES(?, ?, ?, ?, ?, ?)"
    event = _event("ENROL SIGNER", signer, {"name": name, "public_key": public})
    with _changing(connection) as writer:
        writer.run(_MAKE)
        if _rows(connection, "SELECT 1", "WHERE id = ?", (signer,)):
            msg = f"there is, or was, a signer {signer!r}: an id is never given to anybody else (21 CFR 11.100(a))"
            raise UsageError(msg)
        writer.run(insert, row)
        writer.append([event])
    return made


def change_passphrase(connection: Connection, signer: str, *, old: str, new: str, settings: KdfSettings | None = None) -> None:
    """Seal a signer's key under another passphrase; signatures stay what they are.

    Raises:
        UsageError: There is no such signer, the new passphrase is too short, or a transaction is open.
        WrongKeyError: The old passphrase is wrong; the attempt is recorded.
        apsw.BusyError: Another connection is writing.
    """
    _check(new)
    known, key = unlock(connection, signer, old)
    kdf, sealed = _seal(key, signer, known.public_key, new, settings or KdfSettings())
    update = f"UPDATE main.{TABLE} SET sealed = ?, kdf = ? WHERE id = ? AND revoked IS NULL"
    event = _event("CHANGE SIGNER PASSPHRASE", signer, {})
    with _changing(connection) as writer:
        writer.run(update, (sealed, kdf, signer))
        writer.append([event])


def revoke(connection: Connection, signer: str, *, reason: str) -> None:
    """Keep a signer from signing from now on; what they signed before stays signed.

    Raises:
        UsageError: There is no such signer, or they are revoked already.
        apsw.BusyError: Another connection is writing.
    """
    update = f"UPDATE main.{TABLE} SET revoked = ?, sealed = x'' WHERE id = ?"
    event = _event("REVOKE SIGNER", signer, {"reason": reason})
    with _changing(connection) as writer:
        if not _rows(connection, "SELECT 1", "WHERE id = ? AND revoked IS NULL", (signer,)):
            msg = f"there is no signer {signer!r} who could be revoked"
            raise UsageError(msg)
        writer.run(update, (now(), signer))
        writer.append([event])


def unlock(connection: Connection, signer: str, passphrase: str) -> tuple[Signer, Ed25519PrivateKey]:
    """Return a signer and their private key; a failure is recorded (21 CFR 11.300(d)).

    Raises:
        WrongKeyError: The signer is not enrolled, was revoked, or the passphrase is wrong: which, is not said.
    """
    found = _rows(
        connection, "SELECT id, name, public_key, enrolled, coalesce(revoked, ''), sealed, kdf", "WHERE id = ?", (signer,)
    )
    try:
        if not found or found[0][4]:
            raise InvalidTag  # noqa: TRY301 - to whoever asks, it is all the same
        known = Signer(*found[0][:5])
        sealed, kdf = bytes(found[0][5]), msgspec.json.decode(found[0][6], type=Kdf)
        kek = derive_kek(Secret.passphrase(passphrase), kdf, fips_mode=kdf.name != "argon2id")
        try:
            raw = AESGCM(bytes(kek)).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound(signer, known.public_key))
        finally:
            wipe(kek)
    except (InvalidTag, UsageError):
        event = _event("SIGNATURE REFUSED", signer, {}, success=False)
        auditor = _auditor(connection)
        auditor.ledger.note(event)
        auditor.ledger.flush_soon()
        msg = "no signature: the signer is not enrolled, or the passphrase is wrong"
        raise WrongKeyError(msg) from None
    return known, Ed25519PrivateKey.from_private_bytes(raw)


def audited(connection: Connection) -> AuditedConnection:
    """Return a connection, if it is audited.

    Raises:
        UsageError: It is not.
    """
    if not isinstance(connection, AuditedConnection) or connection.auditor is None:
        msg = "electronic signatures need an audited connection: a signature is bound to the events of what it signs"
        raise UsageError(msg)
    return connection


def _auditor(connection: Connection) -> Any:
    return audited(connection).auditor


def _rows(connection: Connection, select: str, rest: str, bindings: tuple[Any, ...] = ()) -> list[Any]:
    writer = _auditor(connection).writer
    if not connection.table_exists("main", TABLE):
        return []
    found: list[Any] = writer.run(f"{select} FROM main.{TABLE} {rest}", bindings)
    return found


def _event(operation: str, signer: str, details: dict[str, Any], *, success: bool = True) -> Event:
    session = current()
    return event_of(
        operation,
        event_class="AUTH",
        user=session.user,
        session_id=session.id,
        target=signer,
        success=success,
        details={"signer": signer, **details},
    )


@contextlib.contextmanager
def _changing(connection: Connection) -> Iterator[Writer]:
    """Hold the write lock while who may sign changes, so that what was looked up stays true until it is written."""
    writer = _auditor(connection).writer
    if connection.txn_state() != apsw.SQLITE_TXN_NONE or connection.in_transaction:
        msg = "signers can't be changed inside a transaction: end it first"
        raise UsageError(msg)
    with writer.in_transaction():
        yield writer


def _check(passphrase: str) -> None:
    if len(passphrase) < _SHORTEST:
        msg = f"a signer's passphrase has at least {_SHORTEST} characters"
        raise UsageError(msg)


def _public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw).hex()


def _bound(signer: str, public: str) -> bytes:
    """Return what a sealed key is bound to: it opens for no other signer, and with no other public key beside it."""
    return f"heliosvfs signer 1\0{signer}\0{public}".encode()


def _seal(key: Ed25519PrivateKey, signer: str, public: str, passphrase: str, settings: KdfSettings) -> tuple[str, bytes]:
    secret = Secret.passphrase(passphrase)
    kdf = new_kdf(secret, settings, os.urandom)
    kek = derive_kek(secret, kdf, fips_mode=settings.fips_mode)
    raw = key.private_bytes(serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    nonce = os.urandom(_NONCE_BYTES)
    try:
        sealed = nonce + AESGCM(bytes(kek)).encrypt(nonce, raw, _bound(signer, public))
    finally:
        wipe(kek)
    return msgspec.json.encode(kdf).decode(), sealed
