"""What a person may ask of those who hold their data: a copy, and erasure (GDPR 15, 17, 20; docs/GDPR.md)."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import apsw

from heliosaudit.events import event_of
from heliosaudit.sessions import current
from heliosvfs.compliance import consents
from heliosvfs.compliance.tables import Column, Table, quoted, resolved
from heliosvfs.errors import UsageError
from heliosvfs.vfs import now

if TYPE_CHECKING:
    from heliosvfs.compliance.declarations import DataPath
    from heliosvfs.connection import Connection

__all__ = ["ErasureReport", "anonymise_subject", "erase_subject", "export_subject"]

_SHORTEST = 3  # characters of a value that is looked for in the audit log: shorter ones are everybody's


@dataclass(frozen=True)
class ErasureReport:
    """What an erasure did, for the person who asked, and for who has to show it.

    Attributes:
        deleted: Rows that were deleted, by table.
        anonymised: Rows whose personal columns were overwritten, by table.
        kept: Rows that stay, by table, with the reason (GDPR 17(3)).
        audit_values: Values that were erased from the audit log.
        notes: What it could not reach.
    """

    deleted: dict[str, int]
    anonymised: dict[str, int]
    kept: dict[str, tuple[int, str]]
    audit_values: int
    notes: tuple[str, ...] = field(default=())


def export_subject(connection: Connection, subject: Any, paths: Sequence[DataPath]) -> dict[str, Any]:
    """Return all data of a subject, structured, for JSON (GDPR 15(1), 15(3), 20(1)).

    Args:
        connection: A connection to the database; if it is audited, the access is recorded.
        subject: The subject's identifier.
        paths: Where personal data is.

    Returns:
        "subject", "exported" (UTC ISO 8601), "tables": by table a list of rows, each a dict of its columns, blobs in hexadecimal;
        "consents", where there is a log of them.

    Raises:
        UsageError: A declaration does not fit the schema.
    """
    tables: dict[str, list[dict[str, Any]]] = {}
    for table in reversed(resolved(connection, paths)):
        names = [column.name for column in table.columns]
        sql = f"SELECT {', '.join(map(quoted, names))} FROM main.{quoted(table.path.table)} WHERE {table.where}"
        rows = connection.execute(sql, (subject,)).fetchall()
        tables[table.path.table] = [dict(zip(names, map(_exported, row), strict=True)) for row in rows]
    found: dict[str, Any] = {"subject": _exported(subject), "exported": now(), "tables": tables}
    given = consents.consents_of(connection, subject)
    if given:
        found["consents"] = [one.as_dict() for one in given]
    return found


def _exported(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def erase_subject(connection: Connection, subject: Any, paths: Sequence[DataPath], *, reason: str) -> ErasureReport:
    """Erase a subject's data as each table's declaration says, in one transaction (GDPR 17(1)).

    Freed space is overwritten (``PRAGMA secure_delete``) and the WAL emptied, so nothing of it is left in the database's files.

    Args:
        connection: A connection in no transaction.
        subject: The subject's identifier.
        paths: Where personal data is.
        reason: Why: the request, or the clause; it is recorded, so it names nobody.

    Raises:
        UsageError: A declaration does not fit the schema, a transaction is open, or there is no reason.
        apsw.Error: Something refers to a row that would be deleted, or the database is busy; nothing was changed.
    """
    return _erase(connection, subject, paths, reason, anonymise=False)


def anonymise_subject(connection: Connection, subject: Any, paths: Sequence[DataPath], *, reason: str) -> ErasureReport:
    """Overwrite a subject's personal columns and keep the rows, where they are not declared to be kept as they are.

    Args, Raises: As `erase_subject`.
    """
    return _erase(connection, subject, paths, reason, anonymise=True)


def _erase(connection: Connection, subject: Any, paths: Sequence[DataPath], reason: str, *, anonymise: bool) -> ErasureReport:
    if connection.in_transaction:
        msg = "erasure is a transaction of its own: end the one that is open first"
        raise UsageError(msg)
    if not reason.strip():
        msg = "erasure has a reason: the request, or the clause"
        raise UsageError(msg)
    tables = resolved(connection, paths)
    secure = connection.pragma("secure_delete")
    connection.pragma("secure_delete", "ON")
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            erasure = _Erasure(connection, subject)
            for table in tables:
                erasure.table(table, "anonymise" if anonymise and table.path.on_erasure == "delete" else table.path.on_erasure)
            erasure.log(reason, "ANONYMISE SUBJECT" if anonymise else "ERASE SUBJECT")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    finally:
        connection.pragma("secure_delete", secure)
    erasure.empty_wal()
    return erasure.report()


class _Erasure:
    """One erasure, in the transaction that is open."""

    def __init__(self, connection: Connection, subject: Any) -> None:
        self._connection = connection
        self._subject = subject
        self._deleted: dict[str, int] = {}
        self._anonymised: dict[str, int] = {}
        self._kept: dict[str, tuple[int, str]] = {}
        self._values: set[Any] = set()  # what was personal, to be looked for in the audit log
        self._names: set[str] = set()
        self._audit_values = 0
        self._notes: list[str] = [
            "backups, exports and copies made before hold the data until they expire",
        ]

    def table(self, table: Table, what: str) -> None:
        """Delete, overwrite or keep the subject's rows of a table."""
        name = table.path.table
        target = f"main.{quoted(name)}"
        if what == "keep":
            count = self._connection.execute(f"SELECT count(*) FROM {target} WHERE {table.where}", (self._subject,)).get
            if count:
                self._kept[name] = (count, table.path.keep_reason)
            return
        self._names.add(name.lower())
        self._collect(table, target)
        if what == "delete":
            self._connection.execute(f"DELETE FROM {target} WHERE {table.where}", (self._subject,)).fetchall()
            self._deleted[name] = self._connection.changes()
        elif table.personal:
            rows = ", ".join(f"{quoted(column.name)} = {_nothing(column)}" for column in table.personal)
            self._connection.execute(f"UPDATE {target} SET {rows} WHERE {table.where}", (self._subject,)).fetchall()
            self._anonymised[name] = self._connection.changes()

    def _collect(self, table: Table, target: str) -> None:
        if not table.personal:
            return
        columns = ", ".join(quoted(column.name) for column in table.personal)
        for row in self._connection.execute(f"SELECT {columns} FROM {target} WHERE {table.where}", (self._subject,)):
            self._values.update(value for value in row if isinstance(value, (str, bytes)) and len(value) >= _SHORTEST)
            self._values.update(value for value in row if isinstance(value, float))

    def log(self, reason: str, operation: str) -> None:
        """Erase the subject's values from the audit log, and record the erasure there without naming the subject."""
        auditor = getattr(self._connection, "auditor", None)
        if auditor is None:
            self._notes.append("the connection is not audited: the erasure is not recorded, and no audit log was looked into")
            return
        auditor.ledger.flush_inside()
        writer = auditor.writer
        events = "SELECT event FROM main.__audit_values WHERE value = ? OR CAST(value AS TEXT) = CAST(? AS TEXT)"
        sql = f"DELETE FROM main.__audit_values WHERE event IN ({events})"
        self._audit_values += self._delete(writer, sql, (self._subject, self._subject))
        for value in self._values:
            self._audit_values += self._delete(writer, "DELETE FROM main.__audit_values WHERE value = ?", (value,))
        shown = writer.run(
            "SELECT count(*) FROM main.__audit_log WHERE class IN ('DML', 'SELECT') AND (record->>19 IS NOT NULL OR "
            "(record->>20 IS NULL AND instr(query, ?)))",
            (str(self._subject),),
        )[0][0]
        if shown:
            self._notes.append(
                f"up to {shown} events of the audit log show values in their SQL or row images, which their chain protects: they "
                'stay as evidence (GDPR 17(3)(b), (e)); capture_parameters = "redactable" keeps later ones erasable'
            )
        salt = secrets.token_hex(16)
        digest = hashlib.sha256(f"{salt}{self._subject}".encode()).hexdigest()
        session = current()
        details = {
            "subject": {"salt": salt, "sha256": digest},
            "reason": reason,
            "deleted": self._deleted,
            "anonymised": self._anonymised,
            "kept": {name: list(kept) for name, kept in self._kept.items()},
            "audit_values": self._audit_values,
        }
        event = event_of(operation, event_class="AUDIT", user=session.user, session_id=session.id, details=details)
        writer.append([event])

    def _delete(self, writer: Any, sql: str, bindings: tuple[Any, ...]) -> int:
        before = apsw.Connection.total_changes(self._connection)
        writer.run(sql, bindings)
        erased = apsw.Connection.total_changes(self._connection) - before
        writer.offset += erased  # rows of the log do not count for the application
        return erased

    def empty_wal(self) -> None:
        """Write the WAL into the database and cut it to nothing: it holds pages as they were."""
        if str(self._connection.pragma("journal_mode")).lower() != "wal":
            return
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            self._notes.append("somebody is reading, so the WAL still holds (encrypted) pages from before: checkpoint it later")

    def report(self) -> ErasureReport:
        """Return what was done."""
        return ErasureReport(self._deleted, self._anonymised, self._kept, self._audit_values, tuple(self._notes))


def _nothing(column: Column) -> str:
    """Return the SQL of what stands in a column's place: NULL, or what says nothing and keeps its constraints."""
    if not column.required and not column.is_key:
        return "NULL"
    if column.is_unique or column.is_key:
        return "'erased-' || lower(hex(randomblob(16)))" if column.affinity != "NUMERIC" else "-abs(random())"
    return {"TEXT": "'erased'", "NUMERIC": "0", "BLOB": "x''"}[column.affinity]
