"""Changes made while another statement of their connection runs, by a function that it calls.

A statement that fails takes them along where SQLite opened a statement journal for it (vdbeaux.c, vdbeCloseStatement), and no
hook tells. So the statement gets a frame, as a savepoint has one, with the first change that comes within it, whose event is
written at once: that event's row shares the fate of all that follow (AUDIT.md, "States of a transaction").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliosaudit.captures import Running
from heliosaudit.events import Event
from heliosaudit.ledgers import Ledger
from heliosaudit.writers import Writer

if TYPE_CHECKING:
    from heliosaudit.cursors import Cursor

__all__ = ["Nested"]


class Nested:
    """The changes within other statements of a connection.

    Attributes:
        executing: The cursor whose call of APSW is the innermost, None outside of any.
    """

    def __init__(self, writer: Writer, ledger: Ledger) -> None:
        self.executing: Cursor | None = None
        self._writer = writer
        self._ledger = ledger

    def is_within(self, cursor: Cursor) -> bool:
        """Tell whether a cursor's statement has run within the call of another."""
        executing = self.executing
        return executing is not None and (executing is not cursor or executing.outer is not None)

    def is_open(self) -> bool:
        """Tell whether a statement that changes something is executing: what is written now is undone if it fails."""
        return bool(self._around(None))

    def enter(self, cursor: Cursor, *, is_inner: bool) -> None:
        """Note that a cursor's call of APSW begins, within that of another where ``is_inner``."""
        cursor.outer, self.executing = self.executing if is_inner else None, cursor

    def leave(self, cursor: Cursor) -> None:
        """Note that it has ended."""
        if self.executing is cursor:
            self.executing, cursor.outer = cursor.outer, None

    def add_work(self, running: Running | None, event: Event) -> None:
        """Keep the event of work in the open transaction.

        Raises:
            AuditWriteError: It is the first within another statement, and can't be written.
        """
        new = [outer for outer in self._around(running) if outer.frame is None]
        transactions = self._ledger.transactions
        if new and not transactions.frames:
            transactions.begin()
        for outer in new:
            transactions.begin()
            outer.frame = transactions.frames[-1]
        self._ledger.add_work(event)
        if new:
            self._ledger.flush_inside()
            for outer in new:
                outer.first_within = self._writer.last_id

    def end(self, running: Running, *, failed: bool) -> None:
        """Decide what was done within a statement that has ended."""
        transactions = self._ledger.transactions
        frame, running.frame = running.frame, None
        index = next((index for index, other in enumerate(transactions.frames) if other is frame), None)
        if index is None:  # a rollback has decided it
            return
        if failed and self._writer.connection.in_transaction and not self._writer.holds(running.first_within):
            self._ledger.undone(index)
        else:
            transactions.release(index)

    def _around(self, running: Running | None) -> list[Running]:
        """Return the statements within which one has run, the outermost first."""
        found = []
        cursor = self.executing
        while cursor is not None:
            outer = cursor.running
            if outer is not None and outer is not running and outer.verdict.is_work:
                found.append(outer)
            cursor = cursor.outer
        return found[::-1]
