"""What a connection can do past SQL: recorded, or denied (AUDIT.md, "Doors")."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import apsw

from heliosaudit import captures
from heliosaudit.blobs import open_blob
from heliosaudit.changesets import apply
from heliosaudit.errors import AccessDeniedError, AuditPolicyError
from heliosaudit.hooks import Hooked
from heliosaudit.literals import literal
from heliosaudit.rules import Rule
from heliosaudit.schemas import is_reserved

__all__ = ["Doors"]

T = TypeVar("T")
_base = apsw.Connection
_DENIED_CONFIGS = {
    apsw.SQLITE_DBCONFIG_RESET_DATABASE: "SQLITE_DBCONFIG_RESET_DATABASE",
    apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA: "SQLITE_DBCONFIG_WRITABLE_SCHEMA",
}


class Doors(Hooked):
    """Mixin over `apsw.Connection`: every method that leads past SQL."""

    def add_rule(self, rule: Rule) -> None:
        """Put a rule in force, for everything that is prepared from now on.

        Raises:
            AuditPolicyError: The connection is not audited: what is refused could not be recorded.
        """
        if self.auditor is None:
            msg = "rules need an audited connection, for what they refuse is recorded"
            raise AuditPolicyError(msg)
        self.auditor.gate.rules += (rule,)
        self.rules_changed()

    def remove_rule(self, rule: Rule) -> None:
        """Take a rule out of force again; one that is not in force is none's loss."""
        if self.auditor is not None:
            self.auditor.gate.rules = tuple(other for other in self.auditor.gate.rules if other is not rule)
            self.rules_changed()

    def rules_changed(self) -> None:
        """Have every statement prepared anew: a rule in force says something else than before."""
        if self.auditor is not None:
            self.auditor.forget()

    def ask_copy(self, schema: str, operation: str) -> None:
        """Ask the rules whether a whole database may be handed out past SQL; for the arguments see `heliosaudit.Rule.copy`.

        Raises:
            AccessDeniedError: A rule refuses it; or that rule's own error.
        """
        for rule in () if self.auditor is None else self.auditor.gate.rules:
            refusal = rule.copy(schema, operation)
            if refusal is not None:
                self._deny(operation, schema, refusal.reason)
                raise refusal.raised("")

    def _deny(self, what: str, target: str, why: str) -> AccessDeniedError:
        """Record an attempt and return the error."""
        assert self.auditor is not None  # noqa: S101 - asked only while audited
        self.auditor.record(
            "ACCESS DENIED", event_class="AUTH", target=target, query=what, success=False, error=f"AccessDeniedError: {why}"
        )
        self.auditor.ledger.flush_soon()
        return AccessDeniedError(why)

    def _recorded(self, operation: str, call: Callable[[], T], **fields: Any) -> T:
        """Do something, and record what came of it before anybody has the result."""
        auditor = self.auditor
        if auditor is None:
            return call()
        try:
            result = call()
        except BaseException as error:
            if auditor.policy.logs("ADMIN"):
                auditor.record(operation, success=False, error=captures.said(error), **fields)
            raise
        auditor.record(operation, **fields)
        if auditor.policy.read_durability == "strict":
            auditor.ledger.flush_soon()
        return result

    def table_exists(self, dbname: str | None, table: str) -> bool:
        """See `apsw.Connection.table_exists`."""
        return not self._is_refused(dbname, table, "") and _base.table_exists(self, dbname, table)

    def column_metadata(self, dbname: str | None, table_name: str, column_name: str) -> Any:
        """See `apsw.Connection.column_metadata`."""
        if self._is_refused(dbname, table_name, column_name):
            return apsw.Connection(":memory:").column_metadata(
                "main", table_name, column_name
            )  # what SQLite says of what is not there
        return _base.column_metadata(self, dbname, table_name, column_name)

    def _is_refused(self, schema: str | None, table: str, column: str) -> bool:
        """Ask the rules about metadata, for which SQLite asks no authorizer, and record what they refuse."""
        if self.auditor is None:
            return False
        refusal = self.auditor.gate.refusal_of_blob(schema or "main", table, column, writes=False)
        if refusal is not None:
            self._deny("METADATA", table, refusal.reason)
        return refusal is not None

    def read(self, schema: str, which: int, offset: int, amount: int) -> tuple[bool, bytes]:
        """See `apsw.Connection.read`: bytes of the file, as whoever has the key sees them."""
        if self.auditor is not None:
            self.ask_copy(schema, "READ FILE")
        return self._recorded("READ FILE", lambda: _base.read(self, schema, which, offset, amount), target=schema)

    def apply_changeset(self, changeset: Any, **options: Any) -> bytes | None:
        """Apply a changeset to the main database, recorded as one event.

        Args:
            changeset: Bytes, or a callable that hands out pieces of them.
            **options: Those of `apsw.Changeset.apply`: filter, filter_change, conflict, flags, rebase.

        Raises:
            AccessDeniedError: A rule refuses one of the values.
            apsw.Error: What `apsw.Changeset.apply` raises; nothing was changed.
        """
        if self.auditor is None:
            return apsw.Changeset.apply(changeset, self, **options)
        return apply(self.auditor, changeset, options)

    def blob_open(self, database: str, table: str, column: str, rowid: int, writeable: bool) -> Any:  # noqa: FBT001 - APSW's signature
        """See `apsw.Connection.blob_open`."""
        auditor = self.auditor
        if auditor is None:
            return _base.blob_open(self, database, table, column, rowid, writeable)
        if writeable and is_reserved(table):
            raise self._deny("blob_open", table, f"{table} belongs to the audit log, which is append-only")
        return open_blob(auditor, database, table, column, rowid, writeable=writeable)

    blobopen = blob_open

    def backup(self, databasename: str, sourceconnection: Any, sourcedatabasename: str) -> apsw.Backup:
        """See `apsw.Connection.backup`: this connection is the destination."""
        if self.auditor is not None and databasename.lower() == "main":
            raise self._deny("backup", databasename, "a backup onto an audited database would replace its audit log")
        if isinstance(sourceconnection, Doors) and sourceconnection.auditor is not None:
            sourceconnection.ask_copy(sourcedatabasename, "BACKUP")
            sourceconnection.auditor.record("BACKUP", target=sourcedatabasename)
            sourceconnection.auditor.flush()
        if databasename.lower() == "temp":
            return _base.backup(self, databasename, sourceconnection, sourcedatabasename)
        return self._recorded(
            "RESTORE",
            lambda: _base.backup(self, databasename, sourceconnection, sourcedatabasename),
            target=databasename,
            query=f"backup({literal(databasename, 64)}, source, {literal(sourcedatabasename, 64)})",
        )

    def serialize(self, name: str) -> bytes:
        """See `apsw.Connection.serialize`."""
        if self.auditor is not None:
            self.ask_copy(name, "SERIALIZE")
        return self._recorded("SERIALIZE", lambda: _base.serialize(self, name), target=name)

    def deserialize(self, name: str, contents: Any) -> None:
        """See `apsw.Connection.deserialize`."""
        if self.auditor is not None and name.lower() == "main":
            raise self._deny("deserialize", name, "deserialize onto an audited database would replace its audit log")
        self._recorded("DESERIALIZE", lambda: _base.deserialize(self, name, contents), target=name)

    def config(self, op: int, *args: Any) -> Any:
        """See `apsw.Connection.config`."""
        if not args or not isinstance(args[0], int) or args[0] < 0:  # it only asks, or APSW will refuse it
            return _base.config(self, op, *args)
        if self.auditor is not None and op in _DENIED_CONFIGS and args[0] > 0:
            raise self._deny(_DENIED_CONFIGS[op], _DENIED_CONFIGS[op], f"{_DENIED_CONFIGS[op]} would let the audit log be erased")
        target = str(apsw.mapping_db_config.get(op, op))
        return self._recorded(
            "CONFIG", lambda: _base.config(self, op, *args), target=target, query=f"config({op}, {int(args[0])})"
        )

    def enable_load_extension(self, enable: bool) -> None:  # noqa: FBT001 - APSW's signature
        """See `apsw.Connection.enable_load_extension`."""
        query = f"enable_load_extension({bool(enable)})"
        self._recorded("CONFIG", lambda: _base.enable_load_extension(self, enable), target="enable_load_extension", query=query)

    enableloadextension = enable_load_extension

    def _require_own_operator(self, name: str) -> None:
        """Keep the application from redefining what the log's columns are generated by.

        Raises:
            AccessDeniedError: It tries to.
        """
        if self.auditor is not None and name == "->>":
            raise self._deny("create_function", name, "a function named ->> would change what the audit log's columns show")

    def create_scalar_function(self, name: str, *args: Any, **kwargs: Any) -> None:
        """See `apsw.Connection.create_scalar_function`."""
        self._require_own_operator(name)
        _base.create_scalar_function(self, name, *args, **kwargs)

    def create_aggregate_function(self, name: str, *args: Any, **kwargs: Any) -> None:
        """See `apsw.Connection.create_aggregate_function`."""
        self._require_own_operator(name)
        _base.create_aggregate_function(self, name, *args, **kwargs)

    def create_window_function(self, name: str, *args: Any, **kwargs: Any) -> None:
        """See `apsw.Connection.create_window_function`."""
        self._require_own_operator(name)
        _base.create_window_function(self, name, *args, **kwargs)

    createscalarfunction, createaggregatefunction = create_scalar_function, create_aggregate_function

    def load_extension(self, filename: str, entrypoint: str | None = None) -> None:
        """See `apsw.Connection.load_extension`."""
        if self.auditor is not None and self.auditor.policy.logs("ADMIN"):  # what it does to the process is not to be foreseen
            self.auditor.record("LOAD EXTENSION (INTENT)", target=filename)
            self.auditor.ledger.flush_soon()
        self._recorded("LOAD EXTENSION", lambda: _base.load_extension(self, filename, entrypoint), target=filename)

    loadextension = load_extension

    def file_control(self, dbname: str, op: int, pointer: int) -> bool:
        """See `apsw.Connection.file_control`; what it hands to SQLite is a bare pointer, so the call itself is recorded."""
        return self._recorded(
            "FILE CONTROL", lambda: _base.file_control(self, dbname, op, pointer), target=dbname, query=f"file_control({op})"
        )

    filecontrol = file_control

    def refuse_own_file(self) -> None:
        """Detach what is this connection's main file under another name: it could be written past the log.

        Raises:
            AccessDeniedError: There was one.
        """
        main = self.db_filename("main")
        for name in self.db_names():
            path = self.db_filename(name)
            if name in ("main", "temp") or not path or not main:
                continue
            try:
                same = os.path.samefile(path, main)
            except OSError:
                continue
            if same:
                self.auditor.writer.run(f'DETACH "{name.replace(chr(34), chr(34) * 2)}"')  # type: ignore[union-attr]
                raise self._deny(
                    "ATTACH", name, "the audited database is attached a second time, where it could be written past the audit"
                )
