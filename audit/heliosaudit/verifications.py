"""Whether the chain holds (AUDIT.md, "Verification").

The answer has three values. *broken*: something was edited, removed, inserted or put elsewhere, and the first bad id is named.
*verified*: everything up to a checkpoint is what it was when that was signed. *consistent, unanchored*: the chain holds by
itself, which says nothing against someone who holds the key and can build it anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import apsw
import msgspec

from heliosaudit import chains
from heliosaudit.checkpoints import Checkpoint
from heliosaudit.errors import ChainBrokenError, LogTruncatedError
from heliosaudit.following import Break, Head, check, shown
from heliosaudit.queries import rows
from heliosaudit.records import Record, decode
from heliosaudit.schemas import LOG
from heliosaudit.segments import follow

__all__ = ["Break", "Head", "Report", "check", "verify"]

_NEAR = 20  # events on both sides among which one that stands elsewhere is looked for


@dataclass(frozen=True)
class Report:
    """What a verification found.

    Attributes:
        verdict: "verified", "unverified", "broken" or "consistent, unanchored".
        events: How many events were looked at.
        first_broken: The first break; None: there is none.
        head: The last event; None: there is none that can be trusted.
        anchored: Id up to which a checkpoint vouches; 0: none does.
        seconds: How long it took.
        notes: What else is to be known, such as what was pruned.
    """

    verdict: str
    events: int
    first_broken: Break | None
    head: Head | None
    anchored: int
    seconds: float
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether nothing is broken."""
        return self.first_broken is None

    def raise_if_broken(self) -> None:
        """Raise what was found.

        Raises:
            LogTruncatedError: Events that a checkpoint vouches for are gone.
            ChainBrokenError: The chain is broken in another way.
        """
        found = self.first_broken
        if found is None:
            return
        kind = LogTruncatedError if found.kind == "truncated" else ChainBrokenError
        msg = f"the audit log is broken at event {found.id}: {found.kind}"
        raise kind(msg, id=found.id, kind=found.kind, expected=found.expected, found=found.found)


def verify(  # noqa: PLR0913 - how, and against what
    connection: apsw.Connection,
    *,
    since: Head | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
    opener: Callable[[], apsw.Connection] | None = None,
) -> Report:
    """Verify a log.

    Args:
        connection: A connection to its database.
        since: Verify only what follows this place, which an earlier report named; None: everything.
        checkpoint: A checkpoint that was kept elsewhere, its signature verified.
        progress: Told how many events are done, and how many there are.
        workers: Over how many processes a long log is divided, this one included.
        opener: Opens a further connection to the database in another process; it is pickled. None: this process does it alone.
    """
    begun = time.perf_counter()
    notes: list[str] = []
    connection.execute("SAVEPOINT heliosaudit_verify")  # one snapshot, whoever writes meanwhile
    try:
        start, first = _start(connection, since, notes)
        helpers = None if opener is None or workers < 2 else (opener, workers)  # noqa: PLR2004 - this process is one
        head, events, broken = (start, 0, first) if first is not None else follow(connection, start, progress, helpers)
        if broken is not None:
            broken = _explained(connection, broken)
        anchored = 0
        if broken is None and checkpoint is not None:
            broken, anchored = _against(connection, checkpoint, head)
    finally:
        if connection.in_transaction:  # an error of reading has ended it
            connection.execute("RELEASE heliosaudit_verify")
    if broken is not None:
        verdict = "broken"
    elif checkpoint is None:
        verdict = "consistent, unanchored"
    elif anchored:
        verdict = "verified"
        if head.id > anchored:
            notes.append(f"events {anchored + 1} to {head.id} are younger than the checkpoint, and not vouched for by it")
    else:
        verdict = "unverified"
        notes.append(f"the event that the checkpoint names, {checkpoint.size}, has been pruned: its archive has to be compared")
    return Report(verdict, events, broken, head if head.id else None, anchored, time.perf_counter() - begun, tuple(notes))


def _start(connection: apsw.Connection, since: Head | None, notes: list[str]) -> tuple[Head, Break | None]:
    """Find where the chain begins: at its root, where it was pruned to, or where an earlier verification ended."""
    if since is not None:
        notes.append(f"events up to {since.id} were verified before")
        return _since(connection, since, notes)
    found = rows(connection, f"SELECT id, CAST(record AS BLOB) FROM main.{LOG} ORDER BY id LIMIT 1")
    if not found:
        return Head(0, chains.ROOT), Break(1, "missing", "a genesis record", "an empty log")
    number, record = found[0]
    if number == 1:
        return Head(0, chains.ROOT), None if is_genesis(record) else Break(
            1, "genesis forged", "a genesis record", "another record"
        )
    pruned = last_prune(connection)
    if pruned is None or pruned[0] != number - 1:
        due = "a record of its pruning" if pruned is None else f"pruned to {pruned[0]}"
        return Head(number - 1, chains.ROOT), Break(1, "missing", due, f"the log begins with event {number}")
    notes.append(f"events 1 to {pruned[0]} were pruned, as the log records; their archive vouches for them")
    return Head(*pruned), None


def _since(connection: apsw.Connection, since: Head, notes: list[str]) -> tuple[Head, Break | None]:
    """Find where to begin after the place where an earlier verification ended, which may have been pruned meanwhile."""
    found = rows(connection, f"SELECT checksum FROM main.{LOG} WHERE id = ?", (since.id,))
    if found:
        stored = found[0][0]
        same = stored == since.checksum
        return since, None if same else Break(since.id, "rewritten", since.checksum.hex(), shown(stored))
    pruned = last_prune(connection)
    if pruned is None or pruned[0] < since.id:
        return since, Break(since.id, "truncated", f"event {since.id}", "nothing")
    if pruned[0] == since.id and pruned[1] != since.checksum:
        return since, Break(since.id, "rewritten", since.checksum.hex(), pruned[1].hex())
    notes.append(f"events up to {pruned[0]} were pruned since, as the log records; their archive vouches for them")
    return Head(*pruned), None


def is_genesis(record: str | bytes | None) -> bool:
    """Tell whether a record is that of a log's beginning."""
    try:
        first = decode(record or b"")
    except (msgspec.DecodeError, ValueError):
        return False
    return first.operation == "GENESIS" and first.event_class == "AUDIT" and bool((first.details or {}).get("uuid"))


def last_prune(connection: apsw.Connection) -> tuple[int, bytes] | None:
    """Return id and checksum of the last event that was pruned, as the last prune record says."""
    details = _last_prune_record(connection)
    try:
        return None if details is None else (int(details["to"]), bytes.fromhex(details["checksum"]))
    except (KeyError, TypeError, ValueError):
        return None


def _last_prune_record(connection: apsw.Connection) -> dict[str, Any] | None:
    """Return what the last prune record says; a generated column would fail where a record is no JSON."""
    sql = f"SELECT CAST(record AS BLOB) FROM main.{LOG} WHERE instr(record, '\"PRUNE\"') ORDER BY id DESC"
    for (record,) in rows(connection, sql):
        try:
            found: Record = decode(record)
        except (msgspec.DecodeError, ValueError):
            continue
        if found.operation == "PRUNE" and found.event_class == "AUDIT":
            return found.details
    return None


def _explained(connection: apsw.Connection, broken: Break) -> Break:
    """Say more exactly what happened to the event where the chain breaks."""
    number = broken.id
    rows_by_id = _near(connection, number - 2, number + 1) if broken.kind == "edited" else {}
    if number not in rows_by_id:
        return broken
    record, stored = rows_by_id[number]
    try:
        decode(record)
    except (msgspec.DecodeError, ValueError):
        return Break(number, "not a record", broken.expected, broken.found)
    if number == 1 and not is_genesis(record):
        return Break(1, "genesis forged", broken.expected, broken.found)
    after = rows_by_id.get(number + 1)
    if after is not None and chains.checksum(bytes.fromhex(broken.expected), number + 1, after[0]) == after[1]:
        return Break(number, "checksum edited", broken.expected, broken.found)
    if after is not None and chains.checksum(stored, number + 2, after[0]) == after[1]:
        return Break(number, "missing", broken.expected, "the event after it, renumbered")
    return _moved(connection, broken, record, stored)


def _near(connection: apsw.Connection, after: int, until: int) -> dict[int, tuple[bytes, bytes]]:
    """Return record and checksum of events by id; what is no text, or no checksum, is left out."""
    sound = "typeof(record) = 'text' AND typeof(checksum) = 'blob'"
    sql = f"SELECT id, CAST(record AS BLOB), checksum FROM main.{LOG} WHERE id > ? AND id <= ? AND {sound}"
    return {number: (record, stored) for number, record, stored in rows(connection, sql, (after, until))}


def _moved(connection: apsw.Connection, broken: Break, record: bytes, stored: bytes) -> Break:
    """Tell an event that stood elsewhere from one that was edited."""
    number = broken.id
    near = _near(connection, number - _NEAR, number + _NEAR)
    for other in near:
        if other != number and any(chains.checksum(previous, other, record) == stored for _, previous in near.values()):
            return Break(number, "reordered", broken.expected, f"event {other}")
    return broken


def _against(connection: apsw.Connection, checkpoint: Checkpoint, head: Head) -> tuple[Break | None, int]:
    """Compare the log with a checkpoint; returns a break, or the id up to which the checkpoint vouches.

    It vouches for nothing where its own event was pruned: a prune record younger than it may be anybody's who has the key.
    """
    uuid = log_uuid(connection)
    if uuid is not None and not checkpoint.origin.endswith(f"/{uuid}"):
        return Break(1, "transplanted", checkpoint.origin, uuid), 0
    if head.id < checkpoint.size:
        return Break(head.id + 1, "truncated", f"{checkpoint.size} events", f"{head.id} events"), 0
    found = rows(connection, f"SELECT checksum FROM main.{LOG} WHERE id = ?", (checkpoint.size,))
    if not found:
        return None, 0
    if found[0][0] != checkpoint.head:
        return Break(checkpoint.size, "rewritten", checkpoint.head.hex(), shown(found[0][0])), 0
    return None, checkpoint.size


def log_uuid(connection: apsw.Connection) -> str | None:
    """Return the UUID of a log, from its genesis record, or from the prune record that took it along."""
    first = rows(connection, f"SELECT CAST(record AS BLOB) FROM main.{LOG} WHERE id = 1")
    details = decode(first[0][0]).details if first and is_genesis(first[0][0]) else _last_prune_record(connection)
    uuid = (details or {}).get("uuid")
    return None if uuid is None else str(uuid)
