"""Changesets of SQLite's session extension, applied with an event (https://sqlite.org/sessionintro.html).

`apsw.Changeset.apply` runs statements that no exec tracer sees, so the log's guard refuses it; this is the way that is recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import apsw

from heliosaudit.captures import Running
from heliosaudit.failures import record_failure
from heliosaudit.literals import Template
from heliosaudit.rules import Refusal
from heliosaudit.statements import Verdict, is_wanted

if TYPE_CHECKING:
    from heliosaudit.auditors import Auditor

__all__ = ["apply"]

_base = apsw.Connection
_COUNTED = ("INSERT", "UPDATE", "DELETE")


def apply(auditor: Auditor, changeset: Any, options: dict[str, Any]) -> bytes | None:
    """Apply a changeset, and record it as one event: tables, counts of each kind of change, and a digest.

    Args:
        auditor: Of the connection.
        changeset: Bytes, or a callable that hands out pieces of them.
        options: Keyword arguments of `apsw.Changeset.apply`.

    Raises:
        AccessDeniedError: A rule refuses one of the values.
        AuditWriteError: The event can't be written; nothing was changed.
        apsw.Error: What `apsw.Changeset.apply` raises; nothing was changed.
    """
    data = bytes(changeset) if not callable(changeset) else _joined(changeset)
    counts = _counts(data)
    running = Running(None, _verdict(auditor, data, counts), "", None, _base.total_changes(auditor.connection))
    refusal = _refusal(auditor, data, running.verdict)
    if refusal is not None:
        error = refusal.raised("")
        record_failure(auditor, running, error, refusal)
        try:
            raise error
        finally:
            del error  # or it is part of a cycle with this frame
    if auditor.images is not None:
        auditor.images.begin(running)
    try:
        if not auditor.connection.in_transaction:
            auditor.commits.begin_change(running)
        result = _apply(auditor, data, options)
    except BaseException as error:
        record_failure(auditor, running, error, auditor.gate.take_denial())
        raise
    finally:
        auditor.gate.take_actions()
    affected = _base.total_changes(auditor.connection) - running.changes
    running.details = {"tables": counts, "sha256": hashlib.sha256(data).hexdigest()}
    running.rows = affected
    auditor.finish(running)
    return result


def _apply(auditor: Auditor, data: bytes, options: dict[str, Any]) -> bytes | None:
    was = auditor.enter()
    try:
        with auditor.gate.applying_changeset():
            return apsw.Changeset.apply(data, auditor.connection, **options)
    finally:
        auditor.leave(was)


def _joined(pieces: Callable[[int], bytes]) -> bytes:
    """Read a stream to its end: what is hashed and inspected has to be what is applied."""
    found = []
    while piece := pieces(65536):
        found.append(bytes(piece))
    return b"".join(found)


def _counts(data: bytes) -> dict[str, dict[str, int]]:
    """Count a changeset's inserts, updates and deletes by table."""
    counts: dict[str, dict[str, int]] = {}
    for change in apsw.Changeset.iter(data):
        table = counts.setdefault(change.name, dict.fromkeys(_COUNTED, 0))
        table[change.op] += 1
    return counts


def _refusal(auditor: Auditor, data: bytes, verdict: Verdict) -> Refusal | None:
    """Show the rules each row that would be written."""
    if not auditor.gate.rules:
        return None
    for change in apsw.Changeset.iter(data):
        if change.new is not None:
            values = tuple(value for value in change.new if value is not apsw.no_change)
            refusal = auditor.gate.refusal_of("", values, verdict)
            if refusal is not None:
                return refusal
    return None


def _verdict(auditor: Auditor, data: bytes, counts: dict[str, dict[str, int]]) -> Verdict:
    policy = auditor.policy
    tables = {name.lower() for name in counts}
    is_logged = is_wanted("DML", tables, policy)
    return Verdict(
        "DML",
        "APPLY CHANGESET",
        next(iter(counts), ""),
        "main",
        writes=tuple(f"main.{name}" for name in counts),
        is_work=True,
        is_logged=is_logged,
        template=Template(f"apply_changeset({len(data)} bytes)", policy.max_query_length) if is_logged else None,
    )
