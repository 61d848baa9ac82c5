"""The write lock of a database, held while something beside its pages is changed: its superblock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import apsw

__all__ = ["write_lock"]


@contextmanager
def write_lock(connection: apsw.Connection) -> Iterator[None]:
    """Hold a connection's write lock within the block, in a transaction that changes no page and is rolled back.

    To take it rolls a hot journal back first, and keeps other writers out.

    Raises:
        apsw.BusyError: Another connection is writing.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        if connection.in_transaction:  # an error of reading or writing has ended it (SQLite, lang_transaction.html)
            connection.execute("ROLLBACK")
