"""Changes whose statement is half-read, RETURNING, when a rollback undoes them (AUDIT.md, "States of a transaction").

SQLite has made all of a statement's changes before it hands out the first row; the event is made when the statement ends. What
has been rolled back in between is an event of work that was undone, whatever the statement itself comes to.
"""

from __future__ import annotations

from typing import Any

from heliosaudit.captures import Running
from heliosaudit.commits import Commits

__all__ = ["Unfinished"]


class Unfinished:
    """The half-read statements of a connection that have changed something."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._open: list[Running] = []

    def add(self, running: Running, depth: int) -> None:
        """Note a change that may be left half-read, in the innermost of ``depth`` savepoints."""
        self._open = [other for other in self._open if not other.closed]
        running.depth = depth
        self._open.append(running)

    def cursors(self) -> list[Any]:
        """Return the cursors of those that have not ended."""
        found = (running.cursor() for running in self._open if not running.closed and running.cursor is not None)
        return [cursor for cursor in found if cursor is not None]

    def on_rollback(self) -> None:
        """Note, as a rollback hook, that everything was undone.

        SQLite commits nothing before they end; what it commits then is of statements whose own events are written.
        """
        self._commits.note_rollback()
        for running in self._open:
            if not running.closed:
                running.undone = True
                if not running.may_commit:
                    self._commits.allow(running)

    def on_rollback_to(self, depth: int) -> None:
        """Note that what was done within the savepoint that is the ``depth``th, or in those within it, was undone."""
        for running in self._open:
            running.undone = running.undone or running.depth >= depth
