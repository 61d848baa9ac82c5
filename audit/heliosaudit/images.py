"""Row images: what each row was before and after a change, from SQLite's preupdate hook (AUDIT.md, "Row images").

The hook sees what the update hook misses: tables WITHOUT ROWID, rows that OR REPLACE removes, DELETE without WHERE, cascades and
triggers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import apsw

from heliosaudit.captures import Running
from heliosaudit.errors import AuditWriteError
from heliosaudit.literals import literal
from heliosaudit.policies import Policy
from heliosaudit.schemas import is_reserved
from heliosaudit.writers import Writer

__all__ = ["Images"]

_MOST = 1000  # rows of one statement that are shown; of the rest the event says how many there were


class _Shape(NamedTuple):
    """Columns of a table, by their index, as it is since the connection first changed it.

    Attributes:
        key: The primary key of a table WITHOUT ROWID, in its order; empty: it has a rowid.
        hidden: Columns whose values the policy redacts.
    """

    key: tuple[int, ...]
    hidden: frozenset[int]


Row = tuple[str, str, str, int, "Sequence[Any] | None", "Sequence[Any] | None"]


class Images:
    """Collects the rows that statements change."""

    def __init__(self, writer: Writer, policy: Policy) -> None:
        self._writer = writer
        self._policy = policy
        self._shapes: dict[tuple[str, str, int], _Shape] = {}
        self._open: list[Running] = []  # statements that have begun; the last that has not ended is the one that is running

    def begin(self, running: Running) -> None:
        """Note that a statement begins, within another perhaps."""
        self._forget_ended()
        self._open.append(running)

    @contextmanager
    def during(self, running: Running) -> Iterator[None]:
        """Take what is changed meanwhile for the work of ``running``, which may go on afterwards."""
        self.begin(running)
        try:
            yield
        finally:
            self._open.remove(running)

    def _forget_ended(self) -> None:
        while self._open and self._open[-1].closed:
            self._open.pop()

    def see(self, update: apsw.PreUpdate) -> None:
        """Note a row that is about to change; no SQL may be run here."""
        self._forget_ended()
        if not self._open or is_reserved(update.table_name):
            return
        running = self._open[-1]
        if running.verdict.operation == "VACUUM":  # it copies each row to a database that is gone when the event is made
            return
        running.changed_rows += 1
        if running.images is None:
            running.images = []
        if len(running.images) < _MOST:
            operation = str(update.op) if update.blob_write < 0 else "BLOB WRITE"  # which SQLite tells as the DELETE of a row
            try:
                old = None if operation == "INSERT" else update.old
                new = None if operation in ("DELETE", "BLOB WRITE") else update.new
            except apsw.RangeError:  # APSW asks for the virtual generated columns as well, which SQLite does not have here
                old = new = None
            running.images.append((operation, update.database_name, update.table_name, update.rowid, old, new))

    def show(self, running: Running, affected: int | None) -> None:
        """Turn what was collected into what the record holds.

        Raises:
            AuditWriteError: Rows changed and the hook saw none: an `apsw.Session` on the connection takes its place.
        """
        verdict = running.verdict
        if not running.changed_rows:
            if verdict.event_class == "DML" and affected and not verdict.operation.startswith("BLOB"):
                msg = "row images can't be captured: does an apsw.Session on this connection take the preupdate hook?"
                raise AuditWriteError(msg)
            return
        if self._policy.redacted_columns:
            self._shapes.clear()  # another connection may have made the table anew
        shows = self._policy.capture_rows == "values" and self._policy.capture_parameters == "expanded"
        images = [self._shown(row, shows=shows) for row in running.images or []]
        if running.changed_rows > len(images):
            images.append({"more": running.changed_rows - len(images)})
        running.images = images

    def _shown(self, row: Row, *, shows: bool) -> dict[str, Any]:
        operation, database, table, rowid, old, new = row
        image: dict[str, Any] = {"op": operation, "table": f"{database}.{table}", "key": self._key(row, rowid)}
        if old is None and new is None:
            image["unreadable"] = "the table has virtual generated columns"
        elif shows:
            hidden = self._shape(row).hidden
            if old is not None:
                image["old"] = [self._literal(value, hides=at in hidden) for at, value in enumerate(old)]
            if new is not None:
                image["new"] = [
                    None if value is apsw.no_change else self._literal(value, hides=at in hidden) for at, value in enumerate(new)
                ]
        return image

    def _literal(self, value: Any, *, hides: bool) -> str:
        return "/* redacted */" if hides else literal(value, self._policy.max_value_length)

    def _key(self, row: Row, rowid: int) -> Any:
        """Return the rowid, or the primary key of a table that has none."""
        _, _, _, _, old, new = row
        values = old if old is not None else new or ()
        shape = self._shape(row)
        return [self._literal(values[at], hides=at in shape.hidden) for at in shape.key] if shape.key else rowid

    def _shadows_redacted(self, kind: str, table: str) -> bool:
        """Tell whether a table is one in which a virtual table that has redacted columns keeps its content."""
        owners = {entry.partition(".")[0] for entry in self._policy.redacted_columns}
        return kind == "shadow" and any(table.lower().startswith(f"{owner}_") for owner in owners)

    def _shape(self, row: Row) -> _Shape:
        """Return which of a table's columns are its key, and which are not to be shown, whatever statement changes them."""
        _, database, table, _, old, new = row
        known = (database, table, len(old if old is not None else new or ()))
        if known not in self._shapes:
            schema, name = database.replace('"', '""'), table.replace('"', '""')
            tables = self._writer.run(f'PRAGMA "{schema}".table_list("{name}")')
            columns = self._writer.run(f'PRAGMA "{schema}".table_xinfo("{name}")')
            key = sorted((column[5], column[0]) for column in columns if column[5]) if tables and tables[0][4] else []
            hidden = {column[0] for column in columns if f"{table}.{column[1]}".lower() in self._policy.redacted_columns}
            # generated ones: which number the hook gives the others varies
            if (hidden and any(column[6] for column in columns)) or (tables and self._shadows_redacted(tables[0][2], table)):
                hidden = set(range(len(columns)))
            self._shapes[known] = _Shape(tuple(at for _, at in key), frozenset(hidden))
        return self._shapes[known]
