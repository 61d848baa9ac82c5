"""PRAGMA key and PRAGMA rekey, as SQLCipher's users and their ORMs write them.

SQLite hands a PRAGMA to the file (SQLITE_FCNTL_PRAGMA) while the statement is being prepared: it acts even under EXPLAIN, and
may come more than once for one execution, so both are idempotent. The key is SQL text here and reaches whatever hook the
program has set; heliosvfs.connect(key=...) avoids that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import apsw

from heliosvfs.errors import UsageError
from heliosvfs.keys import Secret
from heliosvfs.vfs import rekeying
from heliosvfs.vfs.credentials import Credential

if TYPE_CHECKING:
    from heliosvfs.vfs.database import DatabaseFile

__all__ = ["answer", "secret_of"]

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


def _check_page_size(value: str, page_size: int, path: str) -> None:
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


def answer(file: DatabaseFile, pragma: apsw.VFSFcntlPragma) -> bool:
    """Do what a PRAGMA asks, and tell whether SQLite has nothing left to do.

    Raises:
        UsageError: Its value can't be used.
        WrongKeyError: The key of PRAGMA key opens no slot.
        TamperedError: It opens one, and the superblock was altered.
    """
    name = pragma.name.lower()
    if name == "key":
        file.present(Credential(secret_of(pragma.value)))
    elif name == "rekey":
        rekeying.rekey(file, Credential(secret_of(pragma.value)))
    else:
        readable = not file.access.is_empty and not file.is_locked
        if name == "page_size" and pragma.value is not None and readable and file.pages.page_count():
            _check_page_size(pragma.value, file.pages.layout.page_size, file.path)
        return False
    pragma.result = "ok"
    return True
