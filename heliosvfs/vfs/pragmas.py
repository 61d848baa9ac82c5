"""PRAGMA key and PRAGMA rekey, as SQLCipher's users and their ORMs write them.

SQLite hands a PRAGMA to the file (SQLITE_FCNTL_PRAGMA) while the statement is being prepared: it acts even under EXPLAIN, and
may come more than once for one execution, so both are idempotent. The key is SQL text here and reaches whatever hook the
program has set; heliosvfs.connect(key=...) avoids that.
"""

from __future__ import annotations

import re

import apsw

from heliosvfs.errors import UsageError
from heliosvfs.keys import Secret

__all__ = ["check_page_size", "refuse_hot_journal", "secret_of"]

# SQLCipher's notation of a raw key, PRAGMA key = "x'2DD29CA8...'": the form is stated, nothing is guessed
_RAW = re.compile(r"[xX]'([0-9A-Fa-f]*)'")
_RAW_DIGITS = 64


def secret_of(value: str | None) -> Secret:
    """Return the secret that the value of PRAGMA key or rekey stands for.

    Raises:
        UsageError: There is none, it is empty, or it is a raw key of the wrong length.
    """
    if value is None:
        msg = "PRAGMA key needs a value"
        raise UsageError(msg)
    raw = _RAW.fullmatch(value)
    if raw is None:
        return Secret.passphrase(value)
    if len(raw[1]) != _RAW_DIGITS:
        msg = (
            f"a raw key in PRAGMA key is x'...' with {_RAW_DIGITS} hexadecimal digits; this one has {len(raw[1])} "
            "(SQLCipher's form with a salt is not supported)"
        )
        raise UsageError(msg)
    return Secret.raw(bytes.fromhex(raw[1]))


def check_page_size(value: str, page_size: int, path: str) -> None:
    """Refuse PRAGMA page_size with another size than the database has: VACUUM can't change it here.

    Raises:
        UsageError: The size differs.
    """
    if value.isascii() and value.strip().isdigit() and int(value) not in (0, page_size):
        msg = (
            f"{path} has pages of {page_size} bytes, and that is fixed when an encrypted database is created; "
            "to change it, copy the database: `heliosvfs decrypt`, then `heliosvfs encrypt --page-size`"
        )
        raise UsageError(msg)


def refuse_hot_journal(base: str, path: str) -> None:
    """Refuse to take a write lock beside a journal that has not been rolled back: others would take it for a live one.

    Raises:
        UsageError: There is such a journal.
    """
    journal = path + "-journal"
    try:
        file = apsw.VFSFile(base, journal, [apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_READONLY, 0])
    except apsw.CantOpenError:
        return
    try:
        if file.xRead(8, 0).strip(b"\0"):
            msg = f"{path} needs recovery first: read from it (SELECT), then change the key"
            raise UsageError(msg)
    finally:
        file.xClose()
