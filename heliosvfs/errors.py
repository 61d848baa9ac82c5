"""The error tree, split by what the caller should do.

    HeliosError
     ├─ UsageError                  the call was wrong: change the program
     │   └─ RefusedWriteError       the write would have left something unsealed (also apsw.IOError)
     ├─ ConfigError                 the configuration was wrong: change the file
     ├─ KeyUnavailableError         no key was given, or its source gave none: supply it (also apsw.AuthError)
     ├─ WrongKeyError               a key was given and opens no slot: supply another (also apsw.NotADBError)
     ├─ FormatError                 not a heliosvfs database (also apsw.NotADBError)
     │   └─ UnsupportedVersionError a heliosvfs database of a later format: upgrade
     ├─ TamperedError               bytes on disk that no key holder wrote there: restore (also apsw.IOError)
     ├─ DiskFullError               there is no room for what is to be written: make some (also apsw.FullError)
     ├─ RotationUnfinishedError     (rotation.py) readers keep an old key from being removed: run it again (also apsw.BusyError)
     └─ PolicyViolationError        a rule in force forbids it: ask whoever set the rule

A class that is also an APSW class reaches the caller as itself when it is raised inside a VFS callback, and SQLite is told the
result code in its ``extendedresult``: a plain exception there would be SQLITE_ERROR, an APSW one would hide our type.
No message holds a key, a passphrase or a bound value.
"""

from __future__ import annotations

import apsw

from heliosvfs.notices import tell

__all__ = [
    "ConfigError",
    "DiskFullError",
    "FormatError",
    "HeliosError",
    "KeyUnavailableError",
    "PolicyViolationError",
    "RefusedWriteError",
    "TamperedError",
    "UnsupportedVersionError",
    "UsageError",
    "WrongKeyError",
]


class HeliosError(Exception):
    """Base class of every error that heliosvfs raises of its own accord."""


class UsageError(HeliosError):
    """The call can't be carried out as it was made; nothing was changed."""


class RefusedWriteError(UsageError, apsw.IOError):
    """A write that would have left something on disk unsealed or half sealed; nothing was written."""

    result = apsw.SQLITE_IOERR
    extendedresult = apsw.SQLITE_IOERR_WRITE


class ConfigError(HeliosError):
    """A configuration that can't be used; the message names the file, the key path and what was expected."""


class KeyUnavailableError(HeliosError, apsw.AuthError):
    """No key was given for an encrypted database, or its source could not supply one."""

    result = apsw.SQLITE_AUTH
    extendedresult = apsw.SQLITE_AUTH


class WrongKeyError(HeliosError, apsw.NotADBError):
    """The key or passphrase that was given opens none of the database's key slots."""

    result = apsw.SQLITE_NOTADB
    extendedresult = apsw.SQLITE_NOTADB


class FormatError(HeliosError, apsw.NotADBError):
    """The file is not a heliosvfs database: a plain SQLite database, say, or something else altogether."""

    result = apsw.SQLITE_NOTADB
    extendedresult = apsw.SQLITE_NOTADB


class UnsupportedVersionError(FormatError):
    """The file is a heliosvfs database of a format version, or with a feature, that this release does not know."""


class TamperedError(HeliosError, apsw.IOError):
    """Bytes on disk that fail authentication: damage or tampering, never a wrong key.

    Attributes:
        file: Path of the file that holds the bytes.
        page: Page number (1-based) in a database file, frame number (1-based) in a WAL, 0 where neither applies.
        offset: Byte offset in ``file`` of what failed.
    """

    result = apsw.SQLITE_IOERR
    extendedresult = apsw.SQLITE_IOERR_DATA

    def __init__(self, message: str, *, file: str = "", page: int = 0, offset: int = 0) -> None:
        """Keep where the damage is beside the message."""
        super().__init__(message)
        self.file = file
        self.page = page
        self.offset = offset
        tell("AUTHENTICATION FAILURE", file, error=self, page=page, offset=offset)


class DiskFullError(HeliosError, apsw.FullError):
    """A file could not be written for want of room; SQLite takes the statement or the transaction back.

    Attributes:
        file: Path of the file.
    """

    result = apsw.SQLITE_FULL
    extendedresult = apsw.SQLITE_FULL

    def __init__(self, message: str, *, file: str = "") -> None:
        """Keep the file beside the message."""
        super().__init__(message)
        self.file = file

    @classmethod
    def of(cls, path: str) -> DiskFullError:
        """Return the error for a file."""
        return cls(f"the disk is full: {path} could not be written: make room and try again", file=path)


class PolicyViolationError(HeliosError):
    """A policy in force (FIPS mode, parameter ceilings, a compliance preset) forbids what was asked."""
