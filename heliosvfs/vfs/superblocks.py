"""Reading and writing the superblock of an open file through the base VFS's own handle (FORMAT.md, "Superblock updates").

An update writes the older copy, makes it durable, then writes the same content over the other: a power cut leaves at least one
whole copy, and afterwards both are equal, because a stale copy could bring a revoked slot back to life.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import apsw

from heliosvfs.errors import FormatError, TamperedError, UnsupportedVersionError
from heliosvfs.memory import KeyBuffer
from heliosvfs.pages import Buffer
from heliosvfs.superblock import (
    COPY_OFFSETS,
    COPY_SIZE,
    MAGIC,
    SEQUENCE_OFFSET,
    DamagedCopyError,
    Superblock,
    UnverifiedCopy,
    encode,
    parse_copy,
)

__all__ = ["BaseFile", "SuperblockStore"]

_PLAIN_SQLITE = b"SQLite format 3\0"
_AREA = COPY_OFFSETS[1] + COPY_SIZE
_LOOKS = 3


@dataclass(frozen=True)
class BaseFile:
    """The base VFS's file beneath one of ours, as bound methods: looking them up anew would cost each page read.

    Attributes:
        read: xRead; the trailing zeros of a short read are missing.
        write: xWrite.
        size: xFileSize.
        sync_with: xSync.
    """

    read: Callable[[int, int], bytes]
    write: Callable[[Buffer, int], None]
    size: Callable[[], int]
    sync_with: Callable[[int], None]

    def sync(self) -> None:
        """Make all writes durable."""
        self.sync_with(apsw.SQLITE_SYNC_NORMAL)


class SuperblockStore:
    """The two copies of the superblock in one open file.

    Attributes:
        is_stale: Whether the last `load` found copies that differ: an update was interrupted and is to be finished.
    """

    def __init__(self, base: BaseFile, path: str) -> None:
        """Work on ``base``; ``path`` serves messages only."""
        self._base = base
        self._path = path
        self.is_stale = False
        self._copies: list[UnverifiedCopy] = []

    @property
    def copies(self) -> list[UnverifiedCopy]:
        """The whole copies that the last `load` found: each must be authentic, not just the newest."""
        return self._copies

    def load(self) -> UnverifiedCopy | None:
        """Return the newest whole copy, or None where the file is empty or its creation was interrupted.

        Raises:
            FormatError: The file is not a heliosvfs database.
            TamperedError: It is one, and neither copy is whole.
            UnsupportedVersionError: It is one of a later format.
        """
        for _ in range(_LOOKS):
            size = self._base.size()
            if size == 0:
                return None
            area = self._base.read(_AREA, 0).ljust(_AREA, b"\0")
            copies, problems = self._parse(area)
            if copies or size <= _AREA:
                break
            # a read may fall into another process's writes of both copies, one after the other: look again
        if copies:
            newest = max(copies, key=lambda copy: copy.superblock.sequence)
            self._copies = copies
            self.is_stale = bool(problems) or copies[0].superblock != copies[1].superblock
            return newest
        self._refuse(area, size, problems)
        return None

    def _parse(self, area: bytes) -> tuple[list[UnverifiedCopy], list[FormatError]]:
        """Return the whole copies, and what is wrong with the others."""
        copies: list[UnverifiedCopy] = []
        problems: list[FormatError] = []
        for index, offset in enumerate(COPY_OFFSETS):
            try:
                copies.append(parse_copy(area[offset : offset + COPY_SIZE], index))
            except UnsupportedVersionError as error:
                msg = f"{self._path}: {error}"
                raise UnsupportedVersionError(msg) from None
            except FormatError as error:
                problems.append(error)
        if any(not isinstance(problem, DamagedCopyError) for problem in problems):
            msg = f"{self._path}: a copy of the superblock is whole and was altered: {problems[0]}"
            raise TamperedError(msg, file=self._path)
        return copies, problems

    def _refuse(self, area: bytes, size: int, problems: list[FormatError]) -> None:
        """Raise unless the file is empty but for an interrupted creation."""
        if area.startswith(_PLAIN_SQLITE):
            msg = (
                f"{self._path} is a plain SQLite database, not a heliosvfs one: "
                "`heliosvfs encrypt IN OUT` makes an encrypted copy of it"
            )
            raise FormatError(msg)
        heads = [area[offset : offset + len(MAGIC)] for offset in COPY_OFFSETS]
        ours = MAGIC in heads
        # copies that were not durable yet when the power went may lack any of their sectors
        unfinished = ours or all(byte in (0, due) for head in heads for byte, due in zip(head, MAGIC, strict=True))
        if size <= _AREA and unfinished and all(isinstance(problem, DamagedCopyError) for problem in problems):
            return  # no page can lie there yet: both copies are durable before the first page is written
        if ours:
            msg = (
                f"{self._path}: both copies of the superblock are damaged, so no page can be opened; "
                "restore the file, or its first 32 KiB, from a backup"
            )
            raise TamperedError(msg, file=self._path)
        msg = f"{self._path} is not a heliosvfs database"
        raise FormatError(msg)

    def has_changed(self, sequence: int, *, begun: bool = False) -> bool:
        """Tell whether an update has been completed since the one with number ``sequence``: a read of 8 bytes.

        Copy A is enough for that: a new epoch is used only once both copies hold it. With ``begun`` an update that has reached
        either copy counts.
        """
        expected = sequence.to_bytes(8, "big")
        return any(
            self._base.read(8, offset + SEQUENCE_OFFSET).ljust(8, b"\0") != expected
            for offset in (COPY_OFFSETS if begun else COPY_OFFSETS[:1])
        )

    def write(self, superblock: Superblock, hmac_key: KeyBuffer) -> UnverifiedCopy:
        """Write both copies, the older one first, each made durable before the next step.

        Raises:
            UsageError: The content does not fit; nothing was written.
        """
        sealed = encode(superblock, hmac_key)
        for index in self._older_first():
            self._base.write(sealed[index], COPY_OFFSETS[index])
            self._base.sync()
        self.is_stale = False
        return UnverifiedCopy(superblock, sealed[0])

    def _older_first(self) -> tuple[int, int]:
        sequences = []
        for index, offset in enumerate(COPY_OFFSETS):
            try:
                copy = parse_copy(self._base.read(COPY_SIZE, offset).ljust(COPY_SIZE, b"\0"), index)
                sequences.append(copy.superblock.sequence)
            except (FormatError, apsw.IOError):
                sequences.append(-1)
        return (0, 1) if sequences[0] <= sequences[1] else (1, 0)
