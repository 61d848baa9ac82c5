"""What a statement does, read from what SQLite's authorizer was asked while it was prepared (https://sqlite.org/c3ref/c_alter_table.html).

Not from its text, which can say the same in many ways, nor from whether it is read-only, which is true for PRAGMA optimize and
ATTACH and false for EXPLAIN INSERT.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from heliosaudit.literals import Template, literal, without_literals
from heliosaudit.policies import Policy
from heliosaudit.schemas import is_reserved

__all__ = ["Action", "Verdict", "is_change", "is_wanted", "judge", "judge_blob", "object_of"]

Action = tuple[int, "str | None", "str | None", "str | None", "str | None"]

_SCHEMA_TABLES = ("sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema")
_DDL = {
    apsw.SQLITE_CREATE_INDEX: "CREATE INDEX",
    apsw.SQLITE_CREATE_TABLE: "CREATE TABLE",
    apsw.SQLITE_CREATE_TEMP_INDEX: "CREATE TEMP INDEX",
    apsw.SQLITE_CREATE_TEMP_TABLE: "CREATE TEMP TABLE",
    apsw.SQLITE_CREATE_TEMP_TRIGGER: "CREATE TEMP TRIGGER",
    apsw.SQLITE_CREATE_TEMP_VIEW: "CREATE TEMP VIEW",
    apsw.SQLITE_CREATE_TRIGGER: "CREATE TRIGGER",
    apsw.SQLITE_CREATE_VIEW: "CREATE VIEW",
    apsw.SQLITE_CREATE_VTABLE: "CREATE VIRTUAL TABLE",
    apsw.SQLITE_DROP_INDEX: "DROP INDEX",
    apsw.SQLITE_DROP_TABLE: "DROP TABLE",
    apsw.SQLITE_DROP_TEMP_INDEX: "DROP TEMP INDEX",
    apsw.SQLITE_DROP_TEMP_TABLE: "DROP TEMP TABLE",
    apsw.SQLITE_DROP_TEMP_TRIGGER: "DROP TEMP TRIGGER",
    apsw.SQLITE_DROP_TEMP_VIEW: "DROP TEMP VIEW",
    apsw.SQLITE_DROP_TRIGGER: "DROP TRIGGER",
    apsw.SQLITE_DROP_VIEW: "DROP VIEW",
    apsw.SQLITE_DROP_VTABLE: "DROP VIRTUAL TABLE",
    apsw.SQLITE_ALTER_TABLE: "ALTER TABLE",
    apsw.SQLITE_REINDEX: "REINDEX",
    apsw.SQLITE_ANALYZE: "ANALYZE",
}
_DML = {apsw.SQLITE_INSERT: "INSERT", apsw.SQLITE_UPDATE: "UPDATE", apsw.SQLITE_DELETE: "DELETE"}
_ADMIN = {apsw.SQLITE_PRAGMA: "PRAGMA", apsw.SQLITE_ATTACH: "ATTACH", apsw.SQLITE_DETACH: "DETACH"}
# PRAGMAs that only say something, whatever argument they have; all others may change something and count as ADMIN
_TELLING = frozenset(
    [
        "collation_list",
        "compile_options",
        "database_list",
        "data_version",
        "foreign_key_check",
        "foreign_key_list",
        "freelist_count",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "module_list",
        "page_count",
        "pragma_list",
        "quick_check",
        "stats",
        "table_info",
        "table_list",
        "table_xinfo",
    ]
)
# PRAGMAs that write to the main database within the transaction, as DML does
_WRITING = frozenset({"user_version", "application_id", "schema_version", "incremental_vacuum"})
_SPACE = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$)|;)*", re.DOTALL)
_WORD = re.compile(r"\w*")
# columns in which full-text indexes keep what they were given, after the name of the virtual table and "_"
_SHADOWS = re.compile(r"(?:content\.c\d.*|data\.block|idx\.term|segments\.block|segdir\.root)", re.DOTALL)
_CALL = r"[\"'`\]]?(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*\("  # after a name


@dataclass(frozen=True)
class Verdict:
    """What a statement is, for the log.

    Attributes:
        event_class: DDL, DML, SELECT, TRANSACTION, ADMIN, or AUDIT for what reads the log itself; "" for an empty statement.
        operation: INSERT, CREATE TABLE, COMMIT, ROLLBACK TO, PRAGMA, ...
        target: Main table or object.
        database: Schema name of the target.
        reads: Tables read, with their schemas.
        writes: Tables written, with their schemas, those of triggers included.
        savepoint: Name of the savepoint, for SAVEPOINT, RELEASE and ROLLBACK TO.
        pragma: Name of the PRAGMA, in lower case.
        is_work: Whether it changes a database other than the temporary one.
        reads_log: Whether it reads the log itself, which is recorded whatever the policy wants.
        is_logged: Whether it is recorded.
        template: Its SQL, taken apart; None where no event is made.
        shows_values: Whether bound values may be recorded.
        never_returns_rows: Whether it has ended as soon as it was executed.
    """

    event_class: str
    operation: str
    target: str = ""
    database: str | None = None
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    savepoint: str = ""
    pragma: str = ""
    is_work: bool = False
    reads_log: bool = False
    is_logged: bool = True
    template: Template | None = None
    shows_values: bool = True
    never_returns_rows: bool = False


def judge(sql: str, actions: Sequence[Action], policy: Policy) -> Verdict:
    """Tell what a statement does.

    Args:
        sql: Its text.
        actions: What the authorizer was asked while it was prepared, in order.
        policy: What is to be recorded of it.
    """
    reads = _tables(actions, (apsw.SQLITE_READ,))
    writes = _tables(actions, tuple(_DML))
    fields = _classify(sql, actions, reads, writes)
    event_class = str(fields["event_class"])
    touched = {name.partition(".")[2].lower() for name in (*reads, *writes)}
    reads_log = any(is_reserved(name.partition(".")[2]) for name in reads)
    is_logged = reads_log or is_wanted(event_class, touched, policy)
    redacted = bool(policy.redacted_columns) and _names_redacted(sql, actions, touched, policy)
    text = without_literals(sql) if redacted else sql
    return Verdict(
        **fields,
        reads=reads,
        writes=writes,
        reads_log=reads_log,
        is_logged=is_logged,
        template=Template(text, policy.max_query_length) if is_logged else None,
        shows_values=not redacted and policy.capture_parameters != "none",
        never_returns_rows=event_class in ("DDL", "TRANSACTION") or (event_class == "DML" and "returning" not in sql.lower()),
    )


def is_change(action: Action) -> bool:
    """Tell whether SQLite asks about a change of rows or of the schema."""
    return action[0] in _DDL or action[0] in _DML


def object_of(action: Action | None) -> tuple[str, str | None]:
    """Return the object that SQLite asks about and its schema, "" if it asks about none that has a name."""
    if action is None:
        return "", None
    code, first, second, database, _ = action
    if code == apsw.SQLITE_ALTER_TABLE:
        return second or "", first
    if code in (apsw.SQLITE_FUNCTION, apsw.SQLITE_SAVEPOINT):
        return second or "", None
    if code in _ADMIN:
        return (first or "").lower() if code == apsw.SQLITE_PRAGMA else _without_options(first), database
    return ("", None) if code == apsw.SQLITE_TRANSACTION else (first or "", database)


def judge_blob(  # noqa: PLR0913 - APSW's parameters
    database: str, table: str, column: str, rowid: int, policy: Policy, *, writes: bool
) -> Verdict:
    """Tell what opening a blob handle does."""
    event_class = "DML" if writes else "SELECT"
    name = f"{database}.{table}"
    text = f"blob_open({literal(database, 64)}, {literal(table, 64)}, {literal(column, 64)}, {rowid})"
    is_logged = is_wanted(event_class, {table.lower()}, policy)
    return Verdict(
        event_class,
        "BLOB WRITE" if writes else "BLOB READ",
        table,
        database,
        reads=() if writes else (name,),
        writes=(name,) if writes else (),
        is_work=writes and database.lower() != "temp",
        is_logged=is_logged,
        template=Template(text, policy.max_query_length) if is_logged else None,
    )


def is_wanted(event_class: str, touched: set[str], policy: Policy) -> bool:
    """Tell whether the policy wants events of a class on some tables."""
    if not event_class or not policy.logs(event_class):
        return False
    if event_class not in ("DML", "SELECT"):
        return True
    if policy.include_tables and not touched & policy.include_tables:
        return False
    return not (touched and policy.exclude_tables and touched <= policy.exclude_tables)


def _tables(actions: Sequence[Action], codes: tuple[int, ...]) -> tuple[str, ...]:
    """Return the tables of actions with their schemas, each once, in order; what SQLite's own schema tables need is left out."""
    found = {
        f"{database or 'main'}.{table}": None
        for code, table, _, database, _ in actions
        if code in codes and table and table not in _SCHEMA_TABLES
    }
    if apsw.SQLITE_READ in codes and not found:
        found = {f"{database or 'main'}.{table}": None for code, table, _, database, _ in actions if code in codes and table}
    return tuple(found)


def _names_redacted(sql: str, actions: Sequence[Action], touched: set[str], policy: Policy) -> bool:
    """Tell whether a statement names a redacted column, or what holds or finds its values."""
    named = {
        (code, (name or "").lower(), (what or "").lower())
        for code, name, what, _, _ in actions
        if code in (apsw.SQLITE_INSERT, apsw.SQLITE_READ, apsw.SQLITE_UPDATE)
    }
    for entry in policy.redacted_columns:
        table, _, column = entry.partition(".")
        if table in touched and _searches(sql, table):
            return True
        for code, name, what in named:
            # an INSERT names no column: its values may be those of any; and a full-text search names that with its table's name
            if name == table and (code == apsw.SQLITE_INSERT or what in (column, table)):
                return True
            if name.startswith(f"{table}_") and _SHADOWS.fullmatch(f"{name[len(table) + 1 :]}.{what}"):
                return True
    return False


def _searches(sql: str, table: str) -> bool:
    """Tell whether SQL may search a table as in ``FROM t('word')``, whose column SQLite asks nobody about."""
    return re.search(rf"(?<![\w$]){re.escape(table)}{_CALL}", sql, re.IGNORECASE) is not None


def _classify(sql: str, actions: Sequence[Action], reads: tuple[str, ...], writes: tuple[str, ...]) -> dict[str, Any]:
    outer = [action for action in actions if action[4] is None]
    for code, first, second, database, _ in outer:
        if code in _DDL:
            target = second if code == apsw.SQLITE_ALTER_TABLE else first
            schema = first if code == apsw.SQLITE_ALTER_TABLE else database
            return {
                "event_class": "DDL",
                "operation": _DDL[code],
                "target": target or "",
                "database": schema,
                "is_work": "TEMP" not in _DDL[code] and schema != "temp",
            }
        if code in _DML and first not in _SCHEMA_TABLES:
            return {
                "event_class": "DML",
                "operation": _DML[code],
                "target": first or "",
                "database": database,
                "is_work": any(not name.startswith("temp.") for name in writes),
            }
        special = _special(code, first, second, database)
        if special is not None:
            return special
    if not actions:
        return _silent(sql)
    if any(code == apsw.SQLITE_FUNCTION and (name or "").lower() == "load_extension" for code, _, name, _, _ in actions):
        return {"event_class": "ADMIN", "operation": "LOAD EXTENSION"}
    target = reads[0] if reads else ""
    schema, _, table = target.partition(".")
    reads_log = any(is_reserved(name.partition(".")[2]) for name in reads)
    return {
        "event_class": "AUDIT" if reads_log else "SELECT",
        "operation": "SELECT",
        "target": table,
        "database": schema or None,
    }


def _special(code: int, first: str | None, second: str | None, database: str | None) -> dict[str, Any] | None:
    """Classify what concerns transactions and administration."""
    if code == apsw.SQLITE_TRANSACTION:
        return {"event_class": "TRANSACTION", "operation": first or ""}
    if code == apsw.SQLITE_SAVEPOINT:
        operation = {"BEGIN": "SAVEPOINT", "RELEASE": "RELEASE", "ROLLBACK": "ROLLBACK TO"}[first or ""]
        return {"event_class": "TRANSACTION", "operation": operation, "target": second or "", "savepoint": (second or "").lower()}
    if code == apsw.SQLITE_PRAGMA:
        name = (first or "").lower()
        changes = second is not None and name not in _TELLING
        return {
            "event_class": "ADMIN" if changes or name in ("optimize", "incremental_vacuum", "wal_checkpoint") else "SELECT",
            "operation": "PRAGMA",
            "target": name,
            "pragma": name,
            "database": database,
            "is_work": name in _WRITING and (changes or name == "incremental_vacuum") and database != "temp",
        }
    if code in _ADMIN:
        return {"event_class": "ADMIN", "operation": _ADMIN[code], "target": _without_options(first)}
    return None


def _without_options(name: str | None) -> str:
    """Return a database's name without the options of a URI, which may hold a key."""
    return (name or "").partition("?")[0]


def _silent(sql: str) -> dict[str, Any]:
    """Classify a statement that the authorizer was not asked about: VACUUM, or none at all."""
    start = _SPACE.match(sql)
    word = _WORD.match(sql, start.end() if start else 0)
    first = word.group().upper() if word else ""
    if not first:
        return {"event_class": "", "operation": ""}
    return {"event_class": "ADMIN", "operation": first}
