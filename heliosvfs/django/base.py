"""DatabaseWrapper: what Django opens connections through. Queries, schema changes and types are those of its SQLite backend."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

from django.db.backends.sqlite3 import base as sqlite
from django.db.backends.sqlite3._functions import register
from django.utils.asyncio import async_unsafe
from django.utils.functional import cached_property

from heliosvfs import dbapi2
from heliosvfs.django.clients import Client
from heliosvfs.django.creations import Creation
from heliosvfs.django.cursors import Cursor
from heliosvfs.django.features import Features
from heliosvfs.django.introspections import Introspection
from heliosvfs.django.options import connect_arguments, refuse_passwords
from heliosvfs.django.tracebacks import ErrorWrapper, without_our_frames

__all__ = ["DatabaseWrapper"]

# as Django's backend registers them with sqlite3: for the process, at the first use of the backend
dbapi2.register_converter("bool", b"1".__eq__)
dbapi2.register_converter("date", sqlite.decoder(sqlite.parse_date))
dbapi2.register_converter("time", sqlite.decoder(sqlite.parse_time))
dbapi2.register_converter("datetime", sqlite.decoder(sqlite.parse_datetime))
dbapi2.register_converter("timestamp", sqlite.decoder(sqlite.parse_datetime))
dbapi2.register_adapter(decimal.Decimal, str)
dbapi2.register_adapter(dt.date, sqlite.adapt_date)
dbapi2.register_adapter(dt.datetime, sqlite.adapt_datetime)


class DatabaseWrapper(sqlite.DatabaseWrapper):  # type: ignore[misc] # Django has no annotations
    """A connection of Django's to an encrypted database.

    Besides those of Django's SQLite backend, OPTIONS has "key" (a key source), "key_file" (its path), "audit" and "config".
    """

    Database = dbapi2
    client_class = Client
    creation_class = Creation
    features_class = Features
    introspection_class = Introspection

    def __init__(self, settings_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """See Django's BaseDatabaseWrapper.

        Raises:
            ImproperlyConfigured: A key stands in the settings themselves.
        """
        refuse_passwords(settings_dict)
        super().__init__(settings_dict, *args, **kwargs)

    def get_connection_params(self) -> dict[str, Any]:
        """Return the arguments of `heliosvfs.dbapi2.connect`."""
        arguments = connect_arguments(super().get_connection_params())
        if self.is_in_memory_db():
            arguments.pop("key", None)  # a test database in memory has none
        return arguments

    @async_unsafe  # type: ignore[untyped-decorator] # Django has no annotations
    def get_new_connection(self, conn_params: dict[str, Any]) -> dbapi2.Connection:
        """Open a connection."""
        try:
            connection = dbapi2.connect(**conn_params)
        except Exception as error:  # noqa: BLE001 - raised again
            raise without_our_frames(error)  # noqa: B904 - it keeps its own cause
        register(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        for command in getattr(self, "init_commands", ()):  # from Django 5.1 on
            if command.strip():
                connection.execute(command)
        return connection  # type: ignore[no-any-return]

    def create_cursor(self, name: str | None = None) -> Any:  # noqa: ARG002 - Django's signature
        """Return a cursor that takes Django's placeholders."""
        return self.connection.cursor(Cursor)

    @cached_property  # type: ignore[untyped-decorator] # the same
    def wrap_database_errors(self) -> ErrorWrapper:
        """What turns errors into Django's own."""
        return ErrorWrapper(self)
