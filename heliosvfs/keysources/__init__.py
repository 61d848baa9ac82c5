"""Where a key comes from when it is not in the program.

Each source is one small class with one method, `heliosvfs.KeySource.secret`. It is asked when a database is opened, asks once,
does not try again by itself, and keeps nothing; `CachedKey` keeps what another gave for as long as it is told. docs/KEYS.md lists
what each says when it fails.

Sources whose libraries are optional import them when they are asked. Others join in by the entry-point group
"heliosvfs.key_sources" (see `registry`).
"""

from __future__ import annotations

from heliosvfs.keysources.caching import CachedKey
from heliosvfs.keysources.commands import KeyFromCommand
from heliosvfs.keysources.environment import KeyFromEnvironment
from heliosvfs.keysources.files import KeyFile
from heliosvfs.keysources.keyrings import KeyFromKeyring
from heliosvfs.keysources.pkcs11 import KeyFromPKCS11
from heliosvfs.keysources.registry import key_source, key_sources
from heliosvfs.keysources.vault import KeyFromVault

__all__ = [
    "CachedKey",
    "KeyFile",
    "KeyFromCommand",
    "KeyFromEnvironment",
    "KeyFromKeyring",
    "KeyFromPKCS11",
    "KeyFromVault",
    "key_source",
    "key_sources",
]
