"""Varints and records: the bytes of one row (SQLite file format, sections 1.6 and 2.1)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TypeAlias

from heliosvfs.errors import HeliosError

__all__ = [
    "ENCODINGS",
    "MalformedError",
    "UndecodableText",
    "Value",
    "decode_record",
    "field_count",
    "guess_encoding",
    "read_varint",
]

ENCODINGS = {1: "utf-8", 2: "utf-16-le", 3: "utf-16-be"}  # by the number at offset 56 of the database header

MAX_FIELDS = 32767  # SQLITE_MAX_COLUMN can't be raised further
_VARINT_BYTES = 9
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)  # by serial type 0 to 6
_FLOAT = 7
_ZERO, _ONE = 8, 9
_FIRST_BLOB = 12  # even types from here on are blobs, odd ones text


class MalformedError(HeliosError):
    """Bytes that SQLite would not have written where they were found."""


class UndecodableText(bytes):
    """A text value whose bytes are not valid in the database's encoding; SQLite stores such text without complaint."""

    __slots__ = ()


Value: TypeAlias = "int | float | str | bytes | None"


def read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """Return the varint at ``offset``, as an unsigned 64-bit integer, and the offset behind it.

    Raises:
        MalformedError: The bytes end within it.
    """
    if offset < len(data) and data[offset] < 0x80:  # noqa: PLR2004 - the bit that says "more follows"; most have one byte
        return data[offset], offset + 1
    value = 0
    for position, byte in enumerate(data[offset : offset + _VARINT_BYTES], 1):
        if position == _VARINT_BYTES:
            return value << 8 | byte, offset + position
        value = value << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004 - the bit that says "more follows"
            return value, offset + position
    msg = "a varint is cut short"
    raise MalformedError(msg)


def _serial_types(data: bytes) -> tuple[list[int], int]:
    """Return the serial types of a record and the length of its header.

    Raises:
        MalformedError: The header is cut short, too long, or names a reserved type.
    """
    length, offset = read_varint(data, 0)
    if not offset <= length <= len(data):
        msg = f"a record of {len(data)} bytes claims a header of {length}"
        raise MalformedError(msg)
    types: list[int] = []
    header = data[:length]
    while offset < length:
        kind, offset = read_varint(header, offset)
        if kind in (10, 11):
            msg = f"a record uses the reserved serial type {kind}"
            raise MalformedError(msg)
        types.append(kind)
        if len(types) > MAX_FIELDS:
            msg = f"a record has more than {MAX_FIELDS} fields"
            raise MalformedError(msg)
    return types, length


def field_count(data: bytes) -> int:
    """Return the number of fields of a record, from its first bytes: its header must be whole.

    Raises:
        MalformedError: The header is not whole or not valid.
    """
    return len(_serial_types(data)[0])


def decode_record(data: bytes, encoding: str) -> tuple[Value, ...]:
    """Decode a whole record.

    Args:
        data: The payload of a cell, overflow pages included.
        encoding: The database's text encoding, a value of `ENCODINGS`.

    Returns:
        The fields in stored order; text that is not valid in the encoding is an `UndecodableText`.

    Raises:
        MalformedError: Header and body do not fit each other.
    """
    types, offset = _serial_types(data)
    values: list[Value] = []
    for kind in types:
        if kind in (_ZERO, _ONE):
            values.append(kind - _ZERO)
            continue
        size = (kind - _FIRST_BLOB) >> 1 if kind >= _FIRST_BLOB else 8 if kind == _FLOAT else _INTEGER_BYTES[kind]
        field = data[offset : offset + size]
        offset += size
        if offset > len(data):
            msg = f"a record of {len(data)} bytes claims a field that ends at {offset}"
            raise MalformedError(msg)
        if kind == 0:
            values.append(None)
        elif kind < _FLOAT:
            values.append(int.from_bytes(field, "big", signed=True))
        elif kind == _FLOAT:
            values.append(float(struct.unpack(">d", field)[0]))
        else:
            values.append(_text(field, encoding) if kind & 1 else field)
    if offset != len(data):
        msg = f"a record of {len(data)} bytes has fields for {offset}"
        raise MalformedError(msg)
    return tuple(values)


def guess_encoding(texts: Iterable[bytes]) -> str:
    """Return the encoding that makes most sense of some text values.

    UTF-8 text seldom has NUL characters, and UTF-16 text is seldom valid UTF-8 without them; of the two orders of bytes that
    one is right in which the characters come from fewer blocks.
    """
    texts = list(texts)
    plain = sum(b"\0" not in text and isinstance(_text(text, ENCODINGS[1]), str) for text in texts)
    if 2 * plain >= len(texts):
        return ENCODINGS[1]
    joined = b"".join(text for text in texts if len(text) % 2 == 0)
    return ENCODINGS[2] if len(set(joined[1::2])) <= len(set(joined[::2])) else ENCODINGS[3]


def _text(field: bytes, encoding: str) -> str | UndecodableText:
    try:
        return field.decode(encoding)
    except UnicodeDecodeError:
        return UndecodableText(field)
