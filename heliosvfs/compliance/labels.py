"""Mandatory access control: labels on tables and columns, clearance on the session (docs/ACCESS.md, "Labels").

The rule is that of Bell and LaPadula (MITRE MTR-2547, 1973): nobody reads what is labelled above their clearance, and nobody
writes what is labelled below it, for that would carry what they know down. What a session may not see looks to it as if it were
not there.
"""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import apsw

from heliosaudit import Refusal, Rule
from heliosaudit.sessions import current
from heliosvfs.compliance.ranks import Ranks
from heliosvfs.compliance.visible_schemas import Schema, VisibleSchema, read_schema
from heliosvfs.errors import UsageError

if TYPE_CHECKING:
    from heliosaudit.statements import Action, Verdict
    from heliosvfs.audited import AuditedConnection

__all__ = ["DEFAULT_LEVELS", "LabelWithoutEffectWarning", "enforce"]

DEFAULT_LEVELS = ("UNCLASSIFIED", "CONFIDENTIAL", "SECRET", "TOP_SECRET")

_WRITES = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})
_DROPS = frozenset({apsw.SQLITE_DROP_TABLE, apsw.SQLITE_DROP_VIEW, apsw.SQLITE_DROP_VTABLE})
_TRANSACTIONS = frozenset({apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT})
_HARMLESS = frozenset({*_TRANSACTIONS, apsw.SQLITE_SELECT, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE})
_TELLING = re.compile(r"sqlite_.*|pragma_.*|dbstat|bytecode|tables_used|completion")  # they hold names, values or sizes
_HARMLESS_PRAGMAS = frozenset(
    {
        "application_id",
        "busy_timeout",
        "cache_size",
        "cache_spill",
        "case_sensitive_like",
        "cell_size_check",
        "checkpoint_fullfsync",
        "collation_list",
        "compile_options",
        "data_version",
        "defer_foreign_keys",
        "encoding",
        "foreign_keys",
        "fullfsync",
        "function_list",
        "journal_mode",
        "legacy_alter_table",
        "locking_mode",
        "mmap_size",
        "page_size",
        "pragma_list",
        "query_only",
        "read_uncommitted",
        "recursive_triggers",
        "reverse_unordered_selects",
        "secure_delete",
        "synchronous",
        "temp_store",
        "threads",
        "user_version",
        "wal_autocheckpoint",
    }
)
_KEPT_PRAGMAS = frozenset({"application_id", "user_version"})  # they write a number into the file
_SILENT = frozenset({"ALTER", "ANALYZE", "CREATE", "DROP", "REINDEX"})
_OF_COLUMNS = re.compile(r"(?:UNIQUE|NOT NULL) constraint failed: (.+)|cannot store \w+ value in \w+ column (.+)")


class LabelWithoutEffectWarning(UserWarning):
    """A label names a table or column that is not there."""


class _Hidden(Refusal):
    """A refusal of which the session learns nothing but what it would if the thing were not there."""


def _sqlite(kind: type[apsw.Error], code: int, text: str) -> apsw.Error:
    """Return an error as APSW makes it of SQLite's."""
    error: Any = kind(text)
    error.result = error.extendedresult = code
    made: apsw.Error = error
    return made


def _not_authorized(_sql: str = "") -> apsw.Error:
    """Return what SQLite itself raises for an authorizer's refusal."""
    return _sqlite(apsw.AuthError, apsw.SQLITE_AUTH, "not authorized")


class _Labels(Rule):
    """Holds every statement of a connection to the labels."""

    depends_on_session = True

    def __init__(self, connection: AuditedConnection, ranks: Ranks) -> None:
        self._owner = weakref.ref(connection)  # it is the connection that keeps the rule
        self._ranks = ranks
        self._schema: Schema | None = None
        self._visible: dict[int, VisibleSchema] = {}
        self._is_stale = True
        self._dropping: dict[int, str] = {}  # by thread: the table whose rows go with it
        self._making: dict[int, str] = {}  # by thread: the virtual table that is filling its own tables

    # -- what is where -------------------------------------------------------------------------------------------------

    def _clearance(self) -> int:
        """Return the rank of the acting session; one that says nothing, or no level, has the lowest."""
        return self._ranks.of_level(current().custom.get("clearance"))

    def refresh(self) -> None:
        """Read the schema again if it has changed: what is derived from it may have, too."""
        connection = self._owner()
        if connection is None or connection.auditor is None:
            return
        run = connection.auditor.writer.run
        if self._schema is not None and run("PRAGMA main.schema_version")[0][0] == self._schema.version:
            return
        self._schema = read_schema(run)
        self._visible.clear()
        if self._ranks.derive(self._schema):
            connection.rules_changed()  # what was prepared, this statement too, is prepared anew

    def missing(self, labels: Mapping[str, str]) -> list[str]:
        """Return the labels that name nothing, unless there is nothing yet that they could name."""
        tables = (
            {} if self._schema is None else {name: table for name, table in self._schema.tables.items() if "__audit" not in name}
        )
        if not tables:
            return []
        columns = {f"{name}.{column.name.lower()}" for name, table in tables.items() for column in table.columns}
        rowids = {f"{name}.rowid" for name, table in tables.items() if not table.without_rowid}
        return [label for label in labels if label.lower() not in columns | rowids | set(tables)]

    def _seen(self, clearance: int) -> VisibleSchema:
        """Return what the database looks like with a clearance."""
        if clearance not in self._visible:
            assert self._schema is not None  # noqa: S101 - enforce() has read it
            ranks = self._ranks
            self._visible[clearance] = VisibleSchema(
                self._schema,
                hides_table=lambda table: ranks.of(table) > clearance or table.startswith("__audit"),
                hides_column=lambda table, column: ranks.of(table, column) > clearance,
            )
        return self._visible[clearance]

    def _is_hidden_view(self, clearance: int, name: str) -> bool:
        table = self._schema.tables.get(name) if self._schema is not None else None
        return table is not None and table.kind == "view" and not self._seen(clearance).has(name)

    # -- refusals ------------------------------------------------------------------------------------------------------

    def _hidden(self, what: str, rank: int, clearance: int, place: tuple[str, str, str] | None = None) -> Refusal:
        """Refuse without a word of why to whom it is refused.

        Args:
            what: What it is about, for the log.
            rank: Its rank.
            clearance: That of the session.
            place: Schema, table and column, where it may be a blob handle that is refused.
        """
        names = self._ranks.levels
        reason = f"{what} is {names[rank]}, the session is cleared for {names[clearance]}"

        def error(sql: str) -> Exception:
            found = None if sql or place is None else self._seen(clearance).error_of_blob(*place)
            return found or _not_authorized()

        return _Hidden(reason, error, hides_values=True)

    def _down(self, what: str, rank: int, clearance: int) -> Refusal:
        """Refuse what would carry down what the session knows; it sees what it is about, so it may know why."""
        names = self._ranks.levels
        return Refusal(
            f"{what} is {names[rank]}, and writing it from a session at {names[clearance]} would carry down what that may read: "
            f'write in a session(clearance="{names[rank]}")',
            hides_values=True,
        )

    def _needs(self, rank: int, what: str, clearance: int) -> Refusal | None:
        return self._hidden(what, rank, clearance) if clearance < rank else None

    # -- questions -----------------------------------------------------------------------------------------------------

    def authorize(self, action: Action) -> Refusal | None:
        """See `heliosaudit.Rule.authorize`."""
        code, first, second, schema, source = action
        clearance, highest = self._clearance(), self._ranks.highest
        name = (first or "").lower()
        refusal: Refusal | None = None
        if code == apsw.SQLITE_SAVEPOINT and second == "changeset_apply":
            refusal = self._needs(highest, "what a changeset says", clearance)
        elif clearance < self._ranks.floor:
            refusal = None if code in _TRANSACTIONS else self._hidden("the database", self._ranks.floor, clearance)
        elif code == apsw.SQLITE_READ:
            refusal = self._read(clearance, name, second or "", schema)
        elif code in _WRITES:
            refusal = self._write(clearance, action)
        elif code == apsw.SQLITE_PRAGMA:
            refusal = self._pragma(clearance, name, second)
        elif code in (apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH):
            refusal = self._needs(highest, "what an attached database could carry away", clearance)
        elif code not in _HARMLESS:
            refusal = self._change(clearance, code, name if code != apsw.SQLITE_ALTER_TABLE else (second or "").lower())
        del source
        return refusal

    def _read(self, clearance: int, name: str, column: str, schema: str | None) -> Refusal | None:
        ranks = self._ranks
        if name.startswith("__audit"):
            return self._needs(ranks.top, "what the audit log tells of", clearance)
        if _TELLING.fullmatch(name) and name.removeprefix("pragma_") not in _HARMLESS_PRAGMAS:
            return self._needs(ranks.highest, f"what {name} tells of", clearance)
        if schema not in (None, "main"):
            return self._needs(ranks.highest, f"what {schema} holds", clearance)
        rank = ranks.of(name, column.lower())
        if rank <= clearance and self._is_hidden_view(clearance, name):
            rank = ranks.highest
        if rank <= clearance or (schema is None and not column):
            return None  # an unqualified table of which no column is read may be a WITH clause's: inspect() looks at it
        what = f"{name}.{column}" if ranks.of(name) <= clearance else name
        return self._hidden(what, rank, clearance, (schema or "main", name, column))

    def _write(self, clearance: int, action: Action) -> Refusal | None:  # noqa: PLR0911 - a case each
        code, first, column, schema, source = action
        name, ranks, thread = (first or "").lower(), self._ranks, threading.get_ident()
        if name.startswith("__audit"):
            return None  # the log's own guard refuses it
        if _TELLING.fullmatch(name) or schema not in (None, "main"):
            return self._needs(ranks.highest, f"what {schema}.{name} holds", clearance)
        if code == apsw.SQLITE_DELETE and self._dropping.pop(thread, None) == name:
            return None
        making = self._making.get(thread)
        if making is not None and name.startswith(making + "_"):
            return None
        rank = ranks.of(name, (column or "").lower() if code == apsw.SQLITE_UPDATE else "")
        if rank > clearance:
            if code == apsw.SQLITE_INSERT and source is not None:
                return None  # a trigger hands something up and learns nothing of what is there
            return self._hidden(name, rank, clearance, (schema or "main", name, column or ""))
        return self._down(name, rank, clearance) if rank < clearance else None

    def _change(self, clearance: int, code: int, name: str) -> Refusal | None:
        """Answer for changes of the schema, which belong to the highest level: they show, and could carry, anything."""
        ranks = self._ranks
        refusal = self._needs(ranks.highest, f"the schema, with {name}," if name else "the schema", clearance)
        if refusal is not None:
            return refusal
        self._is_stale = True
        if code == apsw.SQLITE_ALTER_TABLE and ranks.names(name):
            return Refusal(f"{name} can't be altered: its labels go by its name and its columns'")
        if code in _DROPS:
            self._dropping[threading.get_ident()] = name
        return None

    def _pragma(self, clearance: int, name: str, argument: str | None) -> Refusal | None:
        ranks = self._ranks
        if name in _KEPT_PRAGMAS and argument is not None and clearance > ranks.floor:
            return self._down(f"PRAGMA {name}", ranks.floor, clearance)
        if name in _HARMLESS_PRAGMAS:
            return None
        return self._needs(ranks.highest, f"what PRAGMA {name} tells of", clearance)

    def inspect(self, sql: str, bindings: Any, verdict: Verdict) -> Refusal | None:  # noqa: ARG002, PLR0911 - kinds of statements alone; a case each
        """See `heliosaudit.Rule.inspect`."""
        clearance, ranks = self._clearance(), self._ranks
        if verdict.operation == "VACUUM":
            return self._needs(ranks.top, "what VACUUM could carry away", clearance)
        if clearance < ranks.floor or verdict.event_class in ("TRANSACTION", ""):
            return None
        if clearance < ranks.highest or self._is_stale:
            self._is_stale = False
            self.refresh()
        if clearance >= ranks.highest:
            return self._inspect_highest(clearance, verdict)
        if verdict.operation in ("EXPLAIN", "APPLY CHANGESET"):
            return self._hidden(f"what {verdict.operation} tells of", ranks.highest, clearance)
        if verdict.event_class == "ADMIN" and verdict.operation in _SILENT:
            return self._hidden("the schema", ranks.highest, clearance)  # DROP IF EXISTS asks nothing where there is nothing
        visible = self._seen(clearance)
        if self._is_doubtful(visible, sql, verdict) and (visible.joins_hidden(sql) or visible.error_of(sql) is not None):
            return self._hidden("something that this names", ranks.highest, clearance)
        return None

    def _inspect_highest(self, clearance: int, verdict: Verdict) -> Refusal | None:
        """Look at what makes tables, which the authorizer alone can't judge."""
        ranks, thread = self._ranks, threading.get_ident()
        made = self._making.pop(thread, None)
        target = verdict.target.lower()
        if verdict.operation == "CREATE VIRTUAL TABLE":
            self._making[thread] = target
        elif made is not None:
            for name in (name.partition(".")[2].lower() for name in verdict.writes if name.startswith("main.")):
                if name.startswith(made + "_") and ranks.of(name) < clearance:
                    return self._down(name, ranks.of(name), clearance)
        if verdict.operation == "CREATE TABLE" and verdict.database in (None, "main"):
            names = {name.partition(".")[2].lower() for name in verdict.reads} - {
                target
            }  # a generated column reads its own table
            read = [ranks.whole(name) for name in names if not name.startswith("sqlite_")]
            if max(read, default=0) > ranks.of(target):
                return self._down(target, ranks.of(target), max(read))
        return None

    def _is_doubtful(self, visible: VisibleSchema, sql: str, verdict: Verdict) -> bool:
        """Tell whether a statement may lean on something that the session may not see, past what the authorizer is asked."""
        assert self._schema is not None  # noqa: S101 - enforce() has read it
        for entry in (*verdict.reads, *verdict.writes):
            name = entry.partition(".")[2].lower()
            if visible.is_partial(name) or not (visible.has(name) or name in self._schema.modules):
                return True
        return visible.mentions_hidden(sql)

    def copy(self, schema: str, operation: str) -> Refusal | None:  # noqa: ARG002 - every schema
        """See `heliosaudit.Rule.copy`."""
        return self._needs(self._ranks.top, f"what {operation} could carry away", self._clearance())

    def told(self, error: BaseException, sql: str, refusal: Refusal | None, *, ran: bool) -> BaseException | None:  # noqa: PLR0911 - a case each
        """See `heliosaudit.Rule.told`: to a session that may not see all, SQLite speaks of what it sees."""
        clearance = self._clearance()
        if not isinstance(error, apsw.Error) or clearance >= self._ranks.highest or self._schema is None:
            return None
        if clearance < self._ranks.floor:
            return _not_authorized() if isinstance(refusal, _Hidden) else None
        with contextlib.suppress(apsw.Error):
            self.refresh()
        visible = self._seen(clearance)
        if sql and (isinstance(refusal, _Hidden) or isinstance(error, apsw.SQLError)):
            found = visible.error_of(sql)
            if found is not None:
                return found
        if isinstance(refusal, _Hidden):
            return None if not sql else _not_authorized()
        if isinstance(error, apsw.ConstraintError):
            if self._may_be_told(visible, str(error)):
                return None
            return _sqlite(apsw.ConstraintError, apsw.SQLITE_CONSTRAINT, "constraint failed")
        # what SQLite can't prepare here, and could if nothing were hidden, has to do with what is hidden
        is_odd = bool(sql) and not ran and isinstance(error, apsw.SQLError)
        return _not_authorized() if is_odd or visible.mentions_hidden(str(error)) else None

    @staticmethod
    def _may_be_told(visible: VisibleSchema, text: str) -> bool:
        """Tell whether what a constraint says is of what the session sees."""
        named = _OF_COLUMNS.fullmatch(text)
        if named is None or named[0].startswith("UNIQUE constraint failed: index"):
            return not visible.mentions_hidden(text)
        columns = (named[1] or named[2]).lower().split(", ")
        return all(visible.has(*column.rpartition(".")[::2]) for column in columns)


def enforce(
    connection: AuditedConnection,
    labels: Mapping[str, str],
    *,
    levels: Sequence[str] = DEFAULT_LEVELS,
    classification_level: str | None = None,
) -> None:
    """Hold every statement of a connection to labels; the session says its clearance: ``heliosvfs.session(clearance="SECRET")``.

    Args:
        connection: An audited connection: what is refused is recorded, with what was really missing.
        labels: Level of each labelled "table" or "table.column"; what has none is of the database's level.
        levels: Names of the levels, the lowest first.
        classification_level: Level of the database; None: the lowest. A session below it may do nothing.

    Raises:
        UsageError: A level is not among ``levels``.
        AuditPolicyError: The connection is not audited.
    """
    floor = levels[0] if classification_level is None else classification_level
    unknown = sorted({floor, *labels.values()} - set(levels))
    if unknown:
        msg = f"{', '.join(unknown)}: expected one of the levels {', '.join(levels)}"
        raise UsageError(msg)
    rule = _Labels(connection, Ranks(labels, levels, floor))
    if connection.auditor is not None:
        # or "ssn" would be a text where there is no such column, and a refusal where there is one above the session
        apsw.Connection.config(connection, apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        rule.refresh()
        missing = rule.missing(labels)
        if missing:
            msg = f"labels that name nothing in the database: {', '.join(missing)}"
            warnings.warn(msg, LabelWithoutEffectWarning, stacklevel=2)
    connection.add_rule(rule)
