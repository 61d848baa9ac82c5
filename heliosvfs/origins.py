"""What a backup says of itself: the member ``backup_of`` of its superblock (docs/FORMAT.md), under the superblock's HMAC."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import apsw
import msgspec

from heliosvfs.connection import Connection
from heliosvfs.errors import HeliosError
from heliosvfs.keyring import Keyring
from heliosvfs.superblock import Superblock
from heliosvfs.vfs import HeliosVFS, files_of
from heliosvfs.write_locks import write_lock

__all__ = ["Backup", "Origin", "backups_in", "name_in", "note_origin", "origin_of"]

_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"-\d{8}T\d{6}Z(?:-\d+)?$")  # what follows the database's name in that of a backup
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_MEMBER = "backup_of"


class Origin(msgspec.Struct, frozen=True):
    """What the superblock of a backup says of it.

    Attributes:
        uuid: UUID of the database that was copied.
        created: When its content was that of the backup, UTC ISO 8601.
    """

    uuid: str
    created: str


@dataclass(frozen=True)
class Backup:
    """A backup as its header describes it; without its key that is not verified.

    Attributes:
        path: The file.
        source_uuid: UUID of the database that was copied.
        created: When that was, UTC.
    """

    path: str
    source_uuid: str
    created: datetime


def backups_in(folder: str | os.PathLike[str], source_uuid: str | None = None) -> list[Backup]:
    """Return the backups in a folder, the newest first, as their headers describe them; other files are passed over.

    Args:
        folder: The folder.
        source_uuid: Only those of the database with this UUID.
    """
    found = []
    with _headers() as vfs:
        for path in sorted(Path(folder).iterdir()):
            if path.suffix == ".partial" or not path.is_file():
                continue
            origin = _header_of(path, vfs)
            if origin is not None and source_uuid in (None, origin.uuid):
                found.append(Backup(os.fspath(path), origin.uuid, _time(origin.created)))
    return sorted(found, key=lambda item: (item.created, item.path), reverse=True)


def name_in(folder: str, source: str, created: str) -> str:
    """Return a path in ``folder`` that is free, named after the database and the time of its backup."""
    name = Path(source)
    stem = f"{_NAME.sub('', name.stem)}-{_time(created).strftime(_STAMP)}"
    tries = (f"{stem}{mark}{name.suffix}" for mark in ("", *(f"-{number}" for number in range(2, 1000))))
    return next(path for path in (os.path.join(folder, name) for name in tries) if not os.path.exists(path))


def origin_of(superblock: Superblock) -> Origin | None:
    """Return what a superblock says of the database that it is a backup of, None if that is nothing that makes sense."""
    try:
        origin = msgspec.convert(superblock.unknown.get(_MEMBER), Origin)
        _time(origin.created)
    except (msgspec.ValidationError, ValueError):
        return None
    return origin


def note_origin(dest: Connection, origin: Origin) -> None:
    """Write into a database's superblock what it is a backup of."""

    def note(superblock: Superblock) -> Superblock:
        return msgspec.structs.replace(superblock, unknown={**superblock.unknown, _MEMBER: msgspec.to_builtins(origin)})

    with write_lock(dest):
        files_of(dest)[0].update_superblock(note)


def _time(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=timezone.utc)


@contextlib.contextmanager
def _headers() -> Iterator[str]:
    """Give a VFS that has no key at all, so that headers are read and nothing is asked."""
    vfs = HeliosVFS(f"heliosvfs-headers-{os.urandom(8).hex()}", keyring=Keyring())
    try:
        yield vfs.name
    finally:
        vfs.unregister()


def _header_of(path: Path, vfs: str) -> Origin | None:
    try:
        connection = apsw.Connection(os.fspath(path.absolute()), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
    except (HeliosError, apsw.Error, UnicodeEncodeError):  # SQLite opens no file whose name is not valid UTF-8
        return None
    with contextlib.closing(connection):
        access = files_of(connection)[0].access
        return None if access.is_empty else origin_of(access.superblock)
