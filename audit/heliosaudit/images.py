"""Row images: what each row was before and after a change, from SQLite's preupdate hook (AUDIT.md, "Row images").

The hook sees what the update hook misses: tables WITHOUT ROWID, rows that OR REPLACE removes, DELETE without WHERE, cascades and
triggers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from heliosaudit.captures import Running
from heliosaudit.errors import AuditWriteError
from heliosaudit.literals import literal
from heliosaudit.policies import Policy
from heliosaudit.schemas import is_reserved
from heliosaudit.writers import Writer

__all__ = ["Images"]

_MOST = 1000  # rows of one statement that are shown; of the rest the event says how many there were

Row = tuple[str, str, str, int, "Sequence[Any] | None", "Sequence[Any] | None"]


class Images:
    """Collects the rows that the statement now running changes.

    Attributes:
        running: That statement.
    """

    def __init__(self, writer: Writer, policy: Policy) -> None:
        self._writer = writer
        self._policy = policy
        self._keys: dict[tuple[str, str, int], list[tuple[str, int]]] = {}
        self.running: Running | None = None

    def see(self, update: apsw.PreUpdate) -> None:
        """Note a row that is about to change; no SQL may be run here."""
        running = self.running
        if running is None or is_reserved(update.table_name):
            return
        running.changed_rows += 1
        if running.images is None:
            running.images = []
        if len(running.images) < _MOST:
            operation = str(update.op)
            old = None if operation == "INSERT" else update.old
            new = None if operation == "DELETE" else update.new
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
        shows = self._policy.capture_rows == "values" and verdict.shows_values and self._policy.capture_parameters == "expanded"
        images = [self._shown(row, shows=shows) for row in running.images or []]
        if running.changed_rows > len(images):
            images.append({"more": running.changed_rows - len(images)})
        running.images = images

    def _shown(self, row: Row, *, shows: bool) -> dict[str, Any]:
        operation, database, table, rowid, old, new = row
        image: dict[str, Any] = {"op": operation, "table": f"{database}.{table}", "key": self._key(row, rowid)}
        if shows:
            limit = self._policy.max_value_length
            if old is not None:
                image["old"] = [literal(value, limit) for value in old]
            if new is not None:
                image["new"] = [None if value is apsw.no_change else literal(value, limit) for value in new]
        return image

    def _key(self, row: Row, rowid: int) -> Any:
        """Return the rowid, or the primary key of a table that has none."""
        _, database, table, _, old, new = row
        values = old if old is not None else new or ()
        known = (database, table, len(values))
        if known not in self._keys:
            schema, name = database.replace('"', '""'), table.replace('"', '""')
            tables = self._writer.run(f'PRAGMA "{schema}".table_list("{name}")')
            without_rowid = bool(tables and tables[0][4])
            columns = self._writer.run(f'PRAGMA "{schema}".table_info("{name}")') if without_rowid else []
            self._keys[known] = sorted(((column[1], column[0]) for column in columns if column[5]), key=lambda column: column[1])
        primary = self._keys[known]
        return [literal(values[at], self._policy.max_value_length) for _, at in primary] if primary else rowid
