"""What happens to keys and seals, told to whoever listens: `heliosvfs.activity` and `heliosvfs.metrics` do.

It is told in the thread where it happens, so listeners are quick and raise nothing. Nothing secret is in a notice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Listener", "Notice", "listen", "tell", "telling", "unlisten"]


@dataclass(frozen=True)
class Notice:
    """Something that happened.

    Attributes:
        operation: "CREATE", "UNLOCK", "KEY SOURCE", "KEYS CHANGED", "AUTHENTICATION FAILURE", "ROTATION STARTED",
            "ROTATION", "BACKUP" or "RESTORE".
        path: The file that it concerns.
        success: Whether it succeeded.
        error: Class and message of what went wrong, "" if nothing did.
        details: What else there is to say.
    """

    operation: str
    path: str = ""
    success: bool = True
    error: str = ""
    details: dict[str, Any] = field(default_factory=dict)


Listener = Callable[[Notice], None]
_listeners: tuple[Listener, ...] = ()  # replaced and never changed: another thread may be going through it


def listen(listener: Listener) -> None:
    """Tell ``listener`` of everything from now on."""
    global _listeners  # noqa: PLW0603 - see there
    if listener not in _listeners:
        _listeners = (*_listeners, listener)


def unlisten(listener: Listener) -> None:
    """Tell it no more."""
    global _listeners  # noqa: PLW0603 - see there
    _listeners = tuple(other for other in _listeners if other != listener)


def tell(operation: str, path: str = "", *, error: BaseException | None = None, **details: Any) -> None:
    """Tell all listeners; messages of our own errors hold no secret, of others only the class is named."""
    if not _listeners:
        return
    said = ""
    if error is not None:
        ours = type(error).__module__.partition(".")[0] == "heliosvfs"
        said = f"{type(error).__name__}: {error}" if ours else type(error).__name__
    notice = Notice(operation, path, error is None, said, details)
    for listener in _listeners:
        listener(notice)


@contextlib.contextmanager
def telling(operation: str, path: str, **details: Any) -> Iterator[dict[str, Any]]:
    """Tell how something ends that takes a while; the caller puts what there is to say then into the dict."""
    facts = dict(details)
    try:
        yield facts
    except BaseException as error:
        tell(operation, path, error=error, **facts)
        raise
    tell(operation, path, **facts)
