"""A bound on SQLite's memory in this process (https://sqlite.org/c3ref/hard_heap_limit64.html)."""

from __future__ import annotations

import apsw

from heliosvfs.errors import UsageError

__all__ = ["cache_share", "limit", "used"]

_MEGABYTE = 1 << 20
_SHARE = 4  # of the limit, for one connection's page cache: the rest is for others, sorting and the WAL's index


def limit(megabytes: int) -> None:
    """Bound the memory of all connections of this process together.

    Half of it is a soft limit, past which SQLite gives back cached pages before it asks for more; at the limit itself it fails
    with `apsw.NoMemError`. A limit that is there already is only ever lowered.

    Args:
        megabytes: The bound, in MiB.

    Raises:
        UsageError: It is less than 1.
    """
    if megabytes < 1:
        msg = f"a memory limit is at least 1 MiB, not {megabytes}"
        raise UsageError(msg)
    bound = megabytes * _MEGABYTE
    there = apsw.hard_heap_limit(-1)
    if not there or bound < there:
        apsw.hard_heap_limit(bound)
        apsw.soft_heap_limit(bound // 2)


def cache_share(megabytes: int) -> float:
    """Return the MiB of page cache that a connection takes under a limit, at most 16."""
    return min(16.0, megabytes / _SHARE)


def used() -> int:
    """Return the bytes that SQLite uses in this process."""
    return int(apsw.memory_used())
