"""Temporary files: statement journals, sorters, transient databases, VACUUM's copy (FORMAT.md, "Temporary files").

Nothing of a temporary file outlives its handle, so it is sealed under a random key that is stored nowhere. SQLite reads and
writes it at any offset and length; on disk it is a row of blocks, each sealed as a whole, so that a partial write opens its
block first. A block that was never written reads as zeros, as a hole in a plain file would; one that was written and does not
open is damage.
"""

from __future__ import annotations

import os

import apsw

from heliosvfs.errors import DiskFullError, TamperedError
from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.pages import KIND_TEMPORARY, Buffer, FileKeys, NotAuthenticError, Opener, Sealer, UnknownEpochError
from heliosvfs.vfs.characteristics import reporting

__all__ = ["TemporaryFile"]

_PLAIN = 4096
_SEALED = _PLAIN + RESERVED_BYTES


class TemporaryFile(apsw.VFSFile):
    """A file whose content nobody can read once it is closed."""

    def __init__(self, base: str, name: str | None, flags: list[int]) -> None:
        """Open a temporary file of the base VFS under a fresh key."""
        super().__init__(base, name, flags)
        self.xDeviceCharacteristics = reporting(0)  # type: ignore[method-assign]
        self._name = name or "a temporary file"
        self._keys = FileKeys.ephemeral(os.urandom)
        self._opener = Opener(self._keys, KIND_TEMPORARY, _SEALED)
        self._sealer = Sealer(self._keys, KIND_TEMPORARY, _SEALED, os.urandom)
        self._size = 0
        self._written: set[int] = set()
        self._held = -1  # number of the block that `_plain` holds, to spare small sequential accesses an opening each
        self._plain = b""

    def xRead(self, amount: int, offset: int) -> Buffer:  # type: ignore[override] # noqa: N802 - SQLite's name; APSW takes any buffer
        """Return ``amount`` bytes at ``offset``, fewer at the end of the file."""
        end = min(offset + amount, self._size)
        first, start = divmod(offset, _PLAIN)
        if end <= offset:
            return b""
        last = (end - 1) // _PLAIN
        if first == last:
            return self._block(first)[start : start + end - offset]
        blocks = b"".join(self._block(number) for number in range(first, last + 1))
        return blocks[start : start + end - offset]

    def xWrite(self, data: Buffer, offset: int) -> None:  # noqa: N802 - SQLite's name
        """Write ``data`` at ``offset``, opening and sealing anew the blocks that it covers in part."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            number, start = divmod(offset + done, _PLAIN)
            piece = bytes(view[done : done + _PLAIN - start])
            if len(piece) < _PLAIN:
                whole = self._block(number)
                piece_end = start + len(piece)
                self._put(number, whole[:start] + piece + whole[piece_end:])
            else:
                self._put(number, piece)
            done += len(piece)
        self._size = max(self._size, offset + len(view))

    def xFileSize(self) -> int:  # noqa: N802 - SQLite's name
        """Return the size in bytes as SQLite wrote it."""
        return self._size

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        """Cut the file to ``newsize`` bytes, or extend it with zeros."""
        blocks, rest = divmod(newsize, _PLAIN)
        if newsize < self._size:
            if rest:
                self._put(blocks, self._block(blocks)[:rest].ljust(_PLAIN, b"\0"))
            kept = blocks + bool(rest)
            self._written = {number for number in self._written if number < kept}
            if self._held >= kept:
                self._held = -1
            super().xTruncate(kept * _SEALED)
        self._size = newsize

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802 - SQLite's name
        """Pass controls on, except those that speak of sizes in the base file."""
        if op in (apsw.SQLITE_FCNTL_SIZE_HINT, apsw.SQLITE_FCNTL_CHUNK_SIZE):
            return True
        return super().xFileControl(op, ptr)

    def xClose(self) -> None:  # noqa: N802 - SQLite's name
        """Close the file and wipe its key."""
        super().xClose()
        self._keys.wipe()
        self._plain = b""

    def _block(self, number: int) -> bytes:
        if number == self._held:
            return self._plain
        if number not in self._written:
            return bytes(_PLAIN)
        sealed = super().xRead(_SEALED, number * _SEALED)
        try:
            if len(sealed) < _SEALED:
                raise NotAuthenticError  # noqa: TRY301 - one handler for both
            plain = bytes(self._opener.open(sealed, number.to_bytes(8, "big"))[:_PLAIN])
        except (NotAuthenticError, UnknownEpochError):
            msg = f"{self._name}: block {number + 1} is not what was written there"
            raise TamperedError(msg, file=self._name, page=number + 1, offset=number * _SEALED) from None
        self._held, self._plain = number, plain
        return plain

    def _put(self, number: int, plain: bytes) -> None:
        try:
            super().xWrite(self._sealer.seal(plain, number.to_bytes(8, "big")), number * _SEALED)
        except apsw.FullError as error:
            raise DiskFullError.of(self._name) from error
        self._written.add(number)
        self._held, self._plain = number, plain
