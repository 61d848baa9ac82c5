"""What an application declares about its tables: where personal data is, and how long rows are kept.

A configuration holds these as ``[[gdpr.personal_data]]`` and ``[[gdpr.expiring]]``.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = ["DataPath", "Expiry"]

_VIA = re.compile(r"\s*(?P<column>\S+)\s*->\s*(?P<table>[^\s.]+)\.(?P<parent>\S+)\s*")


class DataPath(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a table holds data of a subject, and what becomes of it when the subject is erased.

    Attributes:
        table: The table.
        subject_column: Column with the subject's identifier; "": `via` leads to it.
        via: "column -> table.column": a column of this table, and the declared table and its column that it refers to.
        columns: Columns with personal data; empty: all but the key and what refers to other tables.
        on_erasure: What erasure does to the rows: "delete" them, "anonymise" (overwrite the columns), or "keep" them.
        keep_reason: Why they are kept, where they are (GDPR 17(3)).
    """

    table: Annotated[str, Meta(min_length=1)]
    subject_column: str = ""
    via: str = ""
    columns: tuple[str, ...] = ()
    on_erasure: Literal["delete", "anonymise", "keep"] = "delete"
    keep_reason: str = ""

    def __post_init__(self) -> None:
        """Check what types don't say."""
        if bool(self.subject_column) == bool(self.via):
            msg = "expected either subject_column or via"
            raise ValueError(msg)
        if self.via and not _VIA.fullmatch(self.via):
            msg = 'via: expected "column -> table.column"'
            raise ValueError(msg)
        if self.on_erasure == "keep" and not self.keep_reason:
            msg = "keep_reason: expected the reason for keeping the rows (GDPR 17(3))"
            raise ValueError(msg)

    @property
    def reference(self) -> tuple[str, str, str] | None:
        """Column, table and column of that table of `via`; None: `subject_column` says it."""
        found = _VIA.fullmatch(self.via)
        return None if found is None else (found["column"], found["table"], found["parent"])


class Expiry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rows that are deleted when they are older than so many days.

    Attributes:
        table: The table.
        time_column: Column with a row's time: ISO 8601 text, seconds since the epoch, or a Julian day.
        days: Days that a row is kept; None: ``gdpr.data_retention_days``.
    """

    table: Annotated[str, Meta(min_length=1)]
    time_column: Annotated[str, Meta(min_length=1)]
    days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
