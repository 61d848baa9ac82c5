"""What a program that uses `heliosvfs.dbapi2` and says nothing gets: a key, and a configuration.

In this order: the arguments of connect(); `configure`; the configuration file that the environment variable HELIOSDB_CONFIG
names; the environment variables HELIOSVFS_KEY_FILE, a file with a raw key, and HELIOSVFS_KEY, 64 hexadecimal digits of a raw
key. A passphrase takes a `KeyFile` or `KeyFromEnvironment` that says so: nothing is guessed.
"""

from __future__ import annotations

import os
from typing import Any

from heliosvfs.keyring import Key
from heliosvfs.keysources import KeyFile, KeyFromEnvironment

__all__ = ["KEY_FILE_VARIABLE", "KEY_VARIABLE", "configure", "configured_key", "default_config", "default_key", "environment_key"]

CONFIG_VARIABLE = "HELIOSDB_CONFIG"
KEY_FILE_VARIABLE = "HELIOSVFS_KEY_FILE"
KEY_VARIABLE = "HELIOSVFS_KEY"

_configured: dict[str, Any] = {}


def configure(*, key: Key | None = None, config: Any = None) -> None:
    """Say once for this process what the DB-API's connect() uses when it is told nothing.

    Args:
        key: As for `heliosvfs.connect`; a source is asked anew for each connection. None: that of the configuration.
        config: A `heliosvfs.Config`, a dict of its sections, or the path of a TOML file, which is read now. None: no
            configuration. With neither, nothing is configured any more.

    Raises:
        ConfigError: The configuration can't be used.
    """
    from heliosvfs.config.applying import config_from  # noqa: PLC0415 - it looks for keys here

    read = None if config is None else config_from(config)
    _configured.clear()
    if key is not None:
        _configured["key"] = key
    if read is not None:
        _configured["config"] = read


def default_config() -> Any:
    """Return the configuration of a connection that none was given for, or the path of its file; None: there is none."""
    if _configured:
        return _configured.get("config")
    return os.environ.get(CONFIG_VARIABLE) or None


def default_key() -> Key | None:
    """Return the key for a database that none was given for, None if nothing but a configuration says which."""
    if _configured:
        return _configured.get("key")
    return environment_key()


def configured_key() -> Key | None:
    """Return the key that `configure` was told, None if none was."""
    return _configured.get("key")


def environment_key() -> Key | None:
    """Return the key that HELIOSVFS_KEY_FILE or HELIOSVFS_KEY names, None if neither is set."""
    if path := os.environ.get(KEY_FILE_VARIABLE):
        return KeyFile(path)
    if os.environ.get(KEY_VARIABLE):
        return KeyFromEnvironment(KEY_VARIABLE)
    return None
