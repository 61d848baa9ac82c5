"""Memory for keys: locked against swapping and left out of core dumps where the platform allows it, zeroed when it is given up.

A key buffer is a memoryview of 32 bytes, say, in pages of our own. It is overwritten when nobody refers to it any more, so that
whoever still has it (a cipher, perhaps) never works with zeros by surprise; `wipe` overwrites it sooner. Python's own `bytes` and
`str` can't be overwritten: docs/KEYS.md says where keys still pass through them.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["KeyBuffer", "MemoryProtection", "buffer", "copy_of", "forbid_core_dumps", "protection", "random_key", "wipe"]

KeyBuffer: TypeAlias = "bytes | bytearray | memoryview"

_SLOT = 64  # bytes: no key is longer
_PR_SET_DUMPABLE = 4  # prctl(2)
_LARGEST_ENTROPY = 256  # getentropy(3)

_free: deque[memoryview] = deque()  # slots that nobody uses; its operations are atomic, which a finalizer needs
_arenas: list[mmap.mmap] = []


@dataclass(frozen=True)
class MemoryProtection:
    """What the platform grants for the memory that keys lie in.

    Attributes:
        locked: It is never swapped out (mlock).
        not_dumped: It is left out of core dumps (MADV_DONTDUMP).
        process_not_dumped: This process makes no core dumps at all (see `forbid_core_dumps`).
        why: What was refused, and why; empty if nothing was.
    """

    locked: bool
    not_dumped: bool
    process_not_dumped: bool
    why: tuple[str, ...]


@dataclass
class _State:
    locked: bool = True
    not_dumped: bool = True
    process_not_dumped: bool = False


_state = _State()
_why: list[str] = []


def _library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None, use_errno=True)
    except (OSError, TypeError):  # Windows has no such handle
        return None


_libc = _library()


def _grow() -> memoryview:
    """Make another page of slots, and return one of them."""
    if sys.platform == "win32":
        arena = mmap.mmap(-1, mmap.PAGESIZE)
    else:  # the default is shared, and a forked child would wipe its parent's keys
        arena = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _arenas.append(arena)  # it lives as long as the process: its slots are used again
    if not _lock(arena):
        _state.locked = False
    try:
        arena.madvise(mmap.MADV_DONTDUMP)
    except (AttributeError, OSError) as error:
        _state.not_dumped = False
        _note(f"MADV_DONTDUMP: {getattr(error, 'strerror', None) or 'this platform has none'}")
    whole = memoryview(arena)
    slots = [whole[place : place + _SLOT] for place in range(0, mmap.PAGESIZE, _SLOT)]
    _free.extend(slots[1:])
    return slots[0]


def _lock(arena: mmap.mmap) -> bool:
    if _libc is None or not hasattr(_libc, "mlock"):
        _note("mlock: this platform has none")
        return False
    address = ctypes.addressof(ctypes.c_char.from_buffer(arena))
    if _libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE)):
        _note(f"mlock: {os.strerror(ctypes.get_errno())} (RLIMIT_MEMLOCK may be too low)")
        return False
    return True


def _note(what: str) -> None:
    if what not in _why:
        _why.append(what)


def buffer(size: int = 32) -> memoryview:
    """Return zeroed memory for a key, at most 64 bytes; it is zeroed again and used for another once nobody refers to it.

    Keep the object itself: a slice of it does not count as a reference.
    """
    try:
        slot = _free.popleft()
    except IndexError:
        slot = _grow()
    view = slot[:size]
    weakref.finalize(view, _give_back, slot).atexit = False
    return view


def _give_back(slot: memoryview) -> None:
    slot[:] = bytes(_SLOT)
    _free.append(slot)


def wipe(key: bytearray | memoryview) -> None:
    """Overwrite a key in place."""
    key[:] = bytes(len(key))


def copy_of(key: KeyBuffer) -> memoryview:
    """Return a copy of a key in memory for keys."""
    made = buffer(len(key))
    made[:] = key
    return made


def random_key(size: int = 32) -> memoryview:
    """Return fresh random bytes from the operating system, which never lie anywhere else."""
    made = buffer(size)
    if _libc is not None and hasattr(_libc, "getentropy") and size <= _LARGEST_ENTROPY:
        address = ctypes.addressof((ctypes.c_char * size).from_buffer(made))
        if not _libc.getentropy(ctypes.c_void_p(address), ctypes.c_size_t(size)):
            return made
    made[:] = os.urandom(size)
    return made


def forbid_core_dumps() -> bool:
    """Have the operating system make no core dump of this process, and let no other process of its user read its memory.

    That is for the whole process: debuggers can't attach either. Call it before keys are used.

    Returns:
        Whether it was done; if not, `protection` says why.
    """
    done = False
    if sys.platform.startswith("linux") and _libc is not None:
        done = not _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        if not done:
            _note(f"PR_SET_DUMPABLE: {os.strerror(ctypes.get_errno())}")
    try:
        import resource  # noqa: PLC0415 - Windows has none

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        done = done or not sys.platform.startswith("linux")
    except (ImportError, OSError, ValueError) as error:
        _note(f"RLIMIT_CORE: {error}")
    _state.process_not_dumped = done
    return done


def protection() -> MemoryProtection:
    """Return what the platform has granted for the memory that keys lie in."""
    if not _arenas:
        _free.append(_grow())
    return MemoryProtection(_state.locked, _state.not_dumped, _state.process_not_dumped, tuple(_why))
