"""A second reader of format 1, written from docs/FORMAT.md alone.

It shares no code with the product: it may import nothing of heliosvfs. It reads a database file, and with it a WAL or
a hot journal, into plain pages, and writes them out as a plain SQLite database.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
import unicodedata
from pathlib import Path

from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

MAGIC = bytes.fromhex("68656c696f737666730d0a1a0a000000")


class RefusedError(Exception):
    """The bytes are not what format 1 says they must be."""


def must(condition: object, what: str) -> None:
    """Refuse unless ``condition`` holds."""
    if not condition:
        raise RefusedError(what)


def expand(key: bytes, info: bytes) -> bytes:
    """Expand(key, info) of the conventions."""
    return HKDFExpand(hashes.SHA256(), 32, info).derive(key)


def parse_copy(copy: bytes, index: int) -> tuple[int, dict]:
    """Return sequence number and JSON of a superblock copy."""
    must(len(copy) == 16384 and copy[:16] == MAGIC, "magic")
    version, its_index, _, size, offset_b, start, sequence, length = struct.unpack(">HBBIIIQI", copy[16:44])
    must(version == 1, "version")
    must(hashlib.sha256(copy[:16352]).digest() == copy[16352:], "SHA-256")
    must((its_index, size, offset_b) == (index, 16384, 16384) and length <= 16256, "prefix")
    document = json.loads(copy[64 : 64 + length])
    must(start == max(32768, document["page_size"]), "S")
    return sequence, document


def load_superblock(data: bytes) -> list[tuple[int, dict, bytes]]:
    """Return sequence number, JSON and bytes of each whole copy, the newest first."""
    found = []
    for index in (0, 1):
        copy = data[16384 * index : 16384 * (index + 1)]
        try:
            found.append((*parse_copy(copy, index), copy))
        except RefusedError:
            continue
    must(found, "no copy is whole")
    found.sort(key=lambda item: -item[0])
    must(not found[0][1]["features"]["incompatible"], "incompatible feature")
    return found


def kek_of(kdf: dict, secret: str | bytes) -> bytes:
    """Return the key-encryption key of a slot."""
    salt = bytes.fromhex(kdf["salt"])
    if kdf["name"] == "hkdf-sha256":
        return HKDF(hashes.SHA256(), 32, salt, b"heliosvfs 1 raw key").derive(secret)
    phrase = unicodedata.normalize("NFC", secret).encode()
    if kdf["name"] == "pbkdf2-hmac-sha256":
        must(600_000 <= kdf["iterations"] <= 10_000_000, "iterations")
        return hashlib.pbkdf2_hmac("sha256", phrase, salt, kdf["iterations"], 32)
    must(kdf["name"] == "argon2id" and 8192 <= kdf["memory_kib"] <= 1 << 20, "argon2id")
    return hash_secret_raw(phrase, salt, kdf["passes"], kdf["memory_kib"], kdf["lanes"], 32, Type.ID)


def slot_associated_data(uuid: bytes, slot: dict) -> bytes:
    """Return what a slot's wrapped key is bound to."""
    kdf = slot["kdf"]
    numbers = " ".join(
        f"{letter}={kdf.get(name, 0)}"
        for letter, name in (("m", "memory_kib"), ("t", "passes"), ("p", "lanes"), ("i", "iterations"))
    )
    return b"heliosvfs 1 slot" + uuid + struct.pack(">I", slot["id"]) + f"{kdf['name']} {numbers} salt={kdf['salt']}".encode()


def gcm_open(key: bytes, wrapped: bytes, associated_data: bytes) -> bytes:
    """Open nonce | ciphertext | tag."""
    return AESGCM(key).decrypt(wrapped[:12], wrapped[12:], associated_data)


def is_authentic(copy: bytes, master: bytes) -> bool:
    """Tell whether a superblock copy's HMAC is right under a master key."""
    mac = hmac.digest(expand(master, b"heliosvfs 1 superblock hmac"), copy[:16320], "sha256")
    return hmac.compare_digest(mac, copy[16320:16352])


class Database:
    """A database file and its keys."""

    def __init__(self, path: Path, secret: str | bytes) -> None:
        self.path = path
        self.data = path.read_bytes()
        (sequence, self.document, copy), *older = load_superblock(self.data)
        self.uuid = bytes.fromhex(self.document["uuid"])
        self.page_size = self.document["page_size"]
        self.master = self._master(self.document, secret)
        must(is_authentic(copy, self.master), "HMAC")
        for before, document, other in older:
            if not is_authentic(other, self.master):  # an update to a new master key was cut off
                must(before == sequence - 1 and is_authentic(other, self._master(document, secret)), "HMAC of the older copy")
        wrap = expand(self.master, b"heliosvfs 1 epoch wrap")
        self.epochs = {
            epoch["id"]: gcm_open(
                wrap,
                bytes.fromhex(epoch["wrapped"]),
                b"heliosvfs 1 epoch" + self.uuid + struct.pack(">I", epoch["id"]) + epoch["cipher"].encode(),
            )
            for epoch in self.document["epochs"]
        }

    def _master(self, document: dict, secret: str | bytes) -> bytes:
        for slot in document["slots"]:
            if isinstance(secret, bytes) != (slot["kdf"]["name"] == "hkdf-sha256"):
                continue
            try:
                wrapped = bytes.fromhex(slot["wrapped"])
                return gcm_open(kek_of(slot["kdf"], secret), wrapped, slot_associated_data(self.uuid, slot))
            except Exception:  # noqa: S112, BLE001 - any failure: not this slot
                continue
        raise RefusedError("no slot opens")

    def open_unit(self, kind: int, sealed: bytes, suffix: bytes) -> bytes:
        """Open a sealed unit."""
        body, nonce, selector = sealed[:-16], sealed[-16:-4], sealed[-4:]
        epoch = int.from_bytes(selector[:3], "big")
        must(epoch in self.epochs, "epoch")
        key = expand(self.epochs[epoch], b"heliosvfs 1 sub-key" + self.uuid + selector[3:])
        prefix = b"heliosvfs1" + bytes([kind]) + self.uuid + selector
        return AESGCM(key).decrypt(nonce, body, prefix + suffix)

    def pages(self) -> dict[int, bytes]:
        """Return the plain pages of the database file."""
        start, found, number = max(32768, self.page_size), {}, 1
        while True:
            offset = start + (number - 1) * self.page_size
            offset += 65536 if offset >= 0x40000000 else 0
            sealed = self.data[offset : offset + self.page_size]
            if len(sealed) < self.page_size:
                return found
            found[number] = self.open_unit(1, sealed, struct.pack(">I", number)) + bytes(32)
            number += 1

    def with_wal(self, pages: dict[int, bytes]) -> dict[int, bytes]:
        """Return the pages after the last commit of the WAL."""
        data = Path(f"{self.path}-wal").read_bytes()
        must(struct.unpack(">I", data[4:8]) == (0x48560001,), "WAL version")
        order = ">" if data[3] & 1 else "<"
        size, sums, pending, result = 24 + self.page_size, checksum(data[:24], order, (0, 0)), {}, dict(pages)
        must(struct.pack(">II", *sums) == data[24:32], "WAL header checksum")
        header = data[:4] + struct.pack(">I", 3007000) + data[8:24]
        sums = checksum(header, order, (0, 0))
        for index in range((len(data) - 32) // size):
            sealed = data[32 + index * size : 32 + (index + 1) * size]
            try:
                frame = self.open_unit(2, sealed, data[16:24] + struct.pack(">I", index)) + bytes(32)
            except Exception:  # noqa: BLE001 - the log ends here
                break
            sums = checksum(frame[:8] + frame[24:], order, sums)
            if frame[8:16] != data[16:24] or struct.pack(">II", *sums) != frame[16:24]:
                break
            number, commit = struct.unpack(">II", frame[:8])
            pending[number] = frame[24:]
            if commit:
                result.update(pending)
                pending = {}
                result = {number: page for number, page in result.items() if number <= commit}
        return result

    def with_journal(self, pages: dict[int, bytes]) -> dict[int, bytes]:
        """Return the pages after a hot journal has been rolled back."""
        data, result, start, original = Path(f"{self.path}-journal").read_bytes(), dict(pages), 0, 0
        header_key = expand(self.master, b"heliosvfs 1 journal header" + self.uuid)
        mask_key = expand(self.master, b"heliosvfs 1 journal mask" + self.uuid)
        while data[start : start + 8] == b"\0HELIOSJ":
            header = data[start : start + 61]
            bound = struct.pack(">Q", start) + data[12:16] + bytes.fromhex("d9d505f920a163d7") + header[8:28] + header[60:]
            if hmac.digest(header_key, bound, "sha256") != header[28:60]:
                must(start, "journal HMAC")
                break
            count, nonce, at_start, sector, page_size = struct.unpack(">IIIII", header[8:28])
            original = original or at_start
            at = start + sector
            for _ in range(count):
                number, sealed, place = data[at : at + 4], data[at + 4 : at + 4 + page_size], at + 4 + page_size
                page = self.open_unit(3, sealed, number) + bytes(32)
                mask = hmac.digest(mask_key, sealed[-32:-16] + number + struct.pack(">Q", place) + header[12:16], "sha256")
                plain = bytes(a ^ b for a, b in zip(data[place : place + 4], mask, strict=False))
                total = (nonce + sum(page[i] for i in range(page_size - 200, 0, -200))) & 0xFFFFFFFF
                must(plain == struct.pack(">I", total), "record checksum")
                result.setdefault(-int.from_bytes(number, "big"), page)
                at = place + 4
            start = -(-at // sector) * sector
        must(original, "journal magic")
        result.update({-number: page for number, page in result.items() if number < 0})
        return {number: page for number, page in result.items() if 0 < number <= original}


def checksum(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    """Continue SQLite's WAL checksum (SQLite file format, 4.2)."""
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for i in range(0, len(words), 2):
        first = (first + words[i] + second) & 0xFFFFFFFF
        second = (second + words[i + 1] + first) & 0xFFFFFFFF
    return first, second


def write_plain(pages: dict[int, bytes], path: Path) -> None:
    """Write pages as a plain SQLite database, in rollback-journal mode so that it needs no WAL."""
    first = bytearray(pages[1])
    first[18:20] = b"\1\1"
    path.write_bytes(bytes(first) + b"".join(pages[number] for number in range(2, len(pages) + 1)))
