"""The constants of sqlite3: SQLite's from APSW, PEP 249's and the module's own.

APSW has every constant of SQLite by its name, so the module offers more of them than sqlite3 does.
"""

from __future__ import annotations

import apsw

__all__ = [
    "LEGACY_TRANSACTION_CONTROL",
    "PARSE_COLNAMES",
    "PARSE_DECLTYPES",
    "SQLITE_CONSTANTS",
    "apilevel",
    "paramstyle",
    "sqlite_version",
    "sqlite_version_info",
    "threadsafety",
    "version",
    "version_info",
]

apilevel = "2.0"
paramstyle = "qmark"
threadsafety = 3  # APSW requires SQLite to be compiled with its mutexes (SQLITE_THREADSAFE=1)
version = "2.6.0"  # of the pysqlite that sqlite3 descends from; what sqlite3 says of itself
version_info = (2, 6, 0)
sqlite_version = apsw.sqlite_lib_version()
sqlite_version_info = tuple(int(part) for part in sqlite_version.split("."))

PARSE_DECLTYPES = 1
PARSE_COLNAMES = 2
LEGACY_TRANSACTION_CONTROL = -1

SQLITE_CONSTANTS: dict[str, int] = {
    name: value for name, value in vars(apsw).items() if name.startswith("SQLITE_") and isinstance(value, int)
}
