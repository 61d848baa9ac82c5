"""A key in an environment variable."""

from __future__ import annotations

import os
from dataclasses import dataclass

from heliosvfs.errors import KeyUnavailableError
from heliosvfs.keys import Secret
from heliosvfs.keysources.forms import raw_or_passphrase

__all__ = ["KeyFromEnvironment"]


@dataclass(frozen=True)
class KeyFromEnvironment:
    """A key in an environment variable.

    Args:
        name: Name of the variable.
        passphrase: It holds a passphrase and not 64 hexadecimal digits.
    """

    name: str
    passphrase: bool = False

    def secret(self) -> Secret:
        """Read the key.

        Raises:
            KeyUnavailableError: The variable is not set, or holds no key.
        """
        where = f"the environment variable {self.name}"
        value = os.environ.get(self.name)
        if not value:
            msg = f"{where} is not set" if value is None else f"{where} is empty"
            raise KeyUnavailableError(msg)
        content = os.fsencode(value)
        return raw_or_passphrase(content, where, passphrase=self.passphrase)
