"""What Django may expect: its backend for SQLite asks Python's own SQLite for its version, and ours is APSW's."""

from __future__ import annotations

from django.db.backends.sqlite3.features import DatabaseFeatures

__all__ = ["Features"]


class Features(DatabaseFeatures):  # type: ignore[misc] # Django has no annotations
    """Features of a SQLite of this year."""

    can_alter_table_drop_column = True
    can_return_columns_from_insert = True
    can_return_rows_from_bulk_insert = True
