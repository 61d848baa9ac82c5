"""Old events leave the log for an archive, and the chain still verifies (AUDIT.md, "Retention").

The log is verified and the archive written from one state of it, and the archive is durable before anything is removed; then the
removal and its record are committed together, if these events are still there. The prune record holds the checksum of the last
event that was removed, which the first one that stays is chained to.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import apsw

from heliosaudit import schemas, stores
from heliosaudit.checkpoints import SigningKey
from heliosaudit.errors import AuditError, AuditPolicyError
from heliosaudit.events import event_of
from heliosaudit.exports import Manifest, discard, event_for, files_of, snapshot, write
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
        days: Events younger than this stay; 1 at least.
        archive: File to write them to, as gzipped JSON Lines, with the redactable values beside it in a file of their own; None
            removes them without, which ``lockdown`` forbids.
        key: Signs the archive's manifest.
        floor: Days that the policy keeps events at least.
        lockdown: Whether the policy forbids removal without a signed archive.
        now: The time to count from, with its time zone; None: the present.

    Raises:
        AuditPolicyError: The policy keeps these events, or wants a signed archive; or the days or the time can't be used.
        AuditError: Somebody else has pruned the log or erased values meanwhile; nothing was removed, and no archive is left. Or:
            COMMIT failed, and whether the events were removed can't be found out; the archive is there, and the message names it.
        ChainBrokenError: The log does not verify: nothing is removed from a broken log.
        apsw.Error: The log can't be read or written, as where the disk is full; nothing was removed, and no archive is left.
        OSError: The archive can't be written; the same.
    """
    moment = _moment(days, now)
    if floor is not None and days < floor:
        msg = f"the policy keeps events for {floor} days: they can't be removed after {days}"
        raise AuditPolicyError(msg)
    if lockdown and (archive is None or key is None):
        msg = "audit_trail_lockdown removes events only into a signed archive: name the archive and the key"
        raise AuditPolicyError(msg)
    with snapshot(connection):
        verify(connection).raise_if_broken()
        # the last event stays, whatever its age: the chain needs a head
        sql = f"SELECT min(id), max(id) FROM main.{LOG} WHERE timestamp < ? AND id < (SELECT max(id) FROM main.{LOG})"
        first, last = rows(connection, sql, (moment,))[0]
        if first is None:
            return Pruned(0, 0, None)
        seen = _state(connection, first, last)
        manifest = None
        if archive is not None:
            manifest = write(connection, archive, compress=True, after=first - 1, until=last, key=key, with_values=True)
    _remove(connection, first, last, seen, archive, manifest)
    return Pruned(first, last, manifest)


def _moment(days: int, now: datetime | None) -> str:
    """Return the time before which events go, as the log has it.

    Raises:
        AuditPolicyError: It can't be computed.
    """
    if days < 1:
        msg = f"events are kept for a day at least, not for {days}"
        raise AuditPolicyError(msg)
    if now is not None and now.utcoffset() is None:
        msg = "the time to count from has no time zone: datetime.now(timezone.utc) has one"
        raise AuditPolicyError(msg)
    try:
        limit = (now or datetime.now(timezone.utc)).astimezone(timezone.utc) - timedelta(days=days)
    except OverflowError as error:
        msg = f"{days} days ago is before the year 1"
        raise AuditPolicyError(msg) from error
    # not strftime, whose %Y has fewer than four digits before the year 1000
    return f"{limit.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _state(connection: apsw.Connection, first: int, last: int) -> tuple[object, ...]:
    """Return what is another once somebody has pruned these events or erased values of theirs."""
    return (
        *rows(connection, f"SELECT min(id) FROM main.{LOG}"),
        *rows(connection, f"SELECT checksum FROM main.{LOG} WHERE id = ?", (last,)),
        *rows(connection, f"SELECT count(*) FROM main.{VALUES} WHERE event BETWEEN ? AND ?", (first, last)),
    )


def _require_state(connection: apsw.Connection, first: int, last: int, seen: tuple[object, ...]) -> None:
    if _state(connection, first, last) != seen:
        msg = f"somebody else has pruned the log, or erased values of events {first} to {last}, meanwhile: prune again"
        raise AuditError(msg)


def _remove(  # noqa: PLR0913 - what is removed, and where it was moved to
    connection: apsw.Connection,
    first: int,
    last: int,
    seen: tuple[object, ...],
    archive: str | os.PathLike[str] | None,
    manifest: Manifest | None,
) -> None:
    cursor = apsw.Cursor(connection)
    committing = False
    try:
        with stores.transaction(cursor):
            _require_state(connection, first, last, seen)
            _remove_recorded(connection, cursor, first, last, manifest)
            connection.cache_flush()  # where there is no room for it, that is known while nothing can have been committed
            committing = True
    except BaseException as error:
        if archive is None or manifest is None:
            raise
        if not committing or _is_undone(connection, first, last, seen):
            discard(archive, manifest)
        elif isinstance(error, Exception):
            raise _in_doubt(first, last, archive, manifest, error) from error
        raise


def _is_undone(connection: apsw.Connection, first: int, last: int, seen: tuple[object, ...]) -> bool:
    """Tell whether a removal whose COMMIT has failed is undone for good: a later commit, on the disk, that still had the events.

    To read them is not enough: what failed may be in the WAL as a whole, and found there by whoever recovers it.
    """
    cursor = apsw.Cursor(connection)
    try:
        level = connection.pragma("synchronous")
        connection.pragma("synchronous", "FULL")
        try:
            with stores.transaction(cursor):
                if _state(connection, first, last) != seen:
                    return False
                # a write that changes nothing
                cursor.execute(f"PRAGMA main.user_version = {connection.pragma('user_version')}")
        finally:
            connection.pragma("synchronous", level)
    except Exception:  # noqa: BLE001 - whatever it is, it leaves the question open
        return False
    return True


def _in_doubt(first: int, last: int, archive: str | os.PathLike[str], manifest: Manifest, error: BaseException) -> AuditError:
    files = ", ".join(files_of(archive, manifest))
    return AuditError(
        f"whether events {first} to {last} were removed is not known: {error}. They are in {files}: keep these files if the log "
        f"begins with event {last + 1} now; if it still begins with event {first}, remove them and prune again"
    )


def _remove_recorded(connection: apsw.Connection, cursor: apsw.Cursor, first: int, last: int, manifest: Manifest | None) -> None:
    """Remove events and record that, in the transaction that is open."""
    checksum = rows(connection, f"SELECT checksum FROM main.{LOG} WHERE id = ?", (last,))[0][0]
    details = {"from": first, "to": last, "checksum": checksum.hex(), "uuid": log_uuid(connection)}
    if manifest is not None:
        details |= {"archive": manifest.file, "sha256": manifest.sha256, "signer": manifest.signer}
        if manifest.values:
            details |= {"values": manifest.values, "values_sha256": manifest.values_sha256}
    _without_triggers(
        cursor,
        [f"DELETE FROM main.{LOG} WHERE id BETWEEN {first} AND {last}", f"DELETE FROM main.{VALUES} WHERE event <= {last}"],
    )
    record = event_of("PRUNE", event_class="AUDIT", user=current().user, session_id=current().id, target=LOG, details=details)
    stores.Store().append(cursor, [record] if manifest is None else [event_for(manifest), record])


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
