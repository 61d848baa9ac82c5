"""The least that any VFS written in Python must cost: two columns to hold ours against.

``pass-through`` hands every read and write to the base VFS. ``one-gcm`` also runs AES-256-GCM once for each page, over
a buffer of its own, and throws the result away: nothing is encrypted, only the time is spent.
"""

from __future__ import annotations

import apsw
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

RESERVED_BYTES = 32


class PassThroughFile(apsw.VFSFile):
    """Calls the base VFS from Python."""

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite's name
        """Read from the base."""
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        """Write to the base."""
        super().xWrite(data, offset)


class OneGcmFile(apsw.VFSFile):
    """Calls the base VFS and spends the time of one seal or one opening for each page."""

    def __init__(self, vfs: str, filename: str | apsw.URIFilename | None, flags: list[int], page_size: int) -> None:
        """Open the base file."""
        super().__init__(vfs, filename, flags)
        cipher = AESGCM(AESGCM.generate_key(256))
        self._open, self._seal, self._page_size = cipher.decrypt_into, cipher.encrypt_into, page_size
        self._nonce, self._bound = bytes(12), bytes(35)
        self._plain = memoryview(bytearray(page_size - RESERVED_BYTES))
        self._sealed = memoryview(bytearray(page_size - 16))
        self._seal(self._nonce, self._plain, self._bound, self._sealed)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite's name
        """Read from the base and open a page that was sealed before."""
        data = super().xRead(amount, offset)
        if amount == self._page_size:
            self._open(self._nonce, self._sealed, self._bound, self._plain)
        return data

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        """Write to the base and seal a page for nothing."""
        if len(data) == self._page_size:
            self._seal(self._nonce, self._plain, self._bound, self._sealed)
        super().xWrite(data, offset)


class FloorVFS(apsw.VFS):
    """Stacks one of the two on the default VFS."""

    def __init__(self, name: str, page_size: int) -> None:
        """Register under ``name``."""
        super().__init__(name, "")
        self._cipher, self._page_size = name == "one-gcm", page_size

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        """Open a file of the base."""
        return OneGcmFile("", name, flags, self._page_size) if self._cipher else PassThroughFile("", name, flags)


_registered: dict[str, FloorVFS] = {}


def registered(name: str, page_size: int) -> str:
    """Register the VFS if this process has not, keep it alive, and return its name."""
    if name not in _registered:
        _registered[name] = FloorVFS(name, page_size)
    return name
