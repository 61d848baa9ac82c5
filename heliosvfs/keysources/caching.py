"""Keep what another source gave for a stated time, so that a pool of connections does not ask a vault for each."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from heliosvfs.errors import KeyUnavailableError, UsageError
from heliosvfs.keyring import KeySource
from heliosvfs.keys import Secret

__all__ = ["CachedKey"]


@dataclass
class CachedKey:
    """A source whose key is kept in memory for some seconds; whoever asks meanwhile gets it, or the failure, at once.

    Args:
        source: The source.
        seconds: How long its key is kept.
        failure_seconds: How long a failure is: many who ask at once then cause one request and not as many.
    """

    source: KeySource
    seconds: float
    failure_seconds: float = 1.0
    _found: Secret | None = field(default=None, init=False, repr=False)
    _failure: str | None = field(default=None, init=False, repr=False)
    _until: float = field(default=0.0, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse times that are none.

        Raises:
            UsageError: One is negative.
        """
        if self.seconds < 0 or self.failure_seconds < 0:
            msg = "a key is kept for a number of seconds that is not negative"
            raise UsageError(msg)

    def secret(self) -> Secret:
        """Return the key, asking the source if its time is over.

        Raises:
            KeyUnavailableError: The source has none.
        """
        with self._lock:
            if time.monotonic() >= self._until:
                self._forget()
                try:
                    self._found, lasts = self.source.secret(), self.seconds
                except KeyUnavailableError as error:
                    self._failure, lasts = str(error), self.failure_seconds
                self._until = time.monotonic() + lasts
            found, failure = self._found, self._failure
            if self.seconds == 0:
                self._forget()
        if found is None:
            raise KeyUnavailableError(failure)
        return found

    def forget(self) -> None:
        """Drop what is kept now."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._found = self._failure = None
        self._until = 0.0
