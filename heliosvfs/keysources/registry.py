"""Key sources by name, for configurations: ours, and those that other packages declare.

A package adds its own with an entry point whose object is called with the options of the configuration and returns a key source:

    [project.entry-points."heliosvfs.key_sources"]
    smartcard = "acme_keys:SmartcardKey"
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from heliosvfs.errors import KeyUnavailableError, UsageError
from heliosvfs.keyring import KeySource
from heliosvfs.keysources.commands import KeyFromCommand
from heliosvfs.keysources.environment import KeyFromEnvironment
from heliosvfs.keysources.files import KeyFile
from heliosvfs.keysources.keyrings import KeyFromKeyring
from heliosvfs.keysources.pkcs11 import KeyFromPKCS11
from heliosvfs.keysources.vault import KeyFromVault

__all__ = ["GROUP", "key_source", "key_sources"]

GROUP = "heliosvfs.key_sources"

_OURS: dict[str, Callable[..., KeySource]] = {
    "file": KeyFile,
    "environment": KeyFromEnvironment,
    "command": KeyFromCommand,
    "keyring": KeyFromKeyring,
    "pkcs11": KeyFromPKCS11,
    "vault": KeyFromVault,
}


def key_sources() -> list[str]:
    """Return the names of all key sources that are installed."""
    return sorted({*_OURS, *(point.name for point in entry_points(group=GROUP))})


def key_source(name: str, /, **options: Any) -> KeySource:
    """Make a key source by its name; ours can't be replaced by another package's.

    Raises:
        UsageError: There is none of that name, it does not take these options, or what it makes is no key source.
        KeyUnavailableError: The package that declares it can't be loaded.
    """
    make = _OURS.get(name)
    if make is None:
        found = list(entry_points(group=GROUP, name=name))
        if not found:
            msg = f"there is no key source named {name!r}; there are {', '.join(key_sources())}"
            raise UsageError(msg)
        if len({point.value for point in found}) > 1:
            msg = f"several packages declare a key source named {name!r}: {', '.join(sorted(point.value for point in found))}"
            raise UsageError(msg)
        try:
            make = found[0].load()
        except Exception as error:
            msg = f"the key source {name!r} ({found[0].value}) can't be loaded: {type(error).__name__}"
            raise KeyUnavailableError(msg) from error
    try:
        made = make(**options)
    except TypeError:
        msg = f"the key source {name!r} does not take the options {', '.join(sorted(options)) or 'none'}"
        raise UsageError(msg) from None
    if not isinstance(made, KeySource):
        msg = f"the key source {name!r} made a {type(made).__name__}, which has no method secret()"
        raise UsageError(msg)
    return made
