"""SQLAlchemy on encrypted files: ``create_engine("sqlite+heliosvfs:///clinic.db")``.

The dialect is SQLAlchemy's own for `sqlite3`, over `heliosvfs.dbapi2`. The key comes from `heliosvfs.configure` or the
environment, or is given as ``connect_args={"key": ...}``, never in the URL, which ends up in logs.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL

from heliosaudit.schemas import is_reserved
from heliosvfs import dbapi2
from heliosvfs.errors import UsageError

__all__ = ["HeliosDialect"]

_SECRETS = frozenset({"key", "passphrase", "password"})


class HeliosDialect(SQLiteDialect_pysqlite):
    """SQLAlchemy's SQLite dialect on `heliosvfs.dbapi2`; pool, events and isolation levels are those of ``sqlite+pysqlite``."""

    driver = "heliosvfs"
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        """Return the DB-API module."""
        return dbapi2

    @classmethod
    def load_provisioning(cls) -> None:
        """Have SQLAlchemy's compliance suite make its databases as it does for its own dialect."""
        from sqlalchemy.dialects.sqlite import provision  # noqa: F401, PLC0415 - part of SQLAlchemy's own tests

    def create_connect_args(self, url: URL) -> Any:
        """Turn a URL into arguments of `heliosvfs.dbapi2.connect`.

        Raises:
            UsageError: The URL holds a key.
        """
        if url.password or _SECRETS & {name.lower() for name in url.query}:
            msg = 'no key belongs in a URL, which ends up in logs: use connect_args={"key": ...} or heliosvfs.configure'
            raise UsageError(msg)
        return super().create_connect_args(url)

    def get_table_names(
        self,
        connection: Connection,
        schema: str | None = None,
        sqlite_include_internal: bool = False,  # noqa: FBT001, FBT002 - SQLAlchemy's signature
        **options: Any,
    ) -> list[str]:
        """Return the names of tables; those of the audit log are internal, so that no reflected schema drops or creates them."""
        find: Any = super().get_table_names  # a decorator of SQLAlchemy's has no annotations
        names = find(connection, schema, sqlite_include_internal=sqlite_include_internal, **options)
        return [name for name in names if sqlite_include_internal or not is_reserved(name)]
