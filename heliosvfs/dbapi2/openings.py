"""How connect() opens a database: SQLite's own laziness, our VFS, and a key from wherever the program has said."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import apsw

import heliosvfs.opening
from heliosvfs import defaults
from heliosvfs.connection import Connection, is_in_memory
from heliosvfs.dbapi2.errors import error_of_code, raise_translated
from heliosvfs.errors import HeliosError, UsageError
from heliosvfs.keyring import Key, as_secret
from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.vfs import Credential, presenting

__all__ = ["opened"]

_VFS = "heliosvfs"
_LONGEST_WAIT = 2**31 - 1  # milliseconds, SQLite's own limit
_CACHE_KIB = 16384  # as heliosvfs.connect has it: a page in the cache is not decrypted again


def _open(where: str, flags: int, key: Key | None, statements: int) -> Connection:
    credential = None if key is None else Credential(as_secret(key))
    with presenting(credential, where):
        return Connection(where, flags=flags, vfs=_VFS, statementcachesize=statements)


def _connect(where: str, **options: Any) -> Connection:
    """Open a database as `heliosvfs.connect` does; what can't be opened is the same error as it is without audit."""
    try:
        return heliosvfs.opening.connect(where, **options)
    except UsageError as error:
        code = apsw.SQLITE_CANTOPEN
        if isinstance(error.__cause__, (apsw.CantOpenError, apsw.ReadOnlyError)):
            code = error.__cause__.extendedresult  # type: ignore[union-attr]
        elif not os.path.exists(where) or os.path.isfile(where):
            raise
        raise error_of_code(code, f"unable to open database file: {error}") from error


def opened(  # noqa: PLR0913 - connect's own options
    database: Any, *, timeout: float, uri: bool, statements: int, key: Key | None, config: Any, audit: Any
) -> Connection:
    """Open a database.

    Args:
        database: Its path, or a URI.
        timeout: Seconds to wait for a lock.
        uri: The path may be a URI.
        statements: How many statements are kept prepared.
        key: Its key; None: whatever `heliosvfs.configure` or the environment says. In-memory databases need none.
        config: A configuration; None: whatever `heliosvfs.configure` or the environment says.
        audit: What is audited; None: what the configuration says.

    Raises:
        OperationalError: It can't be opened.
        DatabaseError: It is not encrypted, or the key does not open it.
        OperationalError: The configuration can't be used.
    """
    where = os.fsdecode(database)
    try:
        if "\0" in where:
            msg = "embedded null byte"
            raise ValueError(msg)  # noqa: TRY301 - raised again as it is
        milliseconds = int(min(timeout * 1000, _LONGEST_WAIT)) if timeout > 0 else 0
        in_memory = is_in_memory(where) if uri else where in ("", ":memory:")
        config = defaults.default_config() if config is None else config
        if config is None and key is None and not in_memory:
            key = defaults.default_key()
        if config is not None and key is None:
            key = defaults.configured_key()
        if audit is not None or config is not None:
            if not uri and where.startswith("file:"):
                where = os.path.abspath(where)  # a file name: heliosvfs.connect takes what begins so for a URI
            return _connect(where, key=key, config=config, audit=audit, busy_timeout=milliseconds / 1000)
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | (apsw.SQLITE_OPEN_URI if uri else 0)
        connection = _open(where, flags, key, statements)
        connection.set_busy_timeout(milliseconds)
        if in_memory:
            connection.reserve_bytes("main", RESERVED_BYTES)  # so that it can be backed up into an encrypted file
        else:
            # what can't be read yet, for want of a key or of a lock, is not read: the first statement will say so
            with suppress(apsw.Error, HeliosError):
                connection.pragma("cache_size", -_CACHE_KIB)
    except apsw.CantOpenError as error:
        raise error_of_code(error.extendedresult, "unable to open database file") from None  # type: ignore[attr-defined]
    except Exception as error:  # noqa: BLE001 - raised again, translated
        raise_translated(error)
    return connection
