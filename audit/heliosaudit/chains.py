"""The hash chain: each event's checksum binds its id, its record and the checksum before it (AUDIT.md, "The chain").

    checksum(n) = SHA-256(checksum(n - 1) || n as 8 bytes, big-endian || record(n) in UTF-8)

The checksum before the first event is `ROOT`. The first event is a genesis record that holds a UUID of its own, so that no two
chains are alike.
"""

from __future__ import annotations

import hashlib

__all__ = ["ROOT", "checksum"]

ROOT = bytes(32)
_sha256 = hashlib.sha256


def checksum(previous: bytes, number: int, record: bytes) -> bytes:
    """Return the checksum of an event: 32 bytes.

    Args:
        previous: The 32 bytes of the event before.
        number: Id of the event.
        record: Its encoded record.
    """
    return _sha256(previous + number.to_bytes(8, "big") + record).digest()
