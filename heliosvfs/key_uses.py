"""Note in a key slot the day of its last use, for databases whose owners ask for that.

It is a change of the superblock, so it is made at most once a day for a slot, and never by itself.
"""

from __future__ import annotations

from datetime import datetime, timezone

import apsw
import msgspec.structs

from heliosvfs.connection import Connection
from heliosvfs.superblock import Superblock
from heliosvfs.write_locks import write_lock

__all__ = ["note_use"]


def note_use(connection: Connection, *, schema: str = "main", at: datetime | None = None) -> bool:
    """Note that the key slot which this connection was opened with was used today.

    Args:
        connection: A connection, outside of any transaction.
        schema: Which of its databases.
        at: The time; None: the clock's.

    Returns:
        Whether it was written: not if the slot says so already, nor if somebody else is writing or the file is read-only.

    Raises:
        UsageError: It is no encrypted database.
    """
    file = connection._file(schema)  # noqa: SLF001 - a Connection knows its files
    file.refresh()
    access = file.access
    presented = access.credential
    slot = access.master.slot_of(None if presented is None else presented.secret, access.superblock.slots)
    day = (at or datetime.now(timezone.utc)).strftime("%Y-%m-%d")
    if slot is None or slot.last_used >= day or connection.readonly(schema) or connection.in_transaction:
        return False
    number = slot.id

    def note(superblock: Superblock) -> Superblock:
        slots = tuple(
            msgspec.structs.replace(each, last_used=max(each.last_used, day)) if each.id == number else each
            for each in superblock.slots
        )
        return msgspec.structs.replace(superblock, slots=slots)

    try:
        with write_lock(connection):
            file.update_superblock(note)
    except apsw.BusyError:
        return False
    return True
