"""What sqlite3 warns of in some versions of Python, word for word, blamed on the line of the program that called."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from heliosvfs.dbapi2.errors import ProgrammingError

__all__ = ["named_given_sequence", "positional_only", "too_many_positional", "warn"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_WARNS = (3, 13) <= sys.version_info < (3, 15)
_CONNECT = ("timeout", "detect_types", "isolation_level", "check_same_thread", "factory", "cached_statements", "uri")


def warn(message: str) -> None:
    """Warn the program, not this package."""
    if sys.version_info >= (3, 12):
        warnings.warn(message, DeprecationWarning, skip_file_prefixes=(str(Path(__file__).parent),))


def named_given_sequence(message: str) -> None:
    """Warn of a sequence for named parameters; from Python 3.14 on refuse it.

    Raises:
        ProgrammingError: It is refused.
    """
    if sys.version_info >= (3, 14):
        raise ProgrammingError(message)
    warn(f"{message} Starting with Python 3.14 an sqlite3.ProgrammingError will be raised.")


def _listed(names: tuple[str, ...]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def positional_only(*names: str) -> Callable[[_Function], _Function]:
    """Warn, from Python 3.13 on, if one of these arguments is given by its name."""

    def decorate(method: _Function) -> _Function:
        if not _WARNS:
            return method
        plural = "s" if len(names) > 1 else ""
        message = (
            f"Passing keyword argument{plural} {_listed(names)} to _sqlite3.Connection.{method.__name__}() is deprecated. "
            f"Parameter{plural} {_listed(names)} will become positional-only in Python 3.15."
        )

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not kwargs.keys().isdisjoint(names):
                warn(message)
            return method(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


def too_many_positional(callee: str) -> None:
    """Warn, from Python 3.13 on, that connect() was given more than the database by position."""
    if _WARNS:
        warn(
            f"Passing more than 1 positional argument to {callee}() is deprecated. "
            f"Parameters {_listed(_CONNECT)} will become keyword-only parameters in Python 3.15."
        )
