"""Changes that nothing in the log speaks of: somebody wrote to the file past the audit (AUDIT.md, "Changed outside").

The last audited connection to leave notes what the file was like, and the next to arrive compares. Where the log has grown since,
or a session ended without a word, nothing can be said. With a rollback journal SQLite counts every transaction (SQLite file
format, 1.3.8), so none is missed; in WAL mode it does not, and what changed neither schema nor number of pages goes unseen.
"""

from __future__ import annotations

from typing import Any

import apsw

from heliosaudit.events import Event, event_of
from heliosaudit.schemas import LOG, STATE
from heliosaudit.sessions import current

__all__ = ["compare", "forget", "note"]

_COUNTER = 24  # offset of the file change counter, 4 bytes big-endian
_COUNTING = ("delete", "truncate", "persist")


def note(cursor: apsw.Cursor) -> None:
    """Note what the file will be like, as the last act of a transaction that is about to commit."""
    state = _state(cursor)
    if state["counter"] is not None:
        state["counter"] += 1  # by this transaction's commit
    head = cursor.execute(f"SELECT max(id) FROM main.{LOG}").get
    row = (1, head, *state.values())
    cursor.execute(
        f"INSERT OR REPLACE INTO main.{STATE}(id, head, mode, counter, schema, pages, free) VALUES(?, ?, ?, ?, ?, ?, ?)", row
    )


def forget(cursor: apsw.Cursor) -> None:
    """Note that nothing can be said: others are still there."""
    cursor.execute(f"DELETE FROM main.{STATE}")


def compare(cursor: apsw.Cursor) -> list[Event]:
    """Compare the file with what was noted, at the beginning of a transaction; returns an event if it was changed outside."""
    rows: list[Any] = cursor.execute(f"SELECT head, mode, counter, schema, pages, free FROM main.{STATE}").fetchall()
    if not rows or cursor.execute(f"SELECT max(id) FROM main.{LOG}").get != rows[0][0]:
        return []
    was = dict(zip(("mode", "counter", "schema", "pages", "free"), rows[0][1:], strict=True))
    now = _state(cursor)
    if was["mode"] != now["mode"]:
        was["counter"] = now["counter"] = None
    changed = [name for name in ("counter", "schema", "pages", "free") if was[name] != now[name]]
    if not changed:
        return []
    details: dict[str, Any] = {"since_event": rows[0][0], "changed": changed}
    if "counter" in changed:
        details["transactions"] = now["counter"] - was["counter"]
    session = current()
    return [event_of("CHANGED OUTSIDE", event_class="AUDIT", user=session.user, session_id=session.id, details=details)]


def _state(cursor: apsw.Cursor) -> dict[str, Any]:
    """Return journal mode, change counter (None where it does not count), schema version, pages and free pages."""

    def ask(pragma: str) -> Any:
        return cursor.execute(f"PRAGMA main.{pragma}").get

    mode = str(ask("journal_mode")).lower()
    counter = None
    if mode in _COUNTING:
        counter = int.from_bytes(cursor.connection.read("main", 0, _COUNTER, 4)[1], "big")
    shrinks = bool(ask("auto_vacuum"))  # a commit moves pages then
    pages = (None, None) if shrinks else (ask("page_count"), ask("freelist_count"))
    return {"mode": mode, "counter": counter, "schema": ask("schema_version"), "pages": pages[0], "free": pages[1]}
