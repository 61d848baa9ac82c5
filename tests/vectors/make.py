"""How the vectors beside this file were made. A released vector is never made again: this is kept for its provenance.

python -m tests.vectors.make DIRECTORY
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import sys
from pathlib import Path

import heliosvfs
from heliosvfs.keys import derive_kek, epoch_wrapping_key, superblock_hmac_key
from heliosvfs.vfs import files_of

PASSPHRASE = "Straße 7 — correct horse"
RAW = bytes(range(32))
CHEAP = heliosvfs.KdfSettings(memory_kib=8192, passes=1, lanes=1)
FIPS = heliosvfs.KdfSettings(fips_mode=True)
ROWS = [(n, f"patient {n}", n * 1.5, bytes([n % 256]) * n) for n in range(1, 41)]


def fill(connection: heliosvfs.Connection) -> None:
    """Create the table that every vector holds."""
    connection.execute("CREATE TABLE patient(id INTEGER PRIMARY KEY, name TEXT, weight REAL, scan BLOB)")
    connection.executemany("INSERT INTO patient VALUES(?, ?, ?, ?)", ROWS)


def intermediates(connection: heliosvfs.Connection, path: Path) -> dict:
    """Return every value between the secret and the first page."""
    file = files_of(connection)[0]
    superblock, master, keys = file.access.superblock, bytes(file.access.master.key), file.page_keys()
    start, size = superblock.layout.start, superblock.page_size
    sealed = path.read_bytes()[start : start + size]
    selector = sealed[-4:]
    secrets = {"hkdf-sha256": heliosvfs.Secret.raw(RAW)}
    return {
        "uuid": superblock.uuid,
        "page_size": size,
        "keks": {
            slot.label: derive_kek(secrets.get(slot.kdf.name, heliosvfs.Secret.passphrase(PASSPHRASE)), slot.kdf).hex()
            for slot in superblock.slots
        },
        "master_key": master.hex(),
        "superblock_hmac_key": superblock_hmac_key(master).hex(),
        "epoch_wrapping_key": epoch_wrapping_key(master).hex(),
        "epoch_1_key": bytes(keys._epochs[1]).hex(),
        "page_1": {
            "offset": start,
            "tag": sealed[-32:-16].hex(),
            "nonce": sealed[-16:-4].hex(),
            "epoch": int.from_bytes(selector[:3], "big"),
            "sub_key_number": selector[3],
            "sub_key": keys.sub_key(selector).hex(),
            "associated_data": (keys.prefix(1, selector) + struct.pack(">I", 1)).hex(),
            "plaintext_sha256": hashlib.sha256(bytes(file.xRead(size, 0))[:-32]).hexdigest(),
        },
    }


def flaws(good: bytes, other: bytes) -> dict[str, tuple[bytes, str]]:
    """Return one damaged file for each flaw, and the error that is due."""

    def flip(offset: int, mask: int = 1) -> bytes:
        data = bytearray(good)
        data[offset] ^= mask
        return bytes(data)

    def swap(first: int, second: int) -> bytes:
        data = bytearray(good)
        data[first : first + 512], data[second : second + 512] = good[second : second + 512], good[first : first + 512]
        return bytes(data)

    def both(offset: int, value: bytes, *, rehash: bool) -> bytes:
        data = bytearray(good)
        for copy in (0, 16384):
            data[copy + offset : copy + offset + len(value)] = value
            if rehash:
                data[copy + 16352 : copy + 16384] = hashlib.sha256(data[copy : copy + 16352]).digest()
        return bytes(data)

    page = 32768
    return {
        "page-body-flipped": (flip(page + 512 * 3 + 7), "TamperedError"),
        "page-tag-flipped": (flip(page + 512 * 4 - 32), "TamperedError"),
        "page-nonce-flipped": (flip(page + 512 * 4 - 16), "TamperedError"),
        "page-epoch-unknown": (flip(page + 512 * 4 - 2, 2), "TamperedError"),
        "page-sub-key-flipped": (flip(page + 512 * 4 - 1), "TamperedError"),
        "pages-swapped": (swap(page + 512 * 3, page + 512 * 5), "TamperedError"),
        "page-from-another-file": (good[: page + 1536] + other[page + 1536 : page + 2048] + good[page + 2048 :], "TamperedError"),
        "page-zeroed": (good[: page + 1536] + bytes(512) + good[page + 2048 :], "TamperedError"),
        "pages-cut-off": (good[: page + 1024], "TamperedError"),
        "all-pages-cut-off": (good[:page], "TamperedError"),
        "superblock-flipped-in-both": (both(70, b"?", rehash=False), "TamperedError"),
        "superblock-altered-and-rehashed": (both(16320, bytes(32), rehash=True), "TamperedError"),
        "superblock-of-version-2": (both(16, b"\0\2", rehash=True), "UnsupportedVersionError"),
        "superblock-magic-gone": (both(0, b"HELIOSVFS", rehash=True), "FormatError"),
    }


def make(folder: Path) -> None:
    """Make all vectors in ``folder``."""
    values, expected = {}, {}
    for name, mode in (("plain-pages", "delete"), ("with-wal", "wal"), ("with-hot-journal", "delete")):
        path = folder / "work.db"
        connection = heliosvfs.connect(path, key=RAW, page_size=512, journal_mode=mode, label="raw")
        connection.add_key(PASSPHRASE, label="argon2id", settings=CHEAP)
        connection.add_key(PASSPHRASE, label="pbkdf2", settings=FIPS)
        fill(connection)
        if name == "with-wal":
            connection.execute("UPDATE patient SET name = name || ' (seen)' WHERE id % 2")
        if name == "with-hot-journal":
            connection.pragma("cache_size", 2)
            connection.execute("BEGIN; UPDATE patient SET name = 'lost', scan = zeroblob(600)")
        for suffix in ("", "-wal", "-journal"):
            source = Path(f"{path}{suffix}")
            if source.exists():
                shutil.copy(source, folder / f"{name}.db{suffix}")
        values[name] = intermediates(connection, path)
        connection.close()
        for left in folder.glob("work.db*"):
            left.unlink()
    good, other = (folder / "plain-pages.db").read_bytes(), (folder / "with-hot-journal.db").read_bytes()
    for name, (data, error) in flaws(good, other).items():
        (folder / f"flaw-{name}.db").write_bytes(data)
        expected[name] = error
    document = {"passphrase": PASSPHRASE, "raw_key": RAW.hex(), "files": values, "flaws": expected}
    (folder / "vectors.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
