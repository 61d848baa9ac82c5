"""Who is acting: a context that threads and asyncio tasks each have for themselves."""

from __future__ import annotations

import contextlib
import contextvars
import getpass
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from heliosaudit.errors import AuditPolicyError
from heliosaudit.records import encodable

__all__ = ["Session", "current", "session"]


@dataclass(frozen=True, eq=False)
class Session:
    """Who is acting, and from where.

    Attributes:
        user: Name of the user.
        client_ip: Address that the request came from.
        application_name: Application that acts for the user.
        custom: Further fields, such as a tenant or a reason for access.
        id: Names the session in all its events.
    """

    user: str
    client_ip: str | None = None
    application_name: str | None = None
    custom: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        """Make sure that what it says can be recorded: one event that can't be would keep all others out of the log.

        Raises:
            AuditPolicyError: A field is of a kind that JSON has no word for.
        """
        try:
            said = encodable([self.user, self.client_ip, self.application_name, self.custom])
        except TypeError as error:
            msg = f"a session's fields are recorded as JSON: {error}"
            raise AuditPolicyError(msg) from None
        for name, value in zip(("user", "client_ip", "application_name", "custom"), said, strict=True):
            object.__setattr__(self, name, value)


_current: contextvars.ContextVar[Session | None] = contextvars.ContextVar("heliosaudit.session", default=None)
_fallback: list[Session] = []


def current() -> Session:
    """Return the session that is acting; where none was set, one of the operating system's user."""
    found = _current.get()
    if found is not None:
        return found
    if not _fallback:
        try:
            name = getpass.getuser()
        except (KeyError, OSError):
            name = "unknown"
        _fallback.append(Session(name))
    return _fallback[0]


@contextlib.contextmanager
def session(
    user: str | None = None, *, client_ip: str | None = None, application_name: str | None = None, **custom: Any
) -> Iterator[Session]:
    """Say who acts within a ``with`` block, in this thread or task.

    Args:
        user: Name of the user; None: that of the session around this one.
        client_ip: Address that the request came from; None: as around.
        application_name: Application that acts for the user; None: as around.
        **custom: Further fields; those of the session around are kept.

    Raises:
        AuditPolicyError: A field is of a kind that JSON has no word for.
    """
    around = current()
    new = Session(
        user if user is not None else around.user,
        client_ip if client_ip is not None else around.client_ip,
        application_name if application_name is not None else around.application_name,
        {**around.custom, **custom},
    )
    token = _current.set(new)
    try:
        yield new
    finally:
        _current.reset(token)
