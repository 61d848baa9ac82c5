"""Where what is in the header of a rollback journal, as SQLite writes it and as it is on disk (FORMAT.md, "Rollback journal")."""

from __future__ import annotations

__all__ = ["COUNT_END", "DURABLE", "FIELDS", "HEADER_END", "MAC_END", "NO_COUNT", "OUR_MAGIC", "SQLITE_MAGIC"]

SQLITE_MAGIC = bytes.fromhex("d9d505f920a163d7")
OUR_MAGIC = b"\0HELIOSJ"
FIELDS = 28  # magic(8) records(4) nonce(4) initial pages(4) sector size(4) page size(4)
COUNT_END = 12  # magic and record count, which syncJournal writes together; zero until the header's records are synced
MAC_END = 60  # the HMAC-SHA-256 takes bytes 28 to 59, in the header's first 512-byte sector
DURABLE = 60  # byte that says whether the counted records were durable before they were counted (synchronous=FULL)
HEADER_END = 61
NO_COUNT = b"\xff" * 4  # record count of a journal that is written without syncs
