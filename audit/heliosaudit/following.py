"""Following the chain from one event to the next (AUDIT.md, "The chain")."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apsw

from heliosaudit import chains
from heliosaudit.schemas import LOG

__all__ = ["TIME", "Break", "Head", "Row", "check", "entries", "shown"]

Row = tuple[int, str, bytes]
TIME = slice(2, 29)  # of an encoded record: the time of recording, which is its first field


@dataclass(frozen=True)
class Head:
    """A place in the chain up to which it was verified; to be kept where nobody who can write the database can change it.

    Attributes:
        id: Id of the event.
        checksum: Its checksum.
        timestamp: When it was recorded.
    """

    id: int
    checksum: bytes
    timestamp: str = ""


@dataclass(frozen=True)
class Break:
    """Where the chain does not hold.

    Attributes:
        id: Id of the first event that is wrong, or that should be there.
        kind: "edited", "checksum edited", "missing", "inserted", "reordered", "genesis forged", "clock", "not a record",
            "truncated", "rewritten" or "transplanted".
        expected: What should be there; checksums in hexadecimal.
        found: What is there.
    """

    id: int
    kind: str
    expected: str = ""
    found: str = ""


def check(rows_in_order: Iterable[Row], start: Head) -> tuple[Head, int, Break | None]:
    """Follow the chain over events in the order of their ids.

    Args:
        rows_in_order: Id, encoded record and checksum of each.
        start: The event before the first of them.

    Returns:
        The last event that is right, how many are, and the first break.
    """
    number, previous, last, count = start.id, start.checksum, start.timestamp, 0
    before = b""
    sha256 = hashlib.sha256
    try:
        for found, record, stored in rows_in_order:
            number += 1
            if found != number:
                return Head(number - 1, previous, last), count, Break(number, "missing", f"event {number}", f"event {found}")
            encoded = record.encode()
            due = sha256(previous + number.to_bytes(8, "big") + encoded).digest()  # chains.checksum, without a call
            if due != stored:
                kind = "edited"
                if before and chains.checksum(before, number - 1, encoded) == stored:
                    kind = "inserted"  # this event stood one place further up: the one before it was put in
                    number -= 1
                return Head(number - 1, previous, last), count, Break(number, kind, due.hex(), shown(stored))
            moment = record[TIME]
            if moment < last:
                return Head(number - 1, previous, last), count, Break(number, "clock", f"not before {last}", moment)
            before, previous, last = previous, stored, moment
            count += 1
    except AttributeError:  # no text
        return (
            Head(number - 1, previous, last),
            count,
            Break(number, "not a record", "a text", f"a value of {type(record).__name__}"),
        )
    except UnicodeDecodeError:  # from reading the event after the last that was right
        return Head(number, previous, last), count, Break(number + 1, "not a record", "a text in UTF-8", "bytes that are none")
    return Head(number, previous, last), count, None


def shown(stored: object) -> str:
    """Return what stands in the place of a checksum: in hexadecimal, if it is one."""
    return stored.hex() if isinstance(stored, bytes) else f"no checksum, a value of {type(stored).__name__}"


def entries(connection: apsw.Connection, after: int, until: int) -> Iterator[Row]:
    """Yield the log's rows after one id up to another; only what is hashed is read, never a generated column."""
    sql = f"SELECT id, record, checksum FROM main.{LOG} WHERE id > ? AND id <= ? ORDER BY id"
    yield from connection.cursor().execute(sql, (after, until))
