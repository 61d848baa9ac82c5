"""What statements are, kept with their SQL: SQLite asks its authorizer only when it prepares (AUDIT.md, "Mechanism")."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import apsw

from heliosaudit.captures import Running
from heliosaudit.gates import Gate
from heliosaudit.policies import Policy
from heliosaudit.private import refuse
from heliosaudit.schemas import is_reserved
from heliosaudit.statements import Action, Verdict, is_change, judge
from heliosaudit.writers import Writer

if TYPE_CHECKING:
    from heliosaudit.cursors import Cursor

__all__ = ["Verdicts"]

_KEPT = 2000
_NAMES = "SELECT 'temp.' || name, name FROM temp.sqlite_schema UNION ALL SELECT name, name FROM main.sqlite_schema"


class Verdicts:
    """Judges statements, and remembers."""

    def __init__(self, writer: Writer, gate: Gate, policy: Policy) -> None:
        self._writer = writer
        self._gate = gate
        self._policy = policy
        self._kept: dict[str, Verdict] = {}
        self._outdated: dict[str, Verdict] = {}
        self._may_change_back = False

    def reserved_names(self) -> set[str]:
        """Return the names of the log's that there are.

        They are looked through here, for the application may have functions of its own under the names of SQLite's.
        """
        return {name for name, short in self._writer.run(_NAMES) if is_reserved(short)}

    def clear(self) -> None:
        """Forget them all."""
        self._kept, self._outdated = {}, {}

    def schema_changed(self) -> None:
        """Judge all anew, for the same text may be about another table now: SQLite itself notices only when it runs."""
        self._kept, self._outdated = {}, self._kept
        self._may_change_back = True

    def rolled_back(self) -> None:
        """Judge all anew if a change of the schema may have been undone."""
        if self._may_change_back:
            self.schema_changed()
            self._may_change_back = False

    def of(self, cursor: Cursor, sql: str) -> Verdict:
        """Judge a statement that is about to run on a cursor, and tell the one before it in its string what is that one's."""
        actions = self._gate.take_actions()
        verdict = None if actions else self._kept.get(sql)
        if verdict is None:
            if actions and not cursor.is_fresh:
                # it was prepared while the one before it ran on, which may have prepared statements as well, as FTS5 does
                own = self._ask(sql)
                if cursor.running is not None:
                    self._leave_to(cursor.running, actions, own)
                actions = own
            verdict = self._judge(sql, actions or [])
        cursor.is_fresh = False
        if not cursor.is_explain:
            return verdict
        is_logged = self._policy.log_select
        return replace(
            verdict, event_class="SELECT", operation="EXPLAIN", is_work=False, is_logged=is_logged, never_returns_rows=False
        )

    @staticmethod
    def _leave_to(running: Running, actions: list[Action], own: list[Action]) -> None:
        """Leave to a statement what SQLite asked while it ran, and not for the one after it in its string, whose ``own`` it is.

        A change is only judged once more by itself, so that it may be given too much: SQLite may have had the other in its cache.
        """
        is_query = running.verdict.event_class == "SELECT"
        before = actions[: -len(own)] if is_query and own and actions[-len(own) :] == own else actions
        running.asked = [*running.asked, *before]

    def _judge(self, sql: str, actions: list[Action]) -> Verdict:
        verdict = judge(sql, actions, self._policy)
        if not actions and verdict.event_class and verdict.operation != "VACUUM":
            asked = self._ask(sql)
            # what can't be prepared any more, as its table is gone, is what it was, and fails
            verdict = judge(sql, asked, self._policy) if asked else self._outdated.get(sql, verdict)
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[sql] = verdict
        return verdict

    def judge_again(self, running: Running) -> None:
        """Judge a statement anew that SQLite may have prepared again when it ran, because the schema had changed.

        A query asks for no change itself: what it is asked for then is that of a function, as of an extension, that runs SQL past
        all cursors. The query's event is that of the change.
        """
        asked = [*running.asked, *(self._gate.take_actions() or ())]
        if not asked or running.cursor is None or running.verdict.event_class not in ("DML", "SELECT"):
            return
        actions = self._ask(running.sql)
        if not actions or running.verdict.operation == "EXPLAIN":
            return
        verdict = judge(running.sql, actions, self._policy)
        self._kept[running.sql] = verdict
        within = [action for action in asked if is_change(action)] if verdict.event_class == "SELECT" else []
        running.verdict = judge(running.sql, [*actions, *within], self._policy) if within else verdict

    def _ask(self, sql: str) -> list[Action]:
        """Prepare a statement once more, to be asked about it; without its values, which only its own cursor can convert."""
        was = self._gate.enter()
        self._gate.asking = threading.get_ident()
        try:
            asking = apsw.Cursor(self._writer.connection)
            asking.exec_trace = refuse  # it is prepared, and not run
            asking.execute(sql, apsw._null_bindings, can_cache=False)  # type: ignore[attr-defined]  # noqa: SLF001 - as apsw.ext does
        except apsw.Error:
            pass
        finally:
            self._gate.asking = 0
            self._gate.leave(was)
            self._gate.take_denial()
        return self._gate.take_actions() or []
