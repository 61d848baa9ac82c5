"""The 32-byte header of a WAL, as SQLite writes it and as it is on disk (FORMAT.md, "WAL"), and the WAL's checksums.

On disk it carries a version number of ours: stock SQLite would otherwise find no valid frame in the file, and delete it
(walIndexRecover, sqlite3WalClose). With another version it says CANTOPEN and leaves the file alone.
"""

from __future__ import annotations

import struct

from heliosvfs.errors import FormatError
from heliosvfs.pages import Buffer

__all__ = ["NOWHERE", "NO_COMMIT", "WAL_HEADER", "header_for_sqlite", "header_on_disk", "wal_checksum"]

WAL_HEADER = 32  # bytes; SQLite file format 4.1
NO_COMMIT = bytes(4)  # in bytes 4 to 7 of a frame header: the transaction goes on
NOWHERE = -1  # in place of an offset
_SQLITE_VERSION = 3007000
_OUR_VERSION = 0x48560001  # "HV", format 1


def wal_checksum(data: Buffer, order: str, first: int, second: int) -> tuple[int, int]:
    """Continue SQLite's WAL checksum over ``data``, a multiple of 8 bytes (SQLite file format 4.2, walChecksumBytes).

    Args:
        data: What is summed.
        order: Byte order of its words, ``<`` or ``>``; bit 0 of byte 3 of the WAL's header tells.
        first: First word of the checksum so far.
        second: Second word of the checksum so far.
    """
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for i in range(0, len(words), 2):
        first = (first + words[i] + second) & 0xFFFFFFFF
        second = (second + words[i + 1] + first) & 0xFFFFFFFF
    return first, second


def _checksum(header: bytes) -> bytes:
    """Return the checksum of the first 24 bytes of a WAL header, as SQLite stores it."""
    return struct.pack(">II", *wal_checksum(header[:24], ">" if header[3] & 1 else "<", 0, 0))


def header_on_disk(header: bytes) -> bytes:
    """Return SQLite's WAL header with our version number and a checksum to match."""
    changed = header[:4] + _OUR_VERSION.to_bytes(4, "big") + header[8:24]
    return changed + _checksum(changed)


def header_for_sqlite(header: bytes, path: str) -> bytes:
    """Return a WAL header from disk as SQLite wrote it; one that is torn is returned as it is and fails SQLite's checksum.

    Raises:
        FormatError: The file is a WAL that heliosvfs did not write.
    """
    if len(header) < WAL_HEADER or _checksum(header) != header[24:]:
        return header
    if int.from_bytes(header[4:8], "big") != _OUR_VERSION:
        msg = (
            f"{path} is not a heliosvfs WAL, though it lies beside a heliosvfs database: another program may have written "
            "it; move it away if it does not belong here"
        )
        raise FormatError(msg)
    plain = header[:4] + _SQLITE_VERSION.to_bytes(4, "big") + header[8:24]
    return plain + _checksum(plain)
