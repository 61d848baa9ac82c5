"""What every call of a connection begins and ends with: may this thread, and which error does a sqlite3 program expect."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import get_ident
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from heliosvfs.dbapi2.errors import raise_translated
from heliosvfs.dbapi2.sessions import Session

__all__ = ["Guarded", "guarded"]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Guarded(Protocol):
    """What has a session."""

    _session: Session


_Self = TypeVar("_Self", bound=Guarded)


def guarded(
    method: Callable[Concatenate[_Self, _Parameters], _Result],
) -> Callable[Concatenate[_Self, _Parameters], _Result]:
    """Have a method refuse threads that may not call it, and raise sqlite3's errors."""

    @wraps(method)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        session = self._session
        if get_ident() != session.owner:
            return session.reach(call, self, *args, **kwargs)
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - raised again, translated
            raise_translated(error)

    return call
