"""Where the key comes from when a program that uses `heliosvfs.dbapi2` says nothing.

In this order: `configure`; a configuration file (`configure(config=...)` or the environment variable HELIOSDB_CONFIG, which a
later release reads and this one refuses); the environment variables HELIOSVFS_KEY_FILE, a file with a raw key, and HELIOSVFS_KEY,
64 hexadecimal digits of a raw key. A passphrase takes a `KeyFile` or `KeyFromEnvironment` that says so: nothing is guessed.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

from heliosvfs.errors import UsageError
from heliosvfs.keyring import Key
from heliosvfs.keysources import KeyFile, KeyFromEnvironment

__all__ = ["configure", "default_key", "refuse_config"]

CONFIG_VARIABLE = "HELIOSDB_CONFIG"
KEY_FILE_VARIABLE = "HELIOSVFS_KEY_FILE"
KEY_VARIABLE = "HELIOSVFS_KEY"

_configured: dict[str, Key] = {}


def configure(*, key: Key | None = None, config: str | os.PathLike[str] | None = None) -> None:
    """Say once for this process what the DB-API's connect() uses when it is told nothing.

    Args:
        key: As for `heliosvfs.connect`; a source is asked anew for each connection. None: nothing is configured any more.
        config: A configuration file.

    Raises:
        UsageError: Configuration files are not supported yet.
    """
    if config is not None:
        refuse_config(config)
    _configured.clear()
    if key is not None:
        _configured["key"] = key


def refuse_config(config: Any) -> NoReturn:
    """Refuse a configuration file: the one place where reading one will begin.

    Raises:
        UsageError: Always.
    """
    msg = f"configuration files are not supported yet: {config} would not be obeyed, so it is refused; give the key instead"
    raise UsageError(msg)


def default_key() -> Key | None:
    """Return the key for a database that none was given for, None if nothing says which.

    Raises:
        UsageError: HELIOSDB_CONFIG is set.
    """
    if _configured:
        return _configured["key"]
    if config := os.environ.get(CONFIG_VARIABLE):
        refuse_config(f"{config} ({CONFIG_VARIABLE})")
    if path := os.environ.get(KEY_FILE_VARIABLE):
        return KeyFile(path)
    if os.environ.get(KEY_VARIABLE):
        return KeyFromEnvironment(KEY_VARIABLE)
    return None
