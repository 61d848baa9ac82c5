"""SQLite's record format: variable-length integers and rows as bytes (SQLite file format 2.1 and 1.6)."""

from __future__ import annotations

import struct
from typing import TypeAlias

__all__ = ["MalformedError", "Value", "decode_record", "read_varint"]

Value: TypeAlias = "int | float | str | bytes | None"

_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)  # by serial type 0 to 6
_REAL, _ZERO, _ONE, _FIRST_BLOB = 7, 8, 9, 12


class MalformedError(Exception):
    """Bytes that are no part of a well-formed SQLite database."""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at ``at``, unsigned 64 bits, and the offset behind it.

    Raises:
        MalformedError: The data ends within it.
    """
    value = 0
    for i in range(9):
        if at + i >= len(data):
            msg = "a variable-length integer runs past its page"
            raise MalformedError(msg)
        byte = data[at + i]
        if i == 8:  # noqa: PLR2004 - the ninth byte carries eight bits
            return (value << 8) | byte, at + 9
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:  # noqa: PLR2004 - the high bit says that more follows
            return value, at + i + 1
    raise AssertionError  # pragma: no cover - the loop returns


def decode_record(payload: bytes, encoding: str) -> list[Value]:
    """Return the values of a record.

    Args:
        payload: The whole record, overflow included.
        encoding: Python's name of the database's text encoding.

    Raises:
        MalformedError: The header and the body do not fit each other.
    """
    header_size, at = read_varint(payload, 0)
    if not at <= header_size <= len(payload):
        msg = "a record's header runs past its end"
        raise MalformedError(msg)
    values: list[Value] = []
    body = header_size
    while at < header_size:
        kind, at = read_varint(payload, at)
        value, body = _value(payload, body, kind, encoding)
        values.append(value)
    return values


def _value(payload: bytes, at: int, kind: int, encoding: str) -> tuple[Value, int]:
    if kind in (_ZERO, _ONE):
        return kind - _ZERO, at
    if kind < _REAL:
        size = _INTEGER_BYTES[kind]
    elif kind == _REAL:
        size = 8
    elif kind >= _FIRST_BLOB:
        size = (kind - _FIRST_BLOB) // 2
    else:
        msg = f"serial type {kind} does not exist"
        raise MalformedError(msg)
    raw = payload[at : at + size]
    if len(raw) < size:
        msg = "a value runs past the end of its record"
        raise MalformedError(msg)
    value: Value
    if kind == 0:
        value = None
    elif kind < _REAL:
        value = int.from_bytes(raw, "big", signed=True)
    elif kind == _REAL:
        value = struct.unpack(">d", raw)[0]
    elif kind % 2 == 0:
        value = raw
    else:
        value = raw.decode(encoding, "replace")
    return value, at + size
