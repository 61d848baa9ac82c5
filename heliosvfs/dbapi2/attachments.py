"""ATTACH and VACUUM INTO in SQL: the further file is opened, or created, under the key of the connection's own database.

SQLite's ATTACH names no key that reaches a VFS, and leaves no room for the seals of a new file. Where the connection's database
is in memory, the further file gets the key that connect() would give it (`heliosvfs.defaults`).
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Any

import apsw

from heliosvfs import defaults
from heliosvfs.errors import KeyUnavailableError, UsageError
from heliosvfs.keyring import as_secret
from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.vfs import Credential, files_of, presenting

__all__ = ["attach"]

_ATTACH = re.compile(r"ATTACH\s+(?:DATABASE\s+)?(?P<file>.+?)\s+AS\s+(?P<name>\S+)\s*;?\s*$", re.IGNORECASE | re.DOTALL)
_INTO = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*VACUUM\b.*?\bINTO\b\s*(?P<file>.+?)\s*;?\s*$", re.IGNORECASE | re.DOTALL)
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
    """Return the name of the file that a statement opens, None if that can't be told."""
    match = _INTO.match(sql) or _ATTACH.search(sql)
    if match is None:
        return None
    name = match.groupdict().get("name", "")
    also = f", {name}" if name.startswith(_PLACEHOLDERS) else ""
    reader = apsw.Cursor(db)
    reader.exec_trace = None  # nothing is read of the database
    try:
        row = reader.execute(f"SELECT {match['file']}{also}", parameters).fetchone()
    except apsw.Error:  # an unquoted name, say: SQLite takes it, and no key is presented for it
        return None
    return row[0] if row and isinstance(row[0], str) else None


def _vacuum_into(cursor: apsw.Cursor, db: apsw.Connection, sql: str, parameters: Any, where: str) -> None:
    """Execute a VACUUM INTO; the VFS itself gives the copy the key of a database that is a file."""
    is_new = bool(where) and not os.path.exists(where)
    with presenting(None if files_of(db) or "heliosvfs_key=" in where else _credential(db), where):
        try:
            cursor.execute(sql, parameters)
        except KeyUnavailableError:
            if is_new and os.path.isfile(where) and not os.path.getsize(where):
                for left in (where, f"{where}-journal"):
                    with suppress(OSError):
                        os.remove(left)
            raise


def attach(cursor: apsw.Cursor, db: apsw.Connection, sql: str, parameters: Any) -> None:
    """Execute an ATTACH, or a VACUUM INTO.

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
    if _INTO.match(sql):
        _vacuum_into(cursor, db, sql, parameters, where or "")
        return
    with presenting(None if where is None else _credential(db), where or ""):
        cursor.execute(sql, parameters)
    for name in db.db_names()[_FIRST_ATTACHED:]:
        db.reserve_bytes(name, RESERVED_BYTES)
