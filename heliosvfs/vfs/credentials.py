"""What a caller presents for the next database that SQLite opens on its behalf.

SQLite opens files in its own time and hands the VFS a name and flags, nothing else, so the key travels beside the call: set for
the current thread by `presenting`, taken by the main-database file of that name when it is opened there, and gone when the call
ends. Another file that is opened meanwhile, by a trace hook of the program say, gets nothing.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

import apsw

from heliosvfs.keys import KdfSettings, Secret

__all__ = ["Credential", "names", "presenting", "take"]


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
    where: str = ""
    credential: Credential | None = None


_presented = _Presented()


@contextmanager
def presenting(credential: Credential | None, where: str) -> Iterator[None]:
    """Give ``credential`` to one main-database file that this thread opens.

    Args:
        credential: What to give; None: nothing is presented.
        where: The file's name as SQLite gets it, a URI too.
    """
    before = _presented.where, _presented.credential
    _presented.where, _presented.credential = where, credential
    try:
        yield
    finally:
        _presented.where, _presented.credential = before


def take(path: str, full: Callable[[str], str]) -> Credential | None:
    """Return what is presented to this thread for a file, and present it no longer.

    Args:
        path: Full path of the file.
        full: Turns a name into a full path, as SQLite had it done for this file.
    """
    if _presented.credential is None or not any(_leads_to(name, path, full) for name in names(_presented.where)):
        return None
    credential, _presented.credential = _presented.credential, None
    return credential


def _leads_to(name: str, path: str, full: Callable[[str], str]) -> bool:
    try:
        return full(name) == path
    except apsw.Error:  # a name that the VFS refuses is not that of a file which it is opening
        return False


def names(where: str) -> Iterator[str]:
    """Give the file names that ``where`` may stand for: a connection without SQLITE_OPEN_URI takes a URI literally."""
    if where.startswith("file:"):
        path = re.split(r"[?#]", where.removeprefix("file:"), maxsplit=1)[0]
        if path.startswith("//"):  # an authority, which is empty or localhost (https://sqlite.org/uri.html)
            path = "/" + path[2:].partition("/")[2]
        yield os.fsdecode(unquote_to_bytes(os.fsencode(path)))
    yield where
