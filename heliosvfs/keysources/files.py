"""A key in a file."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from heliosvfs.errors import KeyUnavailableError
from heliosvfs.keys import Secret
from heliosvfs.keysources.forms import LARGEST, raw_or_passphrase

__all__ = ["KeyFile"]


@dataclass(frozen=True)
class KeyFile:
    """A key in a file.

    Args:
        path: The file.
        passphrase: The file holds a passphrase (one line of UTF-8, whose newline does not count) and not a raw key.
        allow_shared: Accept a file that others than its owner may read or write.
    """

    path: str | os.PathLike[str]
    passphrase: bool = False
    allow_shared: bool = False

    def secret(self) -> Secret:
        """Read the key.

        Raises:
            KeyUnavailableError: The file can't be read, others may read it, or it holds no key, or more than one line where it
                holds a passphrase: nobody knows then whether the others belong to it.
        """
        where = f"the key file {os.fspath(self.path)}"
        try:
            with Path(self.path).open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(LARGEST + 1)
        except OSError as error:
            msg = f"{where} can't be read: {error.strerror}"
            raise KeyUnavailableError(msg) from None
        if os.name == "posix" and not self.allow_shared and stat.S_IMODE(mode) & 0o077:
            msg = (
                f"{where} can be used by others than its owner (mode {stat.S_IMODE(mode):04o}): "
                "chmod 600 it, or say KeyFile(..., allow_shared=True)"
            )
            raise KeyUnavailableError(msg)
        return raw_or_passphrase(content, where, passphrase=self.passphrase)
