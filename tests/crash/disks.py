"""What a disk may hold after a crash, made from the log of what was asked of it.

Process death keeps every completed operation. A power cut keeps what was synced; each later write may be there,
missing, torn at 512-byte sectors or torn inside one sector, and a later one may be there without an earlier one.
Truncations and names are metadata with a fate of their own until their sync: a truncation may be undone, a deleted file
may be back, a created one may be missing. A file system with a journal does metadata in order, some others do not;
SQLite needs that order below synchronous=EXTRA (it deletes the journal of a VACUUM before it cuts the database, and may
write where it cut before the cut is synced). Where the device does not claim POWERSAFE_OVERWRITE, a whole sector that a
write touched may hold garbage.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tests.crash.recorder import Create, Delete, Sync, SyncDirectory, Truncate, Write

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.crash.recorder import Log

__all__ = ["SECTOR", "after_power_cut", "after_process_death"]

SECTOR = 512
LARGE_SECTOR = 4096  # what os_unix.c reports as the sector size where POWERSAFE_OVERWRITE is not claimed

_Pending: TypeAlias = "list[tuple[int, Write | Truncate]]"


@dataclass
class _File:
    """One file: what is durable, and the writes and truncations after that with their places in the log."""

    durable: bytes = b""
    pending: _Pending = field(default_factory=list)


@dataclass
class _Name:
    """One name of the directory: the file that it surely means, and the later changes with their places in the log."""

    durable: int | None = None
    pending: list[tuple[int, int | None]] = field(default_factory=list)

    @property
    def newest(self) -> int | None:
        """The file that the name means to the running process."""
        return self.pending[-1][1] if self.pending else self.durable


@dataclass(frozen=True)
class _Fate:
    """How one power cut treats all files.

    Attributes:
        style: How writes are treated, a name of _STYLES.
        last: In the style "in order", the place of the operation that was torn: earlier ones are done, later ones not.
        metadata: Names and truncations before this place are done, later ones not; None: each has its own fate.
        keep: Share of what survives where each operation has its own fate.
        grain: Bytes of a physical sector.
        harm: Share of the touched sectors that hold garbage.
    """

    style: str
    last: int
    metadata: int | None
    keep: float
    grain: int
    harm: float

    def keeps(self, place: int, rng: Random) -> bool:
        """Decide about a piece of metadata."""
        return rng.random() < self.keep if self.metadata is None else place < self.metadata


@dataclass
class _Disk:
    """Files and names at one crash point."""

    files: list[_File]
    names: dict[str, _Name]


def after_process_death(log: Log, crash: int) -> dict[str, bytes]:
    """Return the files, by name, when the process dies after ``crash`` operations and the computer lives on."""
    disk = _replay(log, crash)
    return {name: _applied(disk.files[entry.newest]) for name, entry in disk.names.items() if entry.newest is not None}


def after_power_cut(log: Log, crash: int, rng: Random, *, psow: bool, ordered: bool) -> dict[str, bytes]:
    """Return files that a disk could hold when the power fails after ``crash`` operations.

    Args:
        log: What was asked of the disk.
        crash: Number of operations before the cut; those of them that were not synced have no certain fate.
        rng: Chooses among the possible fates.
        psow: Whether bytes beside a write are safe.
        ordered: Whether metadata reaches the disk in order, over all files.
    """
    disk = _replay(log, crash)
    style = rng.choices(["kept", "lost", "in order", "each write", "each sector"], [1, 2, 4, 6, 7])[0]
    last = rng.randint(0, crash)
    metadata = rng.choice([0, crash, rng.randint(0, crash)]) if ordered else None
    fate = _Fate(
        style=style,
        last=last,
        metadata={"kept": crash, "lost": 0, "in order": last}.get(style, metadata),
        keep=rng.choice([0.15, 0.5, 0.85]),
        grain=rng.choice([SECTOR, LARGE_SECTOR]),
        harm=0.0 if psow else rng.choice([0.0, 0.1, 0.4, 1.0]),
    )
    result = {}
    for name in sorted(disk.names):
        number = _fate_of_name(disk.names[name], fate, rng)
        if number is not None:
            content = _STYLES[fate.style](disk.files[number], fate, rng)
            _destroy(content, _possible(disk.files[number], fate), fate, rng)
            result[name] = bytes(content)
    return result


def _replay(log: Log, crash: int) -> _Disk:
    """Follow the log and keep apart what is durable and what is not."""
    disk = _Disk(
        [_File(content) for content in log.base.values()],
        {name: _Name(number) for number, name in enumerate(log.base)},
    )
    for place, operation in enumerate(log.operations[:crash]):
        if isinstance(operation, (Write, Truncate)):
            disk.files[operation.inode].pending.append((place, operation))
        elif isinstance(operation, Sync):
            file = disk.files[operation.inode]
            file.durable = _applied(file)
            file.pending.clear()
        elif isinstance(operation, Create):
            disk.files.append(_File())
            disk.names.setdefault(operation.name, _Name()).pending.append((place, operation.inode))
        elif isinstance(operation, Delete):
            disk.names[operation.name].pending.append((place, None))
        else:
            assert isinstance(operation, SyncDirectory)
            for entry in disk.names.values():
                entry.durable = entry.newest
                entry.pending.clear()
    return disk


def _applied(file: _File) -> bytes:
    """Return the content that the running process sees."""
    if not file.pending:
        return file.durable
    content = bytearray(file.durable)
    for _, operation in file.pending:
        if isinstance(operation, Truncate):
            _resize(content, operation.size)
        else:
            _put(content, operation.offset, operation.data)
    return bytes(content)


def _resize(content: bytearray, size: int) -> None:
    """Cut, or extend with zeros."""
    del content[size:]
    content.extend(bytes(size - len(content)))


def _put(content: bytearray, offset: int, data: bytes) -> None:
    """Write some bytes, extending the file where they need it."""
    if len(content) < offset + len(data):
        _resize(content, offset + len(data))
    content[offset : offset + len(data)] = data


def _pieces(write: Write) -> list[Write]:
    """Split a write at the borders of sectors."""
    end = write.offset + len(write.data)
    borders = [write.offset, *range((write.offset // SECTOR + 1) * SECTOR, end, SECTOR), end]
    return [
        Write(write.inode, start, write.data[start - write.offset : stop - write.offset])
        for start, stop in itertools.pairwise(borders)
    ]


def _put_torn(content: bytearray, write: Write, rng: Random) -> None:
    """Write some of the sectors of one write, now and then only the first or last bytes of one of them."""
    for piece in _pieces(write):
        fate = rng.random()
        if fate < 0.45:
            _put(content, piece.offset, piece.data)
        elif fate < 0.55:
            cut = rng.randint(0, len(piece.data))
            if rng.random() < 0.5:
                _put(content, piece.offset, piece.data[:cut])
            else:
                _put(content, piece.offset + cut, piece.data[cut:])


def _fate_of_name(entry: _Name, fate: _Fate, rng: Random) -> int | None:
    """Choose the file that a name means after the cut."""
    meaning = entry.durable
    for place, number in entry.pending:
        if fate.keeps(place, rng):
            meaning = number
    return meaning


def _all(file: _File, _fate: _Fate, _rng: Random) -> bytearray:
    return bytearray(_applied(file))


def _nothing(file: _File, _fate: _Fate, _rng: Random) -> bytearray:
    return bytearray(file.durable)


def _in_order(file: _File, fate: _Fate, rng: Random) -> bytearray:
    """Keep what was asked before one place and tear the operation at that place."""
    before = [(place, operation) for place, operation in file.pending if place < fate.last]
    content = bytearray(_applied(_File(file.durable, before)))
    for place, operation in file.pending:
        if place == fate.last and isinstance(operation, Write):
            _put_torn(content, operation, rng)
    return content


def _possible(file: _File, fate: _Fate) -> _Pending:
    """Leave out what a file system with ordered metadata can't show: data behind an undone cut lies in new blocks."""
    if fate.metadata is None:
        return file.pending
    undone = [operation.size for place, operation in file.pending if isinstance(operation, Truncate) and place >= fate.metadata]
    first = next((place for place, operation in file.pending if isinstance(operation, Truncate) and place >= fate.metadata), 0)
    return [
        (place, operation)
        for place, operation in file.pending
        if not undone or place < first or isinstance(operation, Truncate) or operation.offset + len(operation.data) <= min(undone)
    ]


def _each_write(file: _File, fate: _Fate, rng: Random) -> bytearray:
    """Keep, drop or tear each operation by itself."""
    content = bytearray(file.durable)
    for place, operation in _possible(file, fate):
        if isinstance(operation, Truncate):
            if fate.keeps(place, rng):
                _resize(content, operation.size)
        elif rng.random() < 0.25:
            _put_torn(content, operation, rng)
        elif rng.random() < fate.keep:
            _put(content, operation.offset, operation.data)
    return content


def _each_sector(file: _File, fate: _Fate, rng: Random) -> bytearray:
    """Let each sector hold any content that it had since the last sync or truncation, and the file any such size."""
    content = bytearray(file.durable)
    sizes = [len(content)]
    versions: dict[int, list[bytes]] = {}
    for place, operation in _possible(file, fate):
        if isinstance(operation, Truncate):
            if fate.keeps(place, rng):
                _resize(content, operation.size)
                sizes = [operation.size]
                border = operation.size // SECTOR
                versions = {sector: contents for sector, contents in versions.items() if sector < border}
            continue
        end = operation.offset + len(operation.data)
        touched = range(operation.offset // SECTOR, (end + SECTOR - 1) // SECTOR)
        for sector in touched:
            versions.setdefault(sector, [_sector(content, sector)])
        _put(content, operation.offset, operation.data)
        for sector in touched:
            versions[sector].append(_sector(content, sector))
        sizes.append(len(content))
    for sector, contents in sorted(versions.items()):
        _put(content, sector * SECTOR, rng.choice([contents[0], contents[-1], rng.choice(contents)]))
    _resize(content, rng.choice([sizes[-1], sizes[-1], rng.choice(sizes)]))
    return content


_STYLES: dict[str, Callable[[_File, _Fate, Random], bytearray]] = {
    "kept": _all,
    "lost": _nothing,
    "in order": _in_order,
    "each write": _each_write,
    "each sector": _each_sector,
}


def _sector(content: bytearray, sector: int) -> bytes:
    """Return one sector, padded with zeros at the end of the file."""
    return bytes(content[sector * SECTOR : (sector + 1) * SECTOR]).ljust(SECTOR, b"\0")


def _destroy(content: bytearray, pending: _Pending, fate: _Fate, rng: Random) -> None:
    """Fill some of the sectors that unsynced writes touched with garbage, bytes that were not written included."""
    if not fate.harm:
        return
    touched = set[int]()
    for _, operation in pending:
        if isinstance(operation, Write):
            end = operation.offset + len(operation.data)
            touched.update(range(operation.offset // fate.grain, (end - 1) // fate.grain + 1))
    for sector in sorted(touched):
        if rng.random() < fate.harm:
            start, stop = sector * fate.grain, min((sector + 1) * fate.grain, len(content))
            content[start:stop] = rng.randbytes(max(0, stop - start))
