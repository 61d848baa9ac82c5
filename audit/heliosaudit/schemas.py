"""The tables of the log, what guards them on connections that are not audited, and the genesis record (AUDIT.md, "The table")."""

from __future__ import annotations

from heliosaudit.records import FIELDS

__all__ = ["LOG", "MAKE_OPEN", "MAKE_STATE", "OPEN", "PREFIX", "STATE", "VALUES", "is_reserved", "statements"]

PREFIX = "__audit"
LOG = "__audit_log"
VALUES = "__audit_values"
OPEN = "__audit_open"
STATE = "__audit_state"
VERSION = 1

_TEXT = "TEXT"
_TYPES = {"affected_rows": "INTEGER", "success": "INTEGER", "execution_time_us": "INTEGER", "rolled_back": "INTEGER"}
_NAMES = {"event_class": "class"}
_COLUMNS = (
    *FIELDS[: FIELDS.index("rolled_back") + 1],
    "custom",
)  # each costs 0.15 µs an event; the rest is reached by record->>n
_INDEXES = {
    "timestamp": "timestamp",
    "user": '"user"',
    "operation": "operation",
    "target": "target",
}


MAKE_OPEN = (
    f"CREATE TABLE IF NOT EXISTS main.{OPEN}(connection TEXT PRIMARY KEY, opened TEXT, user TEXT, host TEXT, boot TEXT, "
    "pid INTEGER, started TEXT, buffer INTEGER) WITHOUT ROWID"
)


MAKE_STATE = (
    f"CREATE TABLE IF NOT EXISTS main.{STATE}(id INTEGER PRIMARY KEY, head INTEGER, mode TEXT, counter INTEGER, schema INTEGER, "
    "pages INTEGER, free INTEGER)"
)


def is_reserved(name: str | None) -> bool:
    """Tell whether a table's or object's name belongs to the log; SQLite compares names without case."""
    return name is not None and name[: len(PREFIX)].lower() == PREFIX


def statements() -> list[str]:
    """Return the SQL that makes the log's tables, indexes and triggers in the main database."""
    columns = ",\n  ".join(
        f'"{_NAMES.get(name, name)}" {_TYPES.get(name, _TEXT)} GENERATED ALWAYS AS (record->>{FIELDS.index(name)}) VIRTUAL'
        for name in _COLUMNS
    )
    made = [
        f"CREATE TABLE main.{LOG}(\n  id INTEGER PRIMARY KEY,\n  record TEXT NOT NULL,\n  checksum BLOB NOT NULL,\n  {columns})",
        f"CREATE TABLE main.{VALUES}(event INT, position INT, salt BLOB, value, PRIMARY KEY(event, position)) WITHOUT ROWID",
    ]
    made += [MAKE_OPEN, MAKE_STATE]
    made += [f"CREATE INDEX main.{LOG}_{name} ON {LOG}({column})" for name, column in _INDEXES.items()]
    made.append(f"CREATE INDEX main.{LOG}_failures ON {LOG}(timestamp) WHERE success = 0")
    for action in ("UPDATE", "DELETE"):
        made.append(
            f"CREATE TRIGGER main.{LOG}_no_{action.lower()} BEFORE {action} ON {LOG} "
            f"BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
    # INSERT OR REPLACE passes by these two. A BEFORE INSERT trigger would stop it and cost 3.2 µs an event, as much as the rest
    # of the INSERT, for SQLite then computes all generated columns twice: audited connections deny it, and the chain shows it.
    return made
