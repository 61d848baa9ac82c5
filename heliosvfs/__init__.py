"""heliosvfs: SQLite databases, encrypted page by page with AES-256-GCM.

    import heliosvfs

    connection = heliosvfs.connect("clinic.db", key="a passphrase")
    connection.execute("CREATE TABLE IF NOT EXISTS patient(id INTEGER PRIMARY KEY, name TEXT)")

Importing the package registers the VFS "heliosvfs" over the default VFS of that moment, with an empty keyring:
`default_keyring`.
"""

from __future__ import annotations

from heliosaudit import session
from heliosvfs import audit
from heliosvfs.audited import AuditedConnection
from heliosvfs.config import Config
from heliosvfs.connection import Connection, KeySlot
from heliosvfs.defaults import configure
from heliosvfs.embedded import EmbeddedDatabase
from heliosvfs.errors import (
    ConfigError,
    DiskFullError,
    FormatError,
    HeliosError,
    KeyUnavailableError,
    PolicyViolationError,
    RefusedWriteError,
    TamperedError,
    UnsupportedVersionError,
    UsageError,
    WrongKeyError,
)
from heliosvfs.keyring import Keyring, KeySource
from heliosvfs.keys import KdfSettings, Secret
from heliosvfs.keysources import (
    CachedKey,
    KeyFile,
    KeyFromCommand,
    KeyFromEnvironment,
    KeyFromKeyring,
    KeyFromPKCS11,
    KeyFromVault,
    key_source,
)
from heliosvfs.opening import connect
from heliosvfs.rotation import RotationUnfinishedError
from heliosvfs.vfs import HeliosVFS

__all__ = [
    "AuditedConnection",
    "CachedKey",
    "Config",
    "ConfigError",
    "Connection",
    "DiskFullError",
    "EmbeddedDatabase",
    "FormatError",
    "HeliosError",
    "HeliosVFS",
    "KdfSettings",
    "KeyFile",
    "KeyFromCommand",
    "KeyFromEnvironment",
    "KeyFromKeyring",
    "KeyFromPKCS11",
    "KeyFromVault",
    "KeySlot",
    "KeySource",
    "KeyUnavailableError",
    "Keyring",
    "PolicyViolationError",
    "RefusedWriteError",
    "RotationUnfinishedError",
    "Secret",
    "TamperedError",
    "UnsupportedVersionError",
    "UsageError",
    "WrongKeyError",
    "__version__",
    "audit",
    "configure",
    "connect",
    "default_keyring",
    "key_source",
    "session",
]

__version__ = "0.1.0"

default_keyring = Keyring()
_default_vfs = HeliosVFS(keyring=default_keyring)
