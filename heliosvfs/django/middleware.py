"""Who acts in a request, for the audit log: AuditSessionMiddleware belongs after Django's AuthenticationMiddleware."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from heliosaudit import session

__all__ = ["AuditSessionMiddleware"]


class AuditSessionMiddleware:
    """Names the request's user and address in the audit events of what the request does.

    Finding out who the user is reads the database itself, as the operating system's user. REMOTE_ADDR is the client's address:
    behind a proxy, something before this middleware has to put it there.
    """

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        """See Django's documentation of middleware."""
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Answer a request."""
        user = getattr(request, "user", None)
        name = user.get_username() if user is not None and user.is_authenticated else "anonymous"
        with session(name, client_ip=request.META.get("REMOTE_ADDR")):
            return self._get_response(request)
