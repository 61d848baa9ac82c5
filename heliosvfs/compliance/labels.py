"""Mandatory access control: labels on tables and columns, clearance on the session (docs/ACCESS.md, "Labels").

The rule is that of Bell and LaPadula (MITRE MTR-2547, 1973): nobody reads what is labelled above their clearance, and nobody
writes what is labelled below it, for that would carry what they know down. What a session may not see looks to it as if it were
not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import apsw

from heliosaudit import Refusal, Rule
from heliosaudit.sessions import current
from heliosvfs.errors import UsageError

if TYPE_CHECKING:
    from heliosaudit.statements import Action, Verdict
    from heliosvfs.audited import AuditedConnection

__all__ = ["DEFAULT_LEVELS", "enforce"]

DEFAULT_LEVELS = ("UNCLASSIFIED", "CONFIDENTIAL", "SECRET", "TOP_SECRET")

_WRITES = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})
_SCHEMA_TABLES = frozenset({"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"})
_TELLING = frozenset({"sqlite_stat1", "sqlite_stat4", "sqlite_sequence", "dbstat", "sqlite_dbpage"})  # they hold names or values
_SHADOWS = re.compile(r"(.+)_(?:data|idx|content|docsize|config|node|parent|rowid|segments|segdir|stat)")  # of FTS and R-tree
_TABLE_AT = {  # which argument of the authorizer names the table that a change of the schema concerns
    apsw.SQLITE_ALTER_TABLE: 2,
    apsw.SQLITE_ANALYZE: 1,
    apsw.SQLITE_CREATE_INDEX: 2,
    apsw.SQLITE_CREATE_TEMP_INDEX: 2,
    apsw.SQLITE_CREATE_TEMP_TRIGGER: 2,
    apsw.SQLITE_CREATE_TRIGGER: 2,
    apsw.SQLITE_DROP_INDEX: 2,
    apsw.SQLITE_DROP_TABLE: 1,
    apsw.SQLITE_DROP_TRIGGER: 2,
    apsw.SQLITE_DROP_VIEW: 1,
    apsw.SQLITE_DROP_VTABLE: 1,
}
_MAKES = frozenset({apsw.SQLITE_CREATE_TABLE, apsw.SQLITE_CREATE_VTABLE, apsw.SQLITE_CREATE_TEMP_TABLE})
_TRANSACTIONS = frozenset({apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT})
_COPIES = frozenset({apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH})
_HARMLESS_PRAGMAS = frozenset(
    {
        "application_id",
        "auto_vacuum",
        "busy_timeout",
        "cache_size",
        "cache_spill",
        "cell_size_check",
        "checkpoint_fullfsync",
        "compile_options",
        "data_version",
        "defer_foreign_keys",
        "encoding",
        "foreign_keys",
        "freelist_count",
        "fullfsync",
        "journal_mode",
        "journal_size_limit",
        "locking_mode",
        "max_page_count",
        "mmap_size",
        "page_count",
        "page_size",
        "query_only",
        "read_uncommitted",
        "recursive_triggers",
        "reverse_unordered_selects",
        "schema_version",
        "secure_delete",
        "synchronous",
        "temp_store",
        "threads",
        "user_version",
        "wal_autocheckpoint",
        "wal_checkpoint",
    }
)
_OF_TABLES = frozenset({"table_info", "table_xinfo", "index_list", "foreign_key_list"})  # their argument is a table


def _not_authorized(_sql: str = "") -> Exception:
    """Return what SQLite itself raises for an authorizer's refusal."""
    error = apsw.AuthError("not authorized")
    error.result = error.extendedresult = apsw.SQLITE_AUTH  # type: ignore[attr-defined]
    return error


def _no_such(message: str, name: str | None) -> Callable[[str], Exception]:
    """Return a function that makes SQLite's error for what is not there; who did not name it is not told its name."""

    def error(sql: str) -> Exception:
        if (name or "").lower() not in sql.lower():
            return _not_authorized()
        made = apsw.SQLError(message)
        made.result = made.extendedresult = apsw.SQLITE_ERROR  # type: ignore[attr-defined]
        return made

    return error


class _Labels(Rule):
    """Holds every statement of a connection to the labels."""

    depends_on_session = True

    def __init__(self, labels: Mapping[str, str], levels: Sequence[str], floor: str) -> None:
        self._ranks = {level: rank for rank, level in enumerate(levels)}
        self._names = tuple(levels)
        self._floor = self._ranks[floor]
        self._columns: dict[str, dict[str, int]] = {}
        self._tables: dict[str, int] = {}
        for name, level in labels.items():
            table, dot, column = name.lower().partition(".")
            if dot:
                self._columns.setdefault(table, {})[column] = self._ranks[level]
            else:
                self._tables[table] = self._ranks[level]
        self._highest = max([self._floor, *self._tables.values(), *(r for of in self._columns.values() for r in of.values())])

    def _clearance(self) -> int:
        """Return the rank of the acting session; one that says nothing, or no level, has the lowest."""
        return self._ranks.get(str(current().custom.get("clearance", "")), 0)

    def _label(self, table: str | None, column: str | None = None) -> int:
        """Return the rank of a table, or of a column if that is higher."""
        name = self._owner(table)
        rank = max(self._tables.get(name, 0), self._floor)
        of = self._columns.get(name)
        return rank if of is None or column is None else max(rank, of.get(column.lower(), 0))

    def _owner(self, table: str | None) -> str:
        """Return the name of a table, or of the virtual table that keeps its content in it."""
        name = (table or "").lower()
        shadow = None if name in self._tables else _SHADOWS.fullmatch(name)
        return shadow.group(1) if shadow is not None and shadow.group(1) in self._tables else name

    def _whole(self, table: str | None) -> int:
        """Return the rank of the highest of a table and its columns."""
        return max([self._label(table), *self._columns.get(self._owner(table), {}).values()])

    def authorize(self, action: Action) -> Refusal | None:
        """See `heliosaudit.Rule.authorize`."""
        code, first, second, _, _ = action
        clearance = self._clearance()
        refusal: Refusal | None = None
        if clearance < self._floor and code not in _TRANSACTIONS:
            refusal = self._refusal("the database", self._floor, clearance)
        elif code == apsw.SQLITE_READ:
            refusal = self._read(clearance, first, second)
        elif code in _WRITES:
            refusal = self._write(clearance, code, first, second)
        elif code in _TABLE_AT:
            refusal = self._change(clearance, code, first if _TABLE_AT[code] == 1 else second)
        elif code in _MAKES and clearance > self._label(first):
            refusal = self._refusal(first, self._label(first), clearance, "what is made there could carry more")
        elif code == apsw.SQLITE_PRAGMA:
            refusal = self._pragma(clearance, (first or "").lower(), second)
        elif code in _COPIES:
            refusal = self._copying(clearance, "ATTACH")
        return refusal

    def _refusal(self, what: str | None, rank: int, clearance: int, why: str = "") -> Refusal:
        """Refuse without a word of why to whom it is refused."""
        reason = f"{what} is {self._names[rank]}, the session is cleared for {self._names[clearance]}{why and ': ' + why}"
        return Refusal(reason, _not_authorized, hides_values=True)

    def _missing(self, clearance: int, table: str | None, column: str | None, rank: int) -> Refusal:
        """Refuse as if what was named were not there, with SQLite's own words for that."""
        what = f"{table}.{column}" if column else f"{table}"
        reason = f"{what} is {self._names[rank]}, the session is cleared for {self._names[clearance]}"
        if self._label(table) > clearance:
            return Refusal(reason, _no_such(f"no such table: {table}", table), hides_values=True)
        return Refusal(reason, _no_such(f"no such column: {column}", column), hides_values=True)

    def _read(self, clearance: int, table: str | None, column: str | None) -> Refusal | None:
        name = (table or "").lower()
        if name in _SCHEMA_TABLES and not column:
            return None  # count(*) of it: SQLite's own statements of DDL ask for no column
        if name in _SCHEMA_TABLES or name in _TELLING or name.startswith("__audit"):
            is_hidden = clearance < self._highest and column != "ROWID"  # by its rowid SQLite finds a row that it is making
            return self._refusal(f"what {table} tells of", self._highest, clearance) if is_hidden else None
        rank = self._label(table, column)
        return self._missing(clearance, table, column, rank) if rank > clearance else None

    def _write(self, clearance: int, code: int, table: str | None, column: str | None) -> Refusal | None:
        name = (table or "").lower()
        if name in _SCHEMA_TABLES or name in _TELLING or name.startswith("__audit"):
            return None  # SQLite's own bookkeeping, or the audit's guard's to refuse
        whole = self._whole(table) if code != apsw.SQLITE_UPDATE else self._label(table, column)
        if whole > clearance:
            return self._missing(clearance, table, column if code == apsw.SQLITE_UPDATE else None, whole)
        label = self._label(table, column if code == apsw.SQLITE_UPDATE else None)
        if code == apsw.SQLITE_INSERT:
            label = whole  # a row with a column of this level is of this level
        return self._refusal(table, label, clearance, "writing there would carry down") if label < clearance else None

    def _change(self, clearance: int, code: int, table: str | None) -> Refusal | None:
        rank, name = self._whole(table), self._owner(table)
        if rank > clearance:
            return self._missing(clearance, table, None, rank)
        if code == apsw.SQLITE_ALTER_TABLE and (name in self._tables or name in self._columns):
            return self._refusal(table, rank, clearance, "its labels go by its name and its columns', so it can't be altered")
        return None

    def _pragma(self, clearance: int, name: str, argument: str | None) -> Refusal | None:
        if clearance >= self._highest or name in _HARMLESS_PRAGMAS:
            return None
        if name in _OF_TABLES and argument is not None and self._whole(argument) <= clearance:
            return None
        return self._refusal(f"what PRAGMA {name} tells of", self._highest, clearance)

    def _copying(self, clearance: int, operation: str) -> Refusal | None:
        if clearance >= self._highest:
            return None
        return self._refusal(f"what {operation} could carry away", self._highest, clearance)

    def inspect(self, sql: str, bindings: Any, verdict: Verdict) -> Refusal | None:  # noqa: ARG002 - kinds of statements alone
        """See `heliosaudit.Rule.inspect`."""
        return self._copying(self._clearance(), "VACUUM") if verdict.operation == "VACUUM" else None

    def copy(self, schema: str, operation: str) -> Refusal | None:  # noqa: ARG002 - every schema
        """See `heliosaudit.Rule.copy`."""
        return self._copying(self._clearance(), operation)


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
    connection.add_rule(_Labels(labels, levels, floor))
