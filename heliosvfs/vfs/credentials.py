"""What a caller presents for the next database that SQLite opens on its behalf.

SQLite opens files in its own time and hands the VFS a name and flags, nothing else, so the key travels beside the call: set for
the current thread by `presenting`, taken by the first main-database file that is opened there, and gone when the call ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from heliosvfs.keys import KdfSettings, Secret

__all__ = ["Credential", "presenting", "take"]


@dataclass(frozen=True)
class Credential:
    """A secret and how to use it.

    Attributes:
        secret: Opens an existing file; becomes the first key slot of a new one. None: whoever opens it will say later.
        settings: Cost of a new slot's KDF, and whether FIPS mode is on.
        label: Label of a new file's first slot.
        create: False refuses an empty file instead of making a database of it.
    """

    secret: Secret | None
    settings: KdfSettings = field(default_factory=KdfSettings)
    label: str = "first"
    create: bool = True


class _Presented(threading.local):
    credential: Credential | None = None


_presented = _Presented()


@contextmanager
def presenting(credential: Credential | None) -> Iterator[None]:
    """Give ``credential`` to the next main-database file that this thread opens; None: nothing is presented."""
    before, _presented.credential = _presented.credential, credential
    try:
        yield
    finally:
        _presented.credential = before


def take() -> Credential | None:
    """Return what is presented to this thread, and present it no longer."""
    credential, _presented.credential = _presented.credential, None
    return credential
