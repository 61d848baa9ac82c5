"""Old events leave the log for an archive, and the chain still verifies (AUDIT.md, "Retention").

The archive is durable before anything is removed; then the removal and its record are committed together. The prune record holds
the checksum of the last event that was removed, which the first one that stays is chained to.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import apsw

from heliosaudit import schemas, stores
from heliosaudit.checkpoints import SigningKey
from heliosaudit.errors import AuditPolicyError
from heliosaudit.events import event_of
from heliosaudit.exports import Manifest, export
from heliosaudit.queries import rows
from heliosaudit.schemas import LOG, VALUES
from heliosaudit.sessions import current
from heliosaudit.verifications import log_uuid, verify

__all__ = ["Pruned", "erase_values", "prune"]


@dataclass(frozen=True)
class Pruned:
    """What was removed.

    Attributes:
        first: Id of the first event that was removed; 0 if none was.
        last: Id of the last.
        archive: The archive's manifest; None: there is none.
    """

    first: int
    last: int
    archive: Manifest | None


def prune(  # noqa: PLR0913 - the options of pruning
    connection: apsw.Connection,
    *,
    days: int,
    archive: str | os.PathLike[str] | None,
    key: SigningKey | None = None,
    floor: int | None = None,
    lockdown: bool = False,
    now: datetime | None = None,
) -> Pruned:
    """Move events that are older than a number of days to an archive.

    Args:
        connection: A connection to the database that is not audited, with no transaction open.
        days: Events younger than this stay.
        archive: File to write them to, as gzipped JSON Lines; None removes them without, which ``lockdown`` forbids.
        key: Signs the archive's manifest.
        floor: Days that the policy keeps events at least.
        lockdown: Whether the policy forbids removal without a signed archive.
        now: The time to count from; None: the present.

    Raises:
        AuditPolicyError: The policy keeps these events, or wants a signed archive.
        ChainBrokenError: The log does not verify: nothing is removed from a broken log.
    """
    if floor is not None and days < floor:
        msg = f"the policy keeps events for {floor} days: they can't be removed after {days}"
        raise AuditPolicyError(msg)
    if lockdown and (archive is None or key is None):
        msg = "audit_trail_lockdown removes events only into a signed archive: name the archive and the key"
        raise AuditPolicyError(msg)
    verify(connection).raise_if_broken()
    limit = (now or datetime.now(timezone.utc)) - timedelta(days=days)
    moment = limit.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    # the last event stays, whatever its age: the chain needs a head
    sql = f"SELECT min(id), max(id) FROM main.{LOG} WHERE timestamp < ? AND id < (SELECT max(id) FROM main.{LOG})"
    first, last = rows(connection, sql, (moment,))[0]
    if first is None:
        return Pruned(0, 0, None)
    manifest = None if archive is None else export(connection, archive, compress=True, after=first - 1, until=last, key=key)
    _remove(connection, first, last, manifest)
    return Pruned(first, last, manifest)


def _remove(connection: apsw.Connection, first: int, last: int, manifest: Manifest | None) -> None:
    cursor = apsw.Cursor(connection)
    with stores.transaction(cursor):
        checksum = rows(connection, f"SELECT checksum FROM main.{LOG} WHERE id = ?", (last,))[0][0]
        details = {"from": first, "to": last, "checksum": checksum.hex(), "uuid": log_uuid(connection)}
        if manifest is not None:
            details |= {"archive": manifest.file, "sha256": manifest.sha256, "signer": manifest.signer}
        _without_triggers(
            cursor,
            [f"DELETE FROM main.{LOG} WHERE id BETWEEN {first} AND {last}", f"DELETE FROM main.{VALUES} WHERE event <= {last}"],
        )
        record = event_of("PRUNE", event_class="AUDIT", user=current().user, session_id=current().id, target=LOG, details=details)
        stores.Store().append(cursor, [record])


def _without_triggers(cursor: apsw.Cursor, statements: Sequence[str]) -> None:
    """Run statements that the log's triggers forbid, within the transaction that is open."""
    made = [sql for sql in schemas.statements() if sql.startswith("CREATE TRIGGER")]
    names = cursor.execute("SELECT name FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?", (LOG,)).fetchall()
    for (name,) in names:
        cursor.execute(f'DROP TRIGGER main."{name}"')
    for statement in statements:
        cursor.execute(statement)
    for statement in made:
        cursor.execute(statement)


def erase_values(connection: apsw.Connection, ids: Sequence[int], *, reason: str) -> int:
    """Erase the redactable values of events; what the chain hashes are commitments to them, so it still verifies.

    Args:
        connection: A connection to the database that is not audited, with no transaction open.
        ids: The events.
        reason: Why, such as the clause and the case; it becomes part of an event.

    Returns:
        How many values were erased.
    """
    cursor = apsw.Cursor(connection)
    secure = connection.pragma("secure_delete")
    cursor.execute("PRAGMA secure_delete = ON").fetchall()
    try:
        with stores.transaction(cursor):
            erased = 0
            for number in ids:
                cursor.execute(f"DELETE FROM main.{VALUES} WHERE event = ?", (number,))
                erased += connection.changes()
            details = {"events": list(ids), "values": erased, "reason": reason}
            record = event_of(
                "ERASE VALUES", event_class="AUDIT", user=current().user, session_id=current().id, target=VALUES, details=details
            )
            stores.Store().append(cursor, [record])
    finally:
        connection.pragma("secure_delete", secure)
    return erased
