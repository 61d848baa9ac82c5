"""What nobody may do to the log by SQL: the answers of the authorizer (AUDIT.md, "What is denied")."""

from __future__ import annotations

import apsw

from heliosaudit.schemas import is_reserved
from heliosaudit.statements import Action

__all__ = ["WRITES", "denial"]

WRITES = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})
_NAMED = frozenset(
    {
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_TEMP_INDEX,
        apsw.SQLITE_CREATE_TEMP_TABLE,
        apsw.SQLITE_CREATE_TEMP_TRIGGER,
        apsw.SQLITE_CREATE_TEMP_VIEW,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_CREATE_VIEW,
        apsw.SQLITE_CREATE_VTABLE,
        apsw.SQLITE_DROP_INDEX,
        apsw.SQLITE_DROP_TABLE,
        apsw.SQLITE_DROP_TEMP_INDEX,
        apsw.SQLITE_DROP_TEMP_TABLE,
        apsw.SQLITE_DROP_TEMP_TRIGGER,
        apsw.SQLITE_DROP_TEMP_VIEW,
        apsw.SQLITE_DROP_TRIGGER,
        apsw.SQLITE_DROP_VIEW,
        apsw.SQLITE_DROP_VTABLE,
        apsw.SQLITE_ALTER_TABLE,
    }
)
_FALSE = frozenset({"0", "off", "no", "false"})
_JOURNALS = frozenset({"off", "memory"})


def denial(action: Action) -> str | None:
    """Say why something is denied; None: the log does not mind.

    Args:
        action: What the authorizer is asked: code, two arguments, schema, and the trigger or view it comes from.
    """
    code, first, second, _, _ = action
    if code in WRITES:
        return f"{first} belongs to the audit log, which is append-only" if is_reserved(first) else None
    if code in _NAMED:
        for name in (first, second):
            if is_reserved(name):
                return f"{name} belongs to the audit log, which can't be altered"
        return None
    if code == apsw.SQLITE_PRAGMA:
        return _pragma((first or "").lower(), second)
    if code == apsw.SQLITE_SAVEPOINT and (second or "").lower() == "changeset_apply":
        return "a changeset is applied past the audit: use the audited connection's apply_changeset()"
    return None


def _pragma(name: str, argument: str | None) -> str | None:
    if argument is None:
        return None
    value = argument.strip("'\" ").lower()
    if name == "writable_schema" and value not in _FALSE:
        return "writable_schema would let the audit log be rewritten"
    if name == "journal_mode" and any(
        value and mode.startswith(value) for mode in _JOURNALS
    ):  # SQLite takes any beginning of a name
        return f"journal_mode={value} can't keep changes and their events together over a crash"
    return None
