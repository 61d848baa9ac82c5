"""Statements that an exception has torn: SQLite would let their transaction go on.

A VFS in Python is where signals arrive: KeyboardInterrupt, or what another handler raises, comes out of an xRead or xWrite. No
SQLite error stands for it, so APSW answers SQLITE_ERROR, which SQLite takes for one of the statement's own, met between two
changes. Of a VFS it knows SQLITE_IOERR, after which it rolls back (isSpecialError): the statement may have stopped in the middle
of a b-tree. What was committed then had pages of no table, a wrong freelist, or rows that were gone. So the transaction is rolled
back here, as SQLite does after sqlite3_interrupt.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Any

import apsw

__all__ = ["GuardedCursor", "undo"]

_READS = re.compile(r"\s*(SELECT|VALUES|EXPLAIN)\b[^;]*;?\s*\Z", re.IGNORECASE)
_IN_THE_VFS = "apswvfs"  # begins the names of the frames that APSW adds to a traceback where it has called a VFS
_ATTEMPTS = 3


def undo(connection: apsw.Connection, error: BaseException, sql: str) -> None:
    """Roll back the open transaction if an exception came out of the VFS while a statement was changing something.

    Args:
        connection: The connection.
        error: What the statement raised.
        sql: Its text.
    """
    if isinstance(error, apsw.Error) or not connection.in_transaction or _READS.match(sql):
        return
    traceback = error.__traceback__
    while traceback is not None and not traceback.tb_frame.f_code.co_name.startswith(_IN_THE_VFS):
        traceback = traceback.tb_next
    if traceback is None:
        return
    for _ in range(_ATTEMPTS):  # the next interrupt may meet the rollback
        if connection.in_transaction:
            with contextlib.suppress(apsw.Error):
                connection.execute("ROLLBACK")


class GuardedCursor(apsw.Cursor):
    """An `apsw.Cursor`, or a mixin over one, whose torn statements are undone.

    A mixin's class names the methods that it stands over: `super` would cost each call more than all the rest of this.
    """

    __slots__ = ()

    _execute = apsw.Cursor.execute
    _executemany = apsw.Cursor.executemany

    def execute(self, statements: str, bindings: Any = None, **options: Any) -> Any:
        """See `apsw.Cursor.execute`."""
        try:
            return self._execute(statements, bindings, **options) if options else self._execute(statements, bindings)
        except BaseException as error:
            undo(self.connection, error, statements)
            raise

    def executemany(self, statements: str, sequenceofbindings: Iterable[Any], **options: Any) -> Any:
        """See `apsw.Cursor.executemany`."""
        try:
            return self._executemany(statements, sequenceofbindings, **options)
        except BaseException as error:
            undo(self.connection, error, statements)
            raise
