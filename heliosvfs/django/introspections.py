"""What `inspectdb` and the rest of Django see of a database: not the tables of the audit log, which are no application's."""

from __future__ import annotations

from typing import Any

from django.db.backends.sqlite3.introspection import DatabaseIntrospection

from heliosaudit.schemas import is_reserved

__all__ = ["Introspection"]


class Introspection(DatabaseIntrospection):  # type: ignore[misc] # Django has no annotations
    """Introspection of a database that may be audited."""

    def get_table_list(self, cursor: Any) -> list[Any]:
        """Return tables and views."""
        return [table for table in super().get_table_list(cursor) if not is_reserved(table.name)]
