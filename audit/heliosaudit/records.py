"""What an event says, and the bytes of it that are hashed (AUDIT.md, "The record").

A record is a JSON array, its fields in the order of `FIELDS`, encoded by msgspec without spaces. These bytes are what the chain
hashes and what the table stores; every other column of the table is generated from them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

__all__ = ["FIELDS", "Record", "decode", "encodable", "encode"]


class Record(NamedTuple):
    """The fields of an event, in the order in which they are encoded.

    Attributes:
        timestamp: When it was written into the chain: UTC, ISO 8601 with microseconds and Z. Never steps back within a chain.
        occurred_at: When it happened, likewise.
        session_id: Of the session, or of the connection where none was set.
        user: Who did it.
        operation: SELECT, INSERT, CREATE TABLE, COMMIT, PRAGMA, ...
        target: Main table or object; "" where there is none.
        query: The SQL with its values, as the policy has them.
        affected_rows: Rows changed, or handed out by a SELECT; None where that is not known.
        success: Whether it succeeded.
        error: Class and message of the error; None where there was none.
        client_ip: From the session.
        application_name: From the session or the policy.
        database_name: Schema name of the database that it concerns.
        execution_time_us: Microseconds from its start to its end.
        event_class: DDL, DML, SELECT, TRANSACTION, AUTH, ADMIN or AUDIT.
        rolled_back: Whether its work was undone after it had succeeded.
        reads: All tables that it read, with their schema names.
        writes: All tables that it wrote, those of triggers included.
        custom: Further fields of the session.
        rows: Row images, where the policy captures them.
        parameters: Commitments to the bound values, where the policy keeps these redactable.
        details: What only some events have, such as counts of a summary.
    """

    timestamp: str
    occurred_at: str
    session_id: str
    user: str
    operation: str
    target: str
    query: str
    affected_rows: int | None
    success: bool
    error: str | None
    client_ip: str | None
    application_name: str | None
    database_name: str | None
    execution_time_us: int | None
    event_class: str
    rolled_back: bool
    reads: list[str]
    writes: list[str]
    custom: dict[str, Any] | None
    rows: list[Any] | None
    parameters: list[str] | None
    details: dict[str, Any] | None


FIELDS = Record._fields

encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Record)


def encodable(value: Any, *, otherwise: Callable[[Any], str] | None = None) -> Any:
    """Return a value that `encode` takes: lone surrogates, as names of files and users may have them, are escaped.

    Args:
        value: The value, or a list or dict of values.
        otherwise: Stands in for what JSON has no word for; None: that is an error.

    Raises:
        TypeError: There is none; no value is quoted.
    """
    if isinstance(value, str):
        return str.__str__(value).encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {
            encodable(name, otherwise=otherwise) if isinstance(name, str) else name: encodable(one, otherwise=otherwise)
            for name, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [encodable(one, otherwise=otherwise) for one in value]
    try:
        encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        if otherwise is None:
            msg = f"{type(value).__name__} is not of its kinds"
            raise TypeError(msg) from None
        return otherwise(value)
    return value


def decode(record: str | bytes) -> Record:
    """Decode the bytes of a record.

    Raises:
        ValueError: They are no record.
    """
    return _decoder.decode(record)
