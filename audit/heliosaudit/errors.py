"""What can go wrong with an audit log.

AuditError
├── AuditPolicyError        a policy, an option or a way of working that the log can't serve: change the call
├── AccessDeniedError       the log is append-only, and this would have changed it; also an `apsw.AuthError`
├── AuditWriteError         an event could not be written, so the statement that it is about was undone
├── ChainBrokenError        the chain does not hold: id, kind, what was expected and what was found
└── LogTruncatedError       events that a checkpoint vouches for are not there any more
"""

from __future__ import annotations

import apsw

__all__ = [
    "AccessDeniedError",
    "AuditError",
    "AuditPolicyError",
    "AuditWriteError",
    "ChainBrokenError",
    "LogTruncatedError",
]


class AuditError(Exception):
    """Root of the errors of this package."""


class AuditPolicyError(AuditError):
    """The policy or the way of working asked for can't be served; the message says what can."""


class AccessDeniedError(AuditError, apsw.AuthError):
    """Something would have changed the audit log, or got around it. The attempt has been recorded."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.result = apsw.SQLITE_AUTH
        self.extendedresult = apsw.SQLITE_AUTH


class AuditWriteError(AuditError):
    """An event could not be written, so the statement that it is about was undone."""


class ChainBrokenError(AuditError):
    """The chain does not hold.

    Attributes:
        id: Id of the first event that is wrong, or that should be there.
        kind: What kind of break it is, such as "edited", "missing" or "reordered".
        expected: What should have been there, in hexadecimal where it is a checksum.
        found: What was there.
    """

    def __init__(self, message: str, *, id: int, kind: str, expected: str = "", found: str = "") -> None:  # noqa: A002 - the column's name
        super().__init__(message)
        self.id = id
        self.kind = kind
        self.expected = expected
        self.found = found


class LogTruncatedError(ChainBrokenError):
    """Events that a checkpoint vouches for are not there any more."""
