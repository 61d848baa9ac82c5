"""Who may prepare what: the authorizer, and the threads that are within an audited call (AUDIT.md, "What is denied")."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import apsw

from heliosaudit import guards
from heliosaudit.rules import Refusal, Rule
from heliosaudit.statements import Action, Verdict
from heliosaudit.turns import Turn

__all__ = ["BY_APPLICATION", "Gate"]

BY_APPLICATION = Refusal("denied by the application's authorizer")


def _first(answers: Iterable[Refusal | None]) -> Refusal | None:
    """Return the first refusal; rules after it are not asked."""
    return next((answer for answer in answers if answer is not None), None)


class Gate:
    """Answers SQLite's authorizer for one connection.

    Attributes:
        authorizer: The application's own.
        rules: Rules of the layer above, beside the log's own guard.
        actions: What SQLite has asked and nobody has looked at yet, by thread.
        lock: Held by the thread that is within an audited call, or keeps others from beginning one.
        enter: See `heliosaudit.turns.Turn.enter`.
        leave: See `heliosaudit.turns.Turn.leave`.
        internal: The thread that runs statements of the log; 0: none.
        asking: The thread that prepares a statement of the application's once more, to be told of it; 0: none.
    """

    def __init__(self) -> None:
        self.authorizer: Any = None
        self.rules: tuple[Rule, ...] = ()
        self.lock = Turn()
        self.enter, self.leave = self.lock.enter, self.lock.leave
        self.internal = 0
        self.asking = 0
        self._vacuuming = 0
        self._applying = 0
        self.actions: dict[int, list[Action]] = {}
        self._denials: dict[int, tuple[Refusal, Action | None]] = {}

    def is_internal(self) -> bool:
        """Tell whether this thread runs a statement of the log's."""
        return self.internal == threading.get_ident()

    def authorize(self, code: int, first: str | None, second: str | None, schema: str | None, source: str | None) -> int:
        """Answer, and note what was asked."""
        thread = threading.get_ident()
        if self.internal == thread:
            return apsw.SQLITE_OK
        if self._vacuuming == thread and schema is not None and schema.startswith("vacuum_"):
            return apsw.SQLITE_OK  # VACUUM copies the log like any other table, through SQL of its own (vacuum.c)
        answer: int = apsw.SQLITE_OK
        action = (code, first, second, schema, source)
        reason = None if self._applying == thread and code == apsw.SQLITE_SAVEPOINT else guards.denial(action)
        if reason is None and code in guards.WRITES and not self.lock.is_mine:
            reason = f"{first} would be written past the audit"
        refusal = self._refusal_of_action(action) if reason is None else Refusal(reason)
        if refusal is not None:
            self._denials[thread] = refusal, action
            return apsw.SQLITE_DENY
        if self.authorizer is not None and self.asking != thread:
            verdict: int = self.authorizer(code, first, second, schema, source)
            if verdict not in (apsw.SQLITE_OK, apsw.SQLITE_IGNORE):
                self._denials[thread] = BY_APPLICATION, action
                return verdict
            answer = verdict
        self.actions.setdefault(thread, []).append(action)
        return answer

    @contextmanager
    def applying_changeset(self) -> Iterator[None]:
        """Let this thread apply a changeset, whose own savepoint is denied otherwise."""
        self._applying = threading.get_ident()
        try:
            yield
        finally:
            self._applying = 0

    def begin_vacuum(self) -> None:
        """Note that this thread runs VACUUM."""
        self._vacuuming = threading.get_ident()

    def end_vacuum(self) -> None:
        """Note that it has ended."""
        self._vacuuming = 0
        self.take_actions()

    def deny(self, refusal: Refusal) -> None:
        """Note a denial that was not the authorizer's."""
        self._denials[threading.get_ident()] = refusal, None

    def refusal_of(self, sql: str, bindings: Any, verdict: Verdict) -> Refusal | None:
        """Ask the rules about a statement that is to run."""
        return _first(rule.inspect(sql, bindings, verdict) for rule in self.rules)

    def refusal_of_unprepared(self, sql: str) -> Refusal | None:
        """Ask the rules about SQL that could not be prepared."""
        return _first(rule.inspect_unprepared(sql) for rule in self.rules)

    def refusal_of_blob(self, schema: str, table: str, column: str, *, writes: bool) -> Refusal | None:
        """Ask the rules about a blob handle, for which SQLite asks no authorizer."""
        return self._refusal_of_action((apsw.SQLITE_UPDATE if writes else apsw.SQLITE_READ, table, column, schema, None))

    def _refusal_of_action(self, action: Action) -> Refusal | None:
        return _first(rule.authorize(action) for rule in self.rules)

    def told(self, error: BaseException, sql: str, refusal: Refusal | None, *, ran: bool) -> BaseException:
        """Ask the rules what the application is told of an error; what stands in its place leads back to it by nothing."""
        for rule in self.rules:
            told = rule.told(error, sql, refusal, ran=ran)
            if told is not None:
                told.__cause__ = None
                return told
        return error

    @property
    def must_prepare(self) -> bool:
        """Whether a permission may depend on who is acting, so that no cached statement may run."""
        return any(rule.depends_on_session for rule in self.rules)

    def take_actions(self) -> list[Action] | None:
        """Return what SQLite asked on this thread, and forget it; None: nothing."""
        return self.actions.pop(threading.get_ident(), None) if self.actions else None

    def take_denial(self) -> Refusal | None:
        """Return why something was denied on this thread, and forget it."""
        return self.take_denied()[0]

    def take_denied(self) -> tuple[Refusal | None, Action | None]:
        """Return why something was denied on this thread, and what SQLite asked about, and forget it."""
        return self._denials.pop(threading.get_ident(), (None, None)) if self._denials else (None, None)
