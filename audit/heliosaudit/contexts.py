"""``with connection:`` as APSW does it (src/connection.c, Connection_enter and Connection_exit), by statements that are audited.

APSW's own runs them past its cursors, and with an authorizer set its ROLLBACK after a COMMIT that failed is denied.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import apsw

from heliosaudit.cursors import Cursor

if TYPE_CHECKING:
    from heliosaudit.connections import Audited

__all__ = ["Context"]


class Context:
    """The ``with`` blocks that are open on a connection."""

    def __init__(self) -> None:
        self._level = 0
        self._outer_is_transaction = False

    @staticmethod
    def _run(connection: Audited, sql: str) -> None:
        cursor = Cursor(connection)
        cursor.is_control = True
        try:
            cursor.execute(sql)
        finally:
            cursor.close()

    @staticmethod
    def _try(connection: Audited, sql: str) -> None:
        """Show the application's exec tracer what APSW tries, and what is no error if it fails, as here it would."""
        if connection.exec_trace is not None:
            connection.exec_trace(connection, sql, None)

    def enter(self, connection: Audited) -> None:
        """Begin a transaction, or a savepoint within one."""
        if self._level == 0:
            self._outer_is_transaction = False
            if connection.txn_state() == apsw.SQLITE_TXN_NONE:
                begin = f"BEGIN {connection.transaction_mode}"
                if connection.in_transaction:
                    self._try(connection, begin)
                else:
                    self._run(connection, begin)
                    self._outer_is_transaction = True
                    self._level = 1
                    return
        self._run(connection, f'SAVEPOINT "_apsw-{self._level}"')
        self._level += 1

    def leave(self, connection: Audited, *, failed: bool) -> None:
        """Commit, or roll back."""
        self._level = max(0, self._level - 1)
        if self._level == 0 and self._outer_is_transaction:
            self._end_transaction(connection, failed=failed)
            return
        if failed:
            with contextlib.suppress(apsw.Error):  # RELEASE will say it
                self._run(connection, f'ROLLBACK TO SAVEPOINT "_apsw-{self._level}"')
        self._release(connection, f'RELEASE SAVEPOINT "_apsw-{self._level}"')

    def _end_transaction(self, connection: Audited, *, failed: bool) -> None:
        if not failed:
            try:
                self._run(connection, "COMMIT")
            except BaseException:
                if connection.in_transaction:
                    self._run(connection, "ROLLBACK")
                else:
                    self._try(connection, "ROLLBACK")
                raise
            return
        self._run(connection, "ROLLBACK")

    def _release(self, connection: Audited, sql: str) -> None:
        try:
            self._run(connection, sql)
        except apsw.Error as error:
            msg = (
                "You have done transaction control (eg COMMIT, ROLLBACK, savepoints) while using Connection context manager "
                f'("with") for transaction control, which gives error {str(error).removeprefix("SQLError: ")}'
            )
            raise apsw.SQLError(msg) from None
