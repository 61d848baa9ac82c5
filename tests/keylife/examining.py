"""What is on disk after a rotation, seen from outside: which epochs pages name, and whether an old key opens any of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

import heliosvfs
from heliosvfs.keys import unwrap_epoch
from heliosvfs.superblock import COPY_SIZE, Superblock, parse_copy
from heliosvfs.vfs import files_of

__all__ = ["KEY", "copies", "database", "epoch_keys", "epochs_on_disk", "opened_by", "sealed_pages"]

KEY = bytes(range(32))


def database(path: Path, mode: str = "wal", *, rows: int = 300, page_size: int = 1024) -> heliosvfs.Connection:
    """Make a database with some content, free pages and a spare key."""
    connection = heliosvfs.connect(path, key=KEY, page_size=page_size, journal_mode=mode, cache_mb=0.1)
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)")
    with connection:
        connection.executemany("INSERT INTO t VALUES(?, randomblob(900))", ((number,) for number in range(rows)))
    connection.execute("DELETE FROM t WHERE id % 7 = 0")
    connection.add_key(b"2" * 32, label="spare")
    return connection


def copies(path: Path) -> list[Superblock]:
    """Return both copies of the superblock."""
    with path.open("rb") as file:
        data = file.read(2 * COPY_SIZE)
    return [parse_copy(data[COPY_SIZE * i : COPY_SIZE * (i + 1)], i).superblock for i in (0, 1)]


def epoch_keys(connection: heliosvfs.Connection) -> dict[int, bytes]:
    """Return the data keys that the superblock holds now, by epoch."""
    access = files_of(connection)[0].access
    uuid, master = access.superblock.uuid_bytes, access.master.key
    return {epoch.id: bytes(unwrap_epoch(uuid, epoch, master)) for epoch in access.superblock.epochs}


def sealed_pages(path: Path, page_size: int) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield each sealed unit of database, WAL and journal, with the associated data that it could have been sealed with.

    docs/FORMAT.md, "Sealed pages": behind the prefix come page number, or salts and frame index.
    """
    data = path.read_bytes()
    start = max(32768, page_size)
    for page in range(1, (len(data) - start) // page_size + 1):
        at = start + (page - 1) * page_size
        yield data[at : at + page_size], [b"\1" + page.to_bytes(4, "big")]
    for suffix in ("-wal", "-journal"):
        if not os.path.exists(f"{path}{suffix}"):
            continue
        data = Path(f"{path}{suffix}").read_bytes()
        if suffix == "-wal":
            size = 24 + page_size
            for index in range((len(data) - 32) // size):
                at = 32 + index * size
                yield data[at : at + size], [b"\2" + data[16:24] + index.to_bytes(4, "big")]
        else:
            for at in range(512, len(data) - page_size - 7, page_size + 8):
                yield data[at + 4 : at + 4 + page_size], [b"\3" + data[at : at + 4]]


def epochs_on_disk(path: Path, page_size: int = 1024) -> set[int]:
    """Return the epochs that any sealed unit on disk names."""
    return {int.from_bytes(unit[-4:-1], "big") for unit, _ in sealed_pages(path, page_size)}


def opened_by(key: bytes, path: Path, page_size: int = 1024) -> int:
    """Count the units on disk that a data key opens, whatever epoch they name."""
    uuid = copies(path)[0].uuid_bytes
    ciphers: dict[bytes, AESGCM] = {}
    found = 0
    for unit, bounds in sealed_pages(path, page_size):
        nonce, selector = unit[-16:-4], unit[-4:]
        if selector not in ciphers:
            sub_key = HKDFExpand(hashes.SHA256(), 32, b"heliosvfs 1 sub-key" + uuid + selector[3:]).derive(key)
            ciphers[selector] = AESGCM(sub_key)
        for bound in bounds:
            try:
                ciphers[selector].decrypt(nonce, unit[:-16], b"heliosvfs1" + bound[:1] + uuid + selector + bound[1:])
            except InvalidTag:
                continue
            found += 1
    return found
