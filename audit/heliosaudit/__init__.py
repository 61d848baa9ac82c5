"""heliosaudit: a hash-chained audit log inside an SQLite database.

    import heliosaudit

    connection = heliosaudit.connect("clinic.db", heliosaudit.Policy(log_select=True))
    with heliosaudit.session(user="dr.smith", reason="ward round"):
        connection.execute("SELECT * FROM patient WHERE id = ?", (5,)).fetchall()

It works on any `apsw.Connection` and never imports heliosvfs: who audits need not be able to decrypt.
"""

from __future__ import annotations

from heliosaudit.checkpoints import Checkpoint, SigningKey, VerifyingKey
from heliosaudit.connections import Audited, AuditedConnection, connect
from heliosaudit.errors import (
    AccessDeniedError,
    AuditError,
    AuditPolicyError,
    AuditWriteError,
    ChainBrokenError,
    LogTruncatedError,
)
from heliosaudit.policies import Policy
from heliosaudit.records import Record
from heliosaudit.rules import Refusal, Rule
from heliosaudit.sessions import Session, session
from heliosaudit.verifications import Report, verify

__all__ = [
    "AccessDeniedError",
    "AuditError",
    "AuditPolicyError",
    "AuditWriteError",
    "Audited",
    "AuditedConnection",
    "ChainBrokenError",
    "Checkpoint",
    "LogTruncatedError",
    "Policy",
    "Record",
    "Refusal",
    "Report",
    "Rule",
    "Session",
    "SigningKey",
    "VerifyingKey",
    "__version__",
    "connect",
    "session",
    "verify",
]

__version__ = "0.1.0"
