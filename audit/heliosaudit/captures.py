"""From hooks to events: what the exec tracer, the authorizer and the audited cursor see of a statement (AUDIT.md, "Capture")."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import apsw
import msgspec

from heliosaudit import sessions
from heliosaudit.events import Event, timestamp
from heliosaudit.literals import literal, stored, without_uri_secrets
from heliosaudit.policies import Policy
from heliosaudit.statements import Action, Verdict

if TYPE_CHECKING:
    from heliosaudit.cursors import Cursor
    from heliosaudit.transactions import Frame

__all__ = ["Running", "Who", "commitment", "describe", "event_for", "rendered", "said", "wants", "who"]

_OPENING = ("ATTACH", "VACUUM")  # they are given names of files, which may be URIs with a key
Bindings = Any  # a sequence, or what APSW takes for a mapping


class Running:
    """A statement between its start and its end.

    Attributes:
        cursor: Weak reference to the cursor that runs it; None for a blob handle, and for ``with connection:``.
        verdict: What it is.
        sql: Its text.
        bindings: What is bound.
        session: Who began it: it may be read on, and end, while somebody else is acting.
        started: Nanoseconds of the performance counter.
        occurred: Nanoseconds since the epoch.
        rows: Rows handed out so far.
        changes: SQLite's `total_changes` before it.
        holder: A write handle on a temporary row, which keeps an autocommit statement's transaction open until its event is in.
        began: Whether a BEGIN of ours is around it.
        may_commit: Whether SQLite may commit while it runs.
        closed: Whether it has ended.
        recorded: Whether its event was written before it ran.
        undone: Whether a rollback has undone its changes before it ended.
        followed: Whether it was followed what it did to the transaction.
        is_prevented: Whether it was not let run after all.
        has_failed: Whether it raised something, which may not be recorded yet.
        settled: Whether its event was handed over, or there is none.
        depth: How many savepoints, the transaction counted, were open when it began.
        schema: Schema version before it, where it may turn out to change nothing.
        images: Row images so far.
        changed_rows: How many rows the preupdate hook saw.
        details: What else its event says.
        event: Its event, once it is made.
        frame: What was changed within it, by a function that it called, say; see `heliosaudit.nested`.
        first_within: The id of the first event of that.
        asked: What SQLite asked while it ran, where the statement after it in its string has been prepared.
    """

    # what most statements never need has its value here: one is made for each row of executemany
    rows = 0
    holder: Any = None
    began = False
    may_commit = False
    closed = False
    schema: int | None = None
    recorded = False
    undone = False
    is_prevented = False
    has_failed = False
    settled = False
    followed = False
    depth = 0
    images: list[Any] | None = None
    changed_rows = 0
    details: dict[str, Any] | None = None
    event: Event | None = None
    frame: Frame | None = None
    first_within = 0
    asked: Sequence[Action] = ()

    def __init__(self, cursor: Cursor | None, verdict: Verdict, sql: str, bindings: Bindings, changes: int) -> None:
        # weak, for a cycle would keep a dropped cursor from ending it
        self.cursor = None if cursor is None else weakref.ref(cursor)
        self.verdict = verdict
        self.sql = sql
        self.bindings = bindings if type(bindings) is tuple or verdict.never_returns_rows else _copied(bindings)
        self.changes = changes
        self.session = sessions.current()
        self.occurred = time.time_ns()
        self.started = time.perf_counter_ns()


def _copied(bindings: Bindings) -> Bindings:
    """Return what is bound as it is now: the application may change it before a statement that is half-read ends."""
    if type(bindings) is dict:
        return bindings.copy()
    return tuple(bindings) if type(bindings) is list else bindings


def said(error: BaseException) -> str:
    """Describe an error for the log: an exception of the application's own may quote values, so only its class is named."""
    name = type(error).__name__
    return f"{name}: {without_uri_secrets(str(error))}" if isinstance(error, apsw.Error) else name


def wants(policy: Policy, user: str) -> bool:
    """Tell whether a policy wants a user's events."""
    return user not in policy.exclude_users and (not policy.include_users or user in policy.include_users)


class Who:
    """What a policy records of a session, in the order of the record's fields."""

    __slots__ = ("application_name", "client_ip", "custom", "id", "policy", "user", "wanted")

    def __init__(self, session: sessions.Session, policy: Policy) -> None:
        self.policy = policy
        self.wanted = wants(policy, session.user)
        self.id = session.id
        self.user = session.user
        self.client_ip = session.client_ip if policy.capture_client_ip else None
        application_name = session.application_name or policy.application_name
        self.application_name = application_name if policy.capture_application_name else None
        self.custom = session.custom or None if policy.capture_custom_fields else None


def who(policy: Policy, session: sessions.Session | None = None) -> Who:
    """Return what a policy records of a session; None: of the one that is acting."""
    if session is None:
        session = sessions.current()
    known: Who | None = session.__dict__.get("_who")
    if known is None or known.policy is not policy:
        known = session.__dict__["_who"] = Who(session, policy)
    return known


def event_for(  # noqa: PLR0913 - what a statement has come to
    running: Running,
    policy: Policy,
    *,
    success: bool = True,
    error: str | None = None,
    affected: int | None = None,
    is_denied: bool = False,
) -> Event | None:
    """Make the event of a statement that has ended; None if the policy does not want this user's.

    What reads the log, and what was denied, is recorded whoever it was.
    """
    acting, verdict = who(policy, running.session), running.verdict
    if not acting.wanted and not verdict.reads_log and not is_denied:
        return None
    query, parameters, values = describe(verdict, running.bindings, policy)
    event = Event(
        [
            "",
            timestamp(running.occurred),
            acting.id,
            acting.user,
            verdict.operation,
            verdict.target,
            query,
            affected,
            success,
            error,
            acting.client_ip,
            acting.application_name,
            verdict.database if policy.capture_database_name else None,
            (time.perf_counter_ns() - running.started) // 1000 if policy.capture_execution_time else None,
            verdict.event_class,
            False,
            verdict.reads,
            verdict.writes,
            acting.custom,
            running.images,
            parameters,
            running.details,
        ],
        is_work=verdict.is_work and (success or bool(affected)),
    )
    if values is not None:
        event.values = values
    return event


def describe(
    verdict: Verdict, bindings: Bindings, policy: Policy
) -> tuple[str, list[str] | None, list[tuple[bytes, Any]] | None]:
    """Return the SQL as the policy wants it, the commitments to its values, and the values with their salts."""
    template = verdict.template
    if template is None:
        return "", None, None
    if verdict.operation in _OPENING and bindings is not None:
        bindings = _without_keys(bindings)
    if bindings is None or not template.has_parameters or not verdict.shows_values:
        return template.text, None, None  # without bindings, what looks like parameters is none, as in CREATE VIRTUAL TABLE
    if policy.capture_parameters == "redactable":
        salted = [(secrets.token_bytes(16), _storable(value)) for value in template.values(bindings)]
        return template.text, [commitment(salt, value) for salt, value in salted], salted
    if policy.capture_parameters == "hashed":
        key = policy.hash_key
        hashed = template.replace(bindings, lambda value: "/* " + hmac.digest(key, _bytes(value), "sha256").hex() + " */ ?")
        return _cut(hashed, policy), None, None
    return rendered(verdict, bindings, policy), None, None


def rendered(verdict: Verdict, bindings: Bindings, policy: Policy) -> str:
    """Return the SQL of a statement that has parameters with its values in their places, not longer than the policy wants."""
    assert verdict.template is not None  # noqa: S101 - or there would be no event
    return _cut(verdict.template.render(bindings, policy.max_value_length), policy)


def _cut(query: str, policy: Policy) -> str:
    longest = policy.max_query_length
    return query if len(query) <= longest else f"{query[:longest]} /* {len(query) - longest} more characters */"


def _without_keys(bindings: Bindings) -> Bindings:
    """Take keys out of bound file names."""
    if isinstance(bindings, Mapping):
        return {name: _without_key(value) for name, value in bindings.items()}
    return [_without_key(value) for value in bindings] if hasattr(bindings, "__len__") else {}


def _without_key(value: Any) -> Any:
    name = stored(value)
    if isinstance(name, bytes):  # SQLite takes it for a text, in the database's encoding
        shown = without_uri_secrets(name.replace(b"\0", b"").decode(errors="replace"))
        return shown if "***" in shown else name
    return without_uri_secrets(name) if isinstance(name, str) else name


def commitment(salt: bytes, value: Any) -> str:
    """Return what the record holds of a redactable value: SHA-256(salt || its JSON), in hexadecimal."""
    return hashlib.sha256(salt + _bytes(value)).hexdigest()


def _storable(value: Any) -> Any:
    """Return a bound value as SQLite stores it, or its literal where it is none of SQLite's."""
    value = stored(value)
    return value if value is None or isinstance(value, (int, float, str, bytes)) else literal(value, 0)


def _bytes(value: Any) -> bytes:
    value = _storable(value)
    if isinstance(value, float) and math.isinf(value):
        return literal(value, 0).encode()  # JSON has no word for it, and msgspec says null
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError):
        return literal(value, 1 << 30).encode()
