"""Opening a database once more in another process, for reading: what is pickled holds the secret, and goes through a pipe."""

from __future__ import annotations

import os
from dataclasses import dataclass

from heliosvfs.connection import Connection
from heliosvfs.keyring import Key, as_secret
from heliosvfs.keys import Secret
from heliosvfs.opening import open_untouched

__all__ = ["Reopening"]


@dataclass(frozen=True)
class Reopening:
    """Opens an encrypted database for reading.

    Attributes:
        path: The file.
        secret: What opens it.
    """

    path: str
    secret: Secret

    @classmethod
    def of(cls, path: str | os.PathLike[str], key: Key) -> Reopening:
        """Take a database and its key; a key source is asked now."""
        return cls(os.path.abspath(path), as_secret(key))

    def __call__(self) -> Connection:
        """Open it."""
        return open_untouched(self.path, key=self.secret)
