"""What the log does on the application's own connection without its noticing (AUDIT.md, "Transparency").

`changes()`, `last_insert_rowid()` and `total_changes()` are put back; hooks and limits of the application do not apply meanwhile.
"""

from __future__ import annotations

from typing import Any

import apsw

from heliosaudit.schemas import PREFIX

__all__ = ["Scratch", "allow", "keep", "refuse"]

_HOLD = f"{PREFIX}_hold"
_COUNT = f"{PREFIX}_count"


def allow(_cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
    """Exec tracer of the log's own cursors: the connection's is not for them."""
    return True


def keep(_cursor: apsw.Cursor, row: Any) -> Any:
    """Row tracer of the log's own cursors: the connection's must neither see nor change what the log reads of itself."""
    return row


def refuse(_cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
    """Exec tracer of a cursor whose statement is only to be prepared."""
    return False


class Scratch:
    """Tables in the temporary database: a row to hold a transaction open by, and rows to count changes with."""

    def __init__(self, secret: str) -> None:
        mark = f" -- {secret}"
        self._make = (
            f"CREATE TEMP TABLE IF NOT EXISTS {_HOLD}(b BLOB){mark}",
            f"INSERT INTO temp.{_HOLD}(rowid, b) VALUES(1, x'00') ON CONFLICT DO NOTHING{mark}",
            f"CREATE TEMP TABLE IF NOT EXISTS {_COUNT}(n INTEGER PRIMARY KEY, x){mark}",
        )
        self._none = f"DELETE FROM temp.{_COUNT} WHERE 0{mark}"
        self._fill = (
            f"WITH RECURSIVE i(n) AS (SELECT ? UNION ALL SELECT n + 1 FROM i WHERE n < ?) "
            f"INSERT INTO temp.{_COUNT}(n) SELECT n FROM i{mark}"
        )
        # no function: the application may have one of its own under the same name
        self._size = f"SELECT n FROM temp.{_COUNT} ORDER BY n DESC LIMIT 1{mark}"
        self._some = f"UPDATE temp.{_COUNT} SET x = NULL WHERE n <= ?{mark}"

    def make(self, cursor: apsw.Cursor) -> None:
        """Make the tables, or make them again: PRAGMA temp_store drops them."""
        for statement in self._make:
            cursor.execute(statement)

    @staticmethod
    def hold(connection: apsw.Connection) -> apsw.Blob:
        """Open a write handle: SQLite commits no autocommit statement before it is closed (vdbeaux.c, sqlite3VdbeHalt)."""
        return apsw.Connection.blob_open(connection, "temp", _HOLD, "b", 1, True)  # noqa: FBT003 - APSW's signature

    def restore(self, connection: apsw.Connection, cursor: apsw.Cursor, changes: int, rowid: int) -> int:
        """Make `changes()` and `last_insert_rowid()` say again what they said; returns how many rows that changed."""
        changed = 0
        if changes == connection.changes():
            pass
        elif changes == 0:
            cursor.execute(self._none)
        else:
            found = cursor.execute(self._size).fetchall()
            filled: Any = found[0][0] if found else 0
            if filled < changes:
                cursor.execute(self._fill, (filled + 1, changes))
            cursor.execute(self._some, (changes,))
            changed = max(0, changes - filled) + changes
        connection.set_last_insert_rowid(rowid)
        return changed
