"""What a log records, and how much of it (design: docs/AUDIT.md, "Classes and policy")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from heliosaudit.errors import AuditPolicyError

__all__ = ["CLASSES", "Policy"]

CLASSES = ("DDL", "DML", "SELECT", "TRANSACTION", "AUTH", "ADMIN", "AUDIT")
_PARAMETERS = ("expanded", "redactable", "hashed", "none")
_ROWS = ("none", "keys", "values")
_DURABILITY = ("buffered", "strict")


@dataclass(frozen=True)
class Policy:
    """What is recorded. Events of the log's own life (class AUDIT) and denied attempts always are.

    Attributes:
        log_ddl: Record CREATE, ALTER, DROP and the like.
        log_dml: Record INSERT, UPDATE, DELETE. A connection that does not is not covered by "every change has its event".
        log_select: Record reads.
        log_transactions: Record BEGIN, COMMIT, ROLLBACK, SAVEPOINT and RELEASE.
        log_auth: Record opening, closing and what concerns keys.
        log_admin: Record PRAGMA, ATTACH, VACUUM, backup and the like.
        retention_days: Days that events are kept at least; None: for ever.
        async_buffer_size: Events of reads and failures that may wait in memory; a crash loses no more than these.
        flush_interval: Seconds after which waiting events are written, also if nothing else happens.
        read_durability: "buffered", or "strict": a read's event is on disk before its first row is handed out.
        capture_parameters: "expanded" renders bound values into the SQL, "hashed" their keyed hashes, "redactable" commitments
            with the values in a side table that can be erased, "none" leaves the placeholders.
        capture_rows: "none", or row images of changes: their "keys" or all "values", before and after.
        max_query_length: Characters of SQL that are kept.
        max_value_length: Characters of a bound text, or bytes of a blob, that are kept.
        max_transaction_events: Events of an open transaction that are kept to be told as rolled back, should it be; beyond, a
            summary of the rest is.
        include_tables: Record DML and SELECT only on these; empty: on all. Names are compared without case.
        exclude_tables: Record no DML and SELECT that touches only these.
        include_users: Record these users only; empty: all.
        exclude_users: Record all users but these.
        redacted_columns: "table.column" names; of statements that name one, neither values nor literals are recorded.
        capture_client_ip: Record the session's client address.
        capture_application_name: Record the session's application.
        capture_database_name: Record the schema name.
        capture_execution_time: Record durations.
        capture_custom_fields: Record the session's further fields.
        application_name: What is recorded where the session does not say.
        lockdown: Forbid any removal before its time (21 CFR 11.10(e)).
        hash_key: Key of "hashed" parameters, 32 bytes.
    """

    log_ddl: bool = True
    log_dml: bool = True
    log_select: bool = False
    log_transactions: bool = False
    log_auth: bool = True
    log_admin: bool = True
    retention_days: int | None = None
    async_buffer_size: int = 500
    flush_interval: float = 1.0
    read_durability: str = "buffered"
    capture_parameters: str = "expanded"
    capture_rows: str = "none"
    max_query_length: int = 5000
    max_value_length: int = 256
    max_transaction_events: int = 10_000
    include_tables: frozenset[str] = frozenset()
    exclude_tables: frozenset[str] = frozenset()
    include_users: frozenset[str] = frozenset()
    exclude_users: frozenset[str] = frozenset()
    redacted_columns: frozenset[str] = frozenset()
    capture_client_ip: bool = True
    capture_application_name: bool = True
    capture_database_name: bool = True
    capture_execution_time: bool = True
    capture_custom_fields: bool = True
    application_name: str | None = None
    lockdown: bool = False
    hash_key: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        """Check the options."""
        for name, allowed in (("capture_parameters", _PARAMETERS), ("capture_rows", _ROWS), ("read_durability", _DURABILITY)):
            if getattr(self, name) not in allowed:
                msg = f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}"
                raise AuditPolicyError(msg)
        for name in ("async_buffer_size", "max_query_length", "max_value_length", "max_transaction_events"):
            if getattr(self, name) < 1:
                msg = f"{name} is at least 1, not {getattr(self, name)}"
                raise AuditPolicyError(msg)
        if self.flush_interval <= 0:
            msg = f"flush_interval is more than 0 seconds, not {self.flush_interval}"
            raise AuditPolicyError(msg)
        if self.capture_parameters == "hashed" and len(self.hash_key) != 32:  # noqa: PLR2004 - bytes of an HMAC-SHA-256 key
            msg = "capture_parameters = 'hashed' needs a hash_key of 32 bytes: without a key, short values could be guessed"
            raise AuditPolicyError(msg)
        for name in ("include_tables", "exclude_tables", "redacted_columns"):
            object.__setattr__(self, name, frozenset(entry.lower() for entry in getattr(self, name)))
        for name in ("include_users", "exclude_users"):
            object.__setattr__(self, name, frozenset(getattr(self, name)))

    @classmethod
    def preset(cls, name: str) -> Policy:
        """Return the policy of a preset: soc2, hipaa, gdpr, pci_dss, fda_21_cfr_part_11 or iec_62443.

        Raises:
            AuditPolicyError: There is no such preset.
        """
        try:
            return _PRESETS[name.lower()]
        except KeyError:
            msg = f"there is no preset {name!r}; there are {', '.join(sorted(_PRESETS))}"
            raise AuditPolicyError(msg) from None

    def logs(self, event_class: str) -> bool:
        """Tell whether events of a class are recorded."""
        return event_class == "AUDIT" or bool(getattr(self, _SWITCHES[event_class]))


_SWITCHES = {
    "DDL": "log_ddl",
    "DML": "log_dml",
    "SELECT": "log_select",
    "TRANSACTION": "log_transactions",
    "AUTH": "log_auth",
    "ADMIN": "log_admin",
}
_EVERYTHING = Policy(log_select=True, log_transactions=True)
_PRESETS: Mapping[str, Policy] = {
    "soc2": Policy(retention_days=90),
    # 45 CFR 164.316(b)(2)(i): six years, 2,192 days with leap days, is the law's floor; seven is what practice keeps
    "hipaa": replace(_EVERYTHING, retention_days=2555, log_transactions=False),
    "gdpr": replace(_EVERYTHING, retention_days=1095, log_transactions=False, capture_parameters="redactable"),
    # PCI DSS 4.0.1, 10.5.1: twelve months
    "pci_dss": replace(_EVERYTHING, retention_days=366, log_transactions=False),
    "fda_21_cfr_part_11": replace(_EVERYTHING, retention_days=2555, lockdown=True, capture_rows="values"),
    "iec_62443": replace(_EVERYTHING, retention_days=366, log_select=False, log_transactions=False),
}
