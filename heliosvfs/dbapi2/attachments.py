"""ATTACH in SQL: the attached file is opened, or created, under the key of the connection's own database.

SQLite's ATTACH names no key that reaches a VFS, and leaves no room for the seals of a new file. Where the connection's database
is in memory, the attached file gets the key that connect() would give it (`heliosvfs.defaults`).
"""

from __future__ import annotations

import re
from typing import Any

import apsw

from heliosvfs import defaults
from heliosvfs.errors import UsageError
from heliosvfs.keyring import as_secret
from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.vfs import Credential, files_of, presenting

__all__ = ["attach"]

_ATTACH = re.compile(r"ATTACH\s+(?:DATABASE\s+)?(?P<file>.+?)\s+AS\s+(?P<name>\S+)\s*;?\s*$", re.IGNORECASE | re.DOTALL)
_QUIET = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)  # literals and comments
_KEYED = re.compile(r"""\bAS\s+(?:"[^"]*"|\[[^]]*\]|`[^`]*`|[?:@$]?\w*)\s+KEY\b""", re.IGNORECASE)
_PLACEHOLDERS = ("?", ":", "@", "$")
_FIRST_ATTACHED = 2  # main and temp come before


def _credential(db: apsw.Connection) -> Credential | None:
    files = files_of(db)
    if files and files[0].access.credential is not None:
        return files[0].access.credential
    key = defaults.default_key()
    return None if key is None else Credential(as_secret(key))


def _file_of(db: apsw.Connection, sql: str, parameters: Any) -> str | None:
    """Return the name of the file that a statement attaches, None if that can't be told."""
    match = _ATTACH.search(sql)
    if match is None:
        return None
    also = f", {match['name']}" if match["name"].startswith(_PLACEHOLDERS) else ""
    reader = apsw.Cursor(db)
    reader.exec_trace = None  # nothing is read of the database
    try:
        row = reader.execute(f"SELECT {match['file']}{also}", parameters).fetchone()
    except apsw.Error:  # an unquoted name, say: SQLite takes it, and no key is presented for it
        return None
    return row[0] if row and isinstance(row[0], str) else None


def attach(cursor: apsw.Cursor, db: apsw.Connection, sql: str, parameters: Any) -> None:
    """Execute an ATTACH.

    Raises:
        KeyUnavailableError, WrongKeyError, FormatError: As `heliosvfs.connect`, for the attached file.
        UsageError: It has a KEY clause, which SQLite would ignore.
    """
    if _KEYED.search(_QUIET.sub(lambda found: "?" if found[0][0] == "'" else " ", sql)):
        msg = (
            "SQLite ignores the KEY clause of ATTACH, so it is refused: without it the attached file takes the key of this "
            "connection; for another key add that to heliosvfs.default_keyring and name it, ATTACH 'file:...?heliosvfs_key=NAME'"
        )
        raise UsageError(msg)
    where = _file_of(db, sql, parameters)
    with presenting(None if where is None else _credential(db), where or ""):
        cursor.execute(sql, parameters)
    for name in db.db_names()[_FIRST_ATTACHED:]:
        db.reserve_bytes(name, RESERVED_BYTES)
