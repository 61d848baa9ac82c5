"""Which pages of a file are free, read from the file itself (SQLite file format 1.5).

Pages on the freelist may fail authentication in an intact database: SQLite does not journal a free page before it is reused, so
a power cut can leave it torn, and integrity_check finds nothing wrong, because nothing reads it. A backup does read it.
"""

from __future__ import annotations

from collections.abc import Callable

from heliosvfs.pages import Buffer, NotAuthenticError, UnknownEpochError

__all__ = ["free_leaves"]


def free_leaves(open_page: Callable[[int], Buffer], page_count: int, usable: int) -> set[int]:
    """Return the numbers of the freelist's leaf pages, as far as its trunk pages authenticate.

    Args:
        open_page: Returns a plain page, or raises where it does not authenticate.
        page_count: Pages in the file.
        usable: Bytes of a page less the reserved ones.
    """
    leaves: set[int] = set()
    seen: set[int] = set()
    try:
        trunk = int.from_bytes(open_page(1)[32:36], "big")
        while 1 < trunk <= page_count and trunk not in seen:
            seen.add(trunk)
            page = bytes(open_page(trunk))
            count = min(int.from_bytes(page[4:8], "big"), usable // 4 - 2)
            leaves.update(int.from_bytes(page[8 + 4 * i : 12 + 4 * i], "big") for i in range(count))
            trunk = int.from_bytes(page[:4], "big")
    except (NotAuthenticError, UnknownEpochError):
        pass  # what hangs on an unreadable trunk is not known to be free
    return leaves - seen - {1}
