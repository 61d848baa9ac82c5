"""A WAL frame that arrives in pieces with a sync between them.

Without POWERSAFE_OVERWRITE SQLite pads a commit to the end of a sector with copies of its last frame, and syncs exactly at that
boundary, in the middle of a frame (walWriteToLog): what lies before is durable then, and no later write touches its sector. So
the pieces are sealed as a stream, and each is written when it comes.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import GCM

from heliosvfs.layout import RESERVED_BYTES
from heliosvfs.memory import KeyBuffer

__all__ = ["FramePieces"]


class FramePieces:
    """A frame that is being sealed piece by piece.

    Attributes:
        next: Offset in the WAL at which the next piece must begin.
        end: Offset behind the frame.
    """

    def __init__(self, start: int, size: int, key: KeyBuffer, nonce: bytes, selector: bytes, associated_data: bytes) -> None:  # noqa: PLR0913 - what a seal takes
        """Begin the frame of ``size`` bytes at offset ``start``."""
        self.next = start
        self.end = start + size
        self._body = self.end - RESERVED_BYTES
        self._encryptor = Cipher(AES256(key), GCM(nonce)).encryptor()
        self._encryptor.authenticate_additional_data(associated_data)
        self._trailer = nonce + selector  # the tag goes before it once the body is complete

    def seal(self, piece: bytes) -> bytes | None:
        """Return the sealed form of the next piece, None if it runs past the frame or uses its reserved bytes."""
        at, end = self.next, self.next + len(piece)
        plain, reserved = piece[: max(0, self._body - at)], piece[max(0, self._body - at) :]
        if end > self.end or reserved.strip(b"\0"):
            return None
        sealed = self._encryptor.update(plain) if plain else b""
        if at < self._body <= end:
            self._encryptor.finalize()
            self._trailer = self._encryptor.tag + self._trailer
        if end > self._body:
            sealed += self._trailer[max(0, at - self._body) : end - self._body]
        self.next = end
        return sealed
