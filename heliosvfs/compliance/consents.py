"""A log of consents: who agreed to what, when, on which text, and when they took it back (GDPR 7(1), 7(3); docs/GDPR.md).

It is a table that nobody's SQL may change (``__audit_consents``, under the audit log's guard); each entry is also an event of the
hash-chained log, which names the entry and the purpose and not the person.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from heliosaudit.events import event_of
from heliosaudit.sessions import current
from heliosvfs.errors import UsageError
from heliosvfs.vfs import now

if TYPE_CHECKING:
    from heliosvfs.audited import AuditedConnection
    from heliosvfs.connection import Connection

__all__ = ["Consent", "consents_of", "has_consent", "record_consent"]

TABLE = "__audit_consents"
_MAKE = f"""CREATE TABLE IF NOT EXISTS main.{TABLE}(
    id INTEGER PRIMARY KEY, subject NOT NULL, purpose TEXT NOT NULL, given INT NOT NULL, time TEXT NOT NULL,
    basis TEXT NOT NULL, text_version TEXT NOT NULL, recorded_by TEXT NOT NULL)"""
_INDEX = f"CREATE INDEX IF NOT EXISTS main.{TABLE}_subject ON {TABLE}(subject)"
_COLUMNS = "id, subject, purpose, given, time, basis, text_version, recorded_by"


@dataclass(frozen=True)
class Consent:
    """An entry of the log.

    Attributes:
        id: Its number.
        subject: The subject's identifier.
        purpose: What the consent is for.
        given: Whether it was given, or withdrawn.
        time: When, UTC ISO 8601.
        basis: The lawful basis that it stands for (GDPR 6(1)); "consent" as a rule.
        text_version: Which text was agreed to.
        recorded_by: User of the session.
    """

    id: int
    subject: Any
    purpose: str
    given: bool
    time: str
    basis: str
    text_version: str
    recorded_by: str

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def record_consent(  # noqa: PLR0913 - what a consent is made of
    connection: AuditedConnection,
    subject: Any,
    purpose: str,
    *,
    given: bool,
    text_version: str = "",
    basis: str = "consent",
) -> Consent:
    """Record that a subject gave a consent, or withdrew it.

    Args:
        connection: An audited connection, in no transaction.
        subject: The subject's identifier.
        purpose: What it is for, in a word: "newsletter".
        given: Whether it was given, or withdrawn.
        text_version: Which text was agreed to.
        basis: The lawful basis.

    Raises:
        UsageError: The connection is not audited, a transaction is open, or there is no purpose.
        apsw.BusyError: Another connection is writing.
    """
    auditor = getattr(connection, "auditor", None)
    if auditor is None or connection.in_transaction or not purpose.strip():
        msg = "a consent is recorded on an audited connection, in no transaction, and for a purpose"
        raise UsageError(msg)
    session, writer = current(), auditor.writer
    insert = f"INSERT INTO main.{TABLE}({_COLUMNS}) VALUES(NULL, ?, ?, ?, ?, ?, ?, ?) RETURNING id"
    with writer.in_transaction():
        writer.run(_MAKE)
        writer.run(_INDEX)
        time = now()
        number = writer.run(insert, (subject, purpose, int(given), time, basis, text_version, session.user))[0][0]
        event = event_of(
            "CONSENT GIVEN" if given else "CONSENT WITHDRAWN",
            event_class="AUDIT",
            user=session.user,
            session_id=session.id,
            target=purpose,
            details={"entry": number, "basis": basis, "text_version": text_version},
        )
        writer.append([event])
    return Consent(number, subject, purpose, given, time, basis, text_version, session.user)


def consents_of(connection: Connection, subject: Any) -> list[Consent]:
    """Return all entries of a subject, oldest first; none where there is no log."""
    if not connection.table_exists("main", TABLE):
        return []
    rows: list[Any] = connection.execute(
        f"SELECT {_COLUMNS} FROM main.{TABLE} WHERE subject = ? ORDER BY id", (subject,)
    ).fetchall()
    return [replace(Consent(*row), given=bool(row[3])) for row in rows]


def has_consent(connection: Connection, subject: Any, purpose: str) -> bool:
    """Tell whether a subject's last word on a purpose is yes; one who said nothing has not agreed."""
    found = [consent.given for consent in consents_of(connection, subject) if consent.purpose == purpose]
    return bool(found) and found[-1]
