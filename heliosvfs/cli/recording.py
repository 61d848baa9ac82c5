"""Opening a database for a command: what is done to one that has an audit log is recorded there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import heliosaudit
from heliosaudit import stores
from heliosvfs.connection import Connection
from heliosvfs.keyring import Key, as_secret
from heliosvfs.opening import connect

__all__ = ["recorded"]

_EVERYTHING = heliosaudit.Policy(log_select=True, log_transactions=True, application_name="heliosvfs")


@contextlib.contextmanager
def recorded(file: Path, key: Key | None, **options: Any) -> Iterator[Connection]:
    """Open a database, audited if it has an audit log; the log does not say under which policy, so everything is recorded.

    Args:
        file: The database.
        key: Its key; a source is asked once.
        **options: Those of `heliosvfs.connect`; with ``config`` or ``audit`` these decide.
    """
    secret = None if key is None else as_secret(key)
    first = connect(file, key=secret, **options)
    try:
        if options.get("config") is not None or options.get("audit") is not None or not stores.has_log(first):
            yield first
            return
        with contextlib.closing(connect(file, key=secret, **{**options, "audit": _EVERYTHING})) as connection:
            first.close()
            yield connection
    finally:
        first.close()
