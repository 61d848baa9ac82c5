"""The standard library's sqlite3, encrypted: ``import heliosvfs.dbapi2 as sqlite3``.

Everything is as Python's documentation of sqlite3 has it; docs/DBAPI.md lists what differs. `connect` takes key=, config= and
audit= as well; without key= the key comes from `heliosvfs.configure` or the environment.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
import warnings
from typing import Any

import apsw

from heliosvfs.dbapi2.adapters import PrepareProtocol, adapt, adapters, converters, register_adapter, register_converter
from heliosvfs.dbapi2.blobs import Blob
from heliosvfs.dbapi2.callbacks import enable_callback_tracebacks
from heliosvfs.dbapi2.connections import Connection
from heliosvfs.dbapi2.constants import (
    LEGACY_TRANSACTION_CONTROL,
    PARSE_COLNAMES,
    PARSE_DECLTYPES,
    SQLITE_CONSTANTS,
    apilevel,
    paramstyle,
    sqlite_version,
    sqlite_version_info,
    threadsafety,
)
from heliosvfs.dbapi2.cursors import Cursor
from heliosvfs.dbapi2.deprecations import too_many_positional
from heliosvfs.dbapi2.errors import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,  # noqa: A004 - PEP 249's name
)
from heliosvfs.dbapi2.rows import Row

Binary = memoryview
Date = dt.date
Time = dt.time
Timestamp = dt.datetime
globals().update(SQLITE_CONSTANTS)

__all__ = [
    "LEGACY_TRANSACTION_CONTROL",
    "PARSE_COLNAMES",
    "PARSE_DECLTYPES",
    "Binary",
    "Blob",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "PrepareProtocol",
    "ProgrammingError",
    "Row",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "adapt",
    "adapters",
    "apilevel",
    "complete_statement",
    "connect",
    "converters",
    "enable_callback_tracebacks",
    "paramstyle",
    "register_adapter",
    "register_converter",
    "sqlite_version",
    "sqlite_version_info",
    "threadsafety",
]
__all__ += list(SQLITE_CONSTANTS)

_FACTORY = 5  # position of connect's argument after the database


def connect(database: Any, *args: Any, **kwargs: Any) -> Any:
    """Open an encrypted database, or create it, and return a `Connection` or what ``factory`` makes.

    Args:
        database: The file, ":memory:", or a URI if ``uri`` says so.
        *args: timeout=5.0, detect_types=0, isolation_level="", check_same_thread=True, factory=Connection,
            cached_statements=128, uri=False, as sqlite3.connect() has them.
        **kwargs: The same, and autocommit=LEGACY_TRANSACTION_CONTROL; key= as for `heliosvfs.connect`; config= a configuration
            file; audit= a policy or the name of a preset.

    Raises:
        OperationalError: The database can't be opened.
        DatabaseError: It is not encrypted, or the key does not open it.
        ProgrammingError: An option is not supported.
    """
    if args:
        too_many_positional("sqlite3.connect")
    factory = kwargs.get("factory") or (args[_FACTORY - 1] if len(args) >= _FACTORY else None) or Connection
    return factory(database, *args, **kwargs)


def complete_statement(statement: str) -> bool:
    """Tell whether a text ends with a whole statement."""
    return apsw.complete(statement)


def DateFromTicks(ticks: float) -> dt.date:  # noqa: N802 - PEP 249's name
    """Return the local date of a time in seconds since the epoch."""
    return Date(*time.localtime(ticks)[:3])


def TimeFromTicks(ticks: float) -> dt.time:  # noqa: N802 - PEP 249's name
    """Return the local time of day of a time in seconds since the epoch."""
    return Time(*time.localtime(ticks)[3:6])


def TimestampFromTicks(ticks: float) -> dt.datetime:  # noqa: N802 - PEP 249's name
    """Return the local date and time of a time in seconds since the epoch."""
    return Timestamp(*time.localtime(ticks)[:6])


if sys.version_info < (3, 12):

    def enable_shared_cache(do_enable: int) -> None:
        """Warn that shared cache is deprecated, and refuse it: APSW's SQLite is compiled without."""
        msg = "enable_shared_cache is deprecated and will be removed in Python 3.12."
        warnings.warn(msg, DeprecationWarning, stacklevel=2)
        if do_enable:
            msg = "Changing the shared_cache flag failed"
            raise OperationalError(msg)


def __getattr__(name: str) -> Any:
    from heliosvfs.dbapi2 import constants  # noqa: PLC0415 - deprecated names only

    if name == "dbapi2":  # of sqlite3, whose dbapi2 has the same names
        return sys.modules[__name__]
    if name in ("version", "version_info") and sys.version_info < (3, 14):
        if sys.version_info >= (3, 12):
            warnings.warn(f"{name} is deprecated and will be removed in Python 3.14", DeprecationWarning, stacklevel=2)
        return getattr(constants, name)
    if name == "OptimizedUnicode" and sys.version_info < (3, 12):
        msg = "OptimizedUnicode is deprecated and will be removed in Python 3.12; since Python 3.3 it has been an alias for str"
        warnings.warn(msg, DeprecationWarning, stacklevel=2)
        return str
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
