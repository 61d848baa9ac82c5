"""Electronic signatures as 21 CFR Part 11 has them, over the audit log's events of what is signed (docs/SIGNATURES.md).

A signature is an event in the transaction of the changes that it signs. Ed25519 (RFC 8032; FIPS 186-5) signs a text that
holds the signer, their printed name, the time, the meaning (11.50), and number and checksum of each signed event in this very log
(11.70): the checksums chain, so it can't be cut out, copied to another record or another database, or be given another meaning.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import apsw
import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from heliosaudit import Refusal, Rule
from heliosaudit.events import event_of, timestamp
from heliosaudit.records import Record, decode
from heliosaudit.sessions import current
from heliosaudit.verifications import log_uuid, verify
from heliosvfs.compliance.signers import Signer, audited, unlock
from heliosvfs.errors import UsageError

if TYPE_CHECKING:
    from heliosaudit.statements import Action, Verdict
    from heliosvfs.audited import AuditedConnection
    from heliosvfs.connection import Connection

__all__ = ["Signature", "SignatureReport", "require_signatures", "signatures", "signing", "verify_signatures"]

_DOMAIN = b"heliosvfs electronic signature 1\n"
_WRITES = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})
_ON_TABLE = {apsw.SQLITE_ALTER_TABLE: 2, apsw.SQLITE_DROP_TABLE: 1, apsw.SQLITE_CREATE_TRIGGER: 2, apsw.SQLITE_DROP_TRIGGER: 2}


@dataclass(frozen=True)
class Signature:
    """A signature as it is shown (21 CFR 11.50).

    Attributes:
        event: Id of its own event.
        signer: Id of who signed.
        name: Their printed name.
        time: When they signed, UTC ISO 8601.
        meaning: What they meant by it: review, approval, responsibility, authorship.
        signed: Id and checksum, hexadecimal, of each event that is signed.
        flaw: What is wrong with it; "": it holds.
    """

    event: int
    signer: str
    name: str
    time: str
    meaning: str
    signed: tuple[tuple[int, str], ...]
    flaw: str = ""

    def __str__(self) -> str:
        """Return the printed name, time and meaning, as they stand on every display and printout."""
        return f"Signed by {self.name} ({self.signer}) on {self.time}: {self.meaning}{self.flaw and f' - NOT VALID: {self.flaw}'}"


@dataclass(frozen=True)
class SignatureReport:
    """What a verification of all signatures found.

    Attributes:
        signatures: Every signature, each with its flaw if it has one.
        unsigned: Ids of the events that changed a table whose changes are to be signed, and are not.
        chain: Verdict on the log's chain.
        notes: What else is to be known.
    """

    signatures: tuple[Signature, ...]
    unsigned: tuple[int, ...]
    chain: str
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether the chain and every signature hold, and nothing is unsigned."""
        return self.chain != "broken" and not self.unsigned and not any(one.flaw for one in self.signatures)


class _Signed(Rule):
    """Refuses changes to tables outside of a signing."""

    def __init__(self, tables: Collection[str]) -> None:
        self.tables = frozenset(name.lower() for name in tables)
        self.signing = False

    def _refusal(self, table: str | None) -> Refusal | None:
        if self.signing or (table or "").lower() not in self.tables:
            return None
        return Refusal(f"changes to {table} have to be signed (21 CFR 11.50): make them within heliosvfs' signing()")

    def authorize(self, action: Action) -> Refusal | None:
        """See `heliosaudit.Rule.authorize`."""
        code, first, second, schema, _ = action
        if code in _WRITES and (schema or "main").lower() == "main":
            return self._refusal(first)
        return self._refusal(first if _ON_TABLE[code] == 1 else second) if code in _ON_TABLE else None

    def inspect(self, sql: str, bindings: Any, verdict: Verdict) -> Refusal | None:  # noqa: ARG002 - which tables, not which values
        """See `heliosaudit.Rule.inspect`: a statement that was prepared within a signing may be run after it."""
        if self.signing:
            return None
        for name in verdict.writes:
            schema, _, table = name.partition(".")
            if schema.lower() == "main" and (refusal := self._refusal(table)) is not None:
                return refusal
        return None


def require_signatures(connection: Connection, tables: Collection[str]) -> None:
    """Refuse changes to tables of the main database outside of `signing`, on a connection.

    Raises:
        UsageError: The connection is not audited.
    """
    audited(connection).add_rule(_Signed(tables))


@contextmanager
def signing(connection: Connection, *, signer: str, passphrase: str, meaning: str) -> Iterator[None]:
    """Run a transaction and sign its changes, with both components of the signature (21 CFR 11.200(a)(1)).

    Changes and signature are committed together, or, where anything fails, rolled back together.

    Args:
        connection: An audited connection, in no transaction.
        signer: Who signs.
        passphrase: Theirs.
        meaning: What they mean by it: "approved", "reviewed", "authored" (11.50(a)(3)).

    Raises:
        UsageError: A transaction is open, the meaning is empty, or nothing was changed.
        WrongKeyError: The signer is not enrolled, or the passphrase is wrong; the attempt is recorded.
        AuditWriteError: The log can't be written.
        apsw.Error: The transaction can't be committed.
    """
    connection = audited(connection)
    if connection.in_transaction:
        msg = "signing begins a transaction of its own: end the one that is open first"
        raise UsageError(msg)
    if not meaning.strip():
        msg = "a signature has a meaning: review, approval, responsibility, authorship (21 CFR 11.50(a)(3))"
        raise UsageError(msg)
    who, key = unlock(connection, signer, passphrase)
    auditor = connection.auditor
    assert auditor is not None  # noqa: S101 - unlock saw to it
    rules = [rule for rule in auditor.gate.rules if isinstance(rule, _Signed)]
    connection.execute("BEGIN IMMEDIATE")
    try:
        head = auditor.writer.run("SELECT max(id) FROM main.__audit_log")[0][0]
        _open(connection, rules, is_open=True)
        yield
        _sign(connection, who, key, meaning, head)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    finally:
        _open(connection, rules, is_open=False)


def _open(connection: AuditedConnection, rules: list[_Signed], *, is_open: bool) -> None:
    for rule in rules:
        rule.signing = is_open
    if rules:
        connection.rules_changed()


def _sign(connection: AuditedConnection, who: Signer, key: Ed25519PrivateKey, meaning: str, head: int) -> None:
    """Write the changes' events, and the signature over them, in the transaction that is open."""
    auditor = connection.auditor
    assert auditor is not None  # noqa: S101 - signing() saw to it
    auditor.ledger.flush_inside()
    rows = auditor.writer.run("SELECT id, checksum, record FROM main.__audit_log WHERE id > ? ORDER BY id", (head,))
    signed = [(number, checksum.hex()) for number, checksum, record in rows if _is_change(decode(record))]
    if not signed:
        msg = "there is nothing to sign: the transaction changed nothing that is recorded"
        raise UsageError(msg)
    moment = timestamp(time.time_ns())
    details = {"signer": who.id, "name": who.name, "time": moment, "meaning": meaning, "signed": signed}
    signature = key.sign(_text(log_uuid(connection), who.public_key, details)).hex()
    session = current()
    event = event_of(
        "SIGNATURE",
        event_class="AUDIT",
        user=session.user,
        session_id=session.id,
        target=who.id,
        details={**details, "public_key": who.public_key, "signature": signature},
    )
    auditor.writer.append([event])


def _is_change(record: Record) -> bool:
    return record.event_class in ("DML", "DDL") and record.success and not record.rolled_back and bool(record.writes)


def _text(uuid: str | None, public_key: str, details: dict[str, Any]) -> bytes:
    """Return what is signed: a JSON array without spaces, behind the name of this kind of signature."""
    signed = [[int(number), str(checksum)] for number, checksum in details["signed"]]
    fields = [uuid, details["signer"], details["name"], public_key, details["time"], details["meaning"], signed]
    return _DOMAIN + msgspec.json.encode(fields)


def signatures(connection: Connection) -> list[Signature]:
    """Return all signatures in the log, each checked, in the order of their events."""
    return list(verify_signatures(connection).signatures)


def verify_signatures(connection: Connection, tables: Collection[str] = ()) -> SignatureReport:
    """Verify the log's chain and every signature in it.

    Args:
        connection: An audited connection.
        tables: Tables whose changes are to be signed; empty: those of `require_signatures` on this connection.

    Raises:
        UsageError: The connection is not audited.
    """
    connection = audited(connection)
    assert connection.auditor is not None  # noqa: S101 - audited() saw to it
    rules = connection.auditor.gate.rules
    wanted = {name.lower() for name in tables} or {name for rule in rules if isinstance(rule, _Signed) for name in rule.tables}
    connection.auditor.flush()
    check = _Check(connection)
    return SignatureReport(
        tuple(check.signature(number, record) for number, record in check.signature_events),
        tuple(check.unsigned(wanted)),
        verify(connection).verdict,
    )


class _Check:
    """What the log says of signers and signatures, read once."""

    def __init__(self, connection: AuditedConnection) -> None:
        assert connection.auditor is not None  # noqa: S101 - verify_signatures saw to it
        run = connection.auditor.writer.run
        self._uuid = log_uuid(connection)
        self._keys: dict[str, tuple[int, str]] = {}  # by signer: event of the enrolment, and public key
        self._revoked: dict[str, int] = {}
        self.signature_events: list[tuple[int, Record]] = []
        self._checksums: dict[int, str] = {}
        self._changes: list[tuple[int, list[str]]] = []
        self._first: int = run("SELECT coalesce(min(id), 0) FROM main.__audit_log")[0][0]
        select = "SELECT id, checksum, record FROM main.__audit_log WHERE"
        for number, _, text in run(f"{select} operation IN ('ENROL SIGNER', 'REVOKE SIGNER', 'SIGNATURE') ORDER BY id"):
            record = decode(text)
            details = record.details or {}
            if record.operation == "SIGNATURE" and record.event_class == "AUDIT":
                self.signature_events.append((number, record))
            elif record.event_class == "AUTH" and record.operation == "ENROL SIGNER":
                self._keys.setdefault(str(details.get("signer")), (number, str(details.get("public_key"))))
            elif record.event_class == "AUTH" and record.operation == "REVOKE SIGNER":
                self._revoked.setdefault(str(details.get("signer")), number)
        for number, checksum, text in run(
            "SELECT id, checksum, record FROM main.__audit_log WHERE class IN ('DML', 'DDL') ORDER BY id"
        ):
            record = decode(text)
            if _is_change(record):
                self._checksums[number] = checksum.hex()
                self._changes.append((number, record.writes))

    def signature(self, number: int, record: Record) -> Signature:
        """Check one signature."""
        details = record.details or {}
        try:
            signed = tuple((int(event), str(checksum)) for event, checksum in details["signed"])
            made = Signature(number, details["signer"], details["name"], details["time"], details["meaning"], signed)
            return replace(made, flaw=self._flaw(made, details))
        except (KeyError, TypeError, ValueError):
            return Signature(number, "", "", "", "", (), "it is not a signature's record")

    def _flaw(self, made: Signature, details: dict[str, Any]) -> str:
        enrolled = self._keys.get(made.signer)
        if enrolled is None or enrolled[0] > made.event:
            return f"{made.signer} was not enrolled when it was made"
        if self._revoked.get(made.signer, made.event) < made.event:
            return f"{made.signer} had been revoked"
        if enrolled[1] != details["public_key"]:
            return "it was made with another key than the signer's"
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(enrolled[1]))
            key.verify(bytes.fromhex(str(details["signature"])), _text(self._uuid, enrolled[1], details))
        except (InvalidSignature, ValueError):
            return "signer, name, time, meaning, records or database are not those that were signed"
        for event, checksum in made.signed:
            was_pruned = event < self._first  # its archive holds it, and verifies by itself
            if event >= made.event or (self._checksums.get(event) != checksum and not was_pruned):
                return f"event {event} is not the one that was signed"
        return ""

    def unsigned(self, tables: set[str]) -> Iterator[int]:
        """Yield the events that changed one of these tables and that no valid signature covers."""
        covered: set[int] = set()
        for number, record in self.signature_events:
            made = self.signature(number, record)
            if not made.flaw:
                covered.update(event for event, _ in made.signed)
        for number, writes in self._changes:
            names = {name.partition(".")[2].lower() for name in writes if name.lower().startswith("main.")}
            if names & tables and number not in covered:
                yield number
