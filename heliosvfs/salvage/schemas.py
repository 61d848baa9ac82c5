"""Make the objects of a schema anew, in a database that is empty otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from heliosvfs.btrees import SchemaEntry
from heliosvfs.salvage.tables import quoted

__all__ = ["create", "create_virtual_table", "make_sequence_table", "make_statistics_tables", "permissive"]

_STATEMENT = re.compile(r"CREATE (TABLE|VIRTUAL TABLE|INDEX|UNIQUE INDEX|VIEW|TRIGGER) ")  # SQLite stores them so


@contextmanager
def permissive(connection: apsw.Connection) -> Iterator[None]:
    """Let a connection take what the damaged database had: rows as they are, and schemas written under other settings."""
    options = {
        apsw.SQLITE_DBCONFIG_DEFENSIVE: 0,  # else sqlite_schema can't be written, which virtual tables need
        apsw.SQLITE_DBCONFIG_DQS_DDL: 1,
        apsw.SQLITE_DBCONFIG_ENABLE_FKEY: 0,
    }
    before = {option: connection.config(option, -1) for option in options}
    checks = connection.pragma("ignore_check_constraints")
    try:
        for option, value in options.items():
            connection.config(option, value)
        connection.pragma("ignore_check_constraints", True)  # noqa: FBT003 - a PRAGMA's value
        yield
    finally:
        connection.pragma("ignore_check_constraints", checks)
        for option, value in before.items():
            connection.config(option, value)


def create(connection: apsw.Connection, entry: SchemaEntry) -> str:
    """Run the statement that made an object; return why it could not be made, "" if it could."""
    if not _STATEMENT.match(entry.sql):
        return "its SQL is no CREATE statement"
    cursor = connection.cursor()
    statements = 0

    def only_one(_cursor: apsw.Cursor, _sql: str, _bindings: apsw.Bindings | None) -> bool:
        nonlocal statements
        statements += 1
        return statements == 1

    cursor.exec_trace = only_one
    try:
        with connection:
            cursor.execute(entry.sql)
    except apsw.ExecTraceAbort:
        return "its SQL is more than one statement"
    except (apsw.Error, ValueError) as error:  # ValueError: it has a NUL character
        return str(error)
    return ""


def create_virtual_table(connection: apsw.Connection, entry: SchemaEntry) -> str:
    """Put a virtual table into the schema whose shadow tables are there; return why it could not be done, "" if it could.

    CREATE VIRTUAL TABLE would make its module create the shadow tables; this works without the module, too. A table that its
    module does not accept is left out: while it is there, SQLite can neither drop it nor check the database.
    """
    if not entry.sql.startswith("CREATE VIRTUAL TABLE "):
        return "its SQL is no CREATE statement"
    try:
        with connection:
            connection.execute("PRAGMA writable_schema = ON")
            if connection.execute("SELECT count(*) FROM main.sqlite_schema WHERE name = ?", (entry.name,)).get:
                return "there is already an object of that name"
            connection.execute(
                "INSERT INTO main.sqlite_schema(type, name, tbl_name, rootpage, sql) VALUES('table', ?, ?, 0, ?)",
                (entry.name, entry.name, entry.sql),
            )
            _load_schema(connection)
            try:
                connection.execute(f"EXPLAIN SELECT 1 FROM main.{quoted(entry.name)}")  # noqa: S608 - quoted
            except apsw.SQLError as error:
                if not str(error).startswith("no such module"):
                    raise
    except (apsw.Error, ValueError) as error:
        return str(error)
    finally:
        _load_schema(connection)
    return ""


def _load_schema(connection: apsw.Connection) -> None:
    """Have the schema parsed again.

    Raises:
        apsw.Error: It makes no sense.
    """
    connection.execute("PRAGMA writable_schema = RESET")
    connection.execute("SELECT 1 FROM main.sqlite_schema").close()


def make_sequence_table(connection: apsw.Connection, name: str) -> None:
    """See that sqlite_sequence exists, which SQLite makes with the first AUTOINCREMENT table and keeps.

    Args:
        connection: The database.
        name: A name that no object has.
    """
    connection.execute(f"CREATE TABLE main.{quoted(name)}(id INTEGER PRIMARY KEY AUTOINCREMENT)")
    connection.execute(f"DROP TABLE main.{name}")


def make_statistics_tables(connection: apsw.Connection, names: set[str]) -> None:
    """See that the tables of ANALYZE exist, as far as this SQLite knows them.

    Args:
        connection: The database.
        names: Those that are wanted.
    """
    connection.execute("ANALYZE main.sqlite_schema")
    there = connection.execute("SELECT name FROM main.sqlite_schema WHERE name LIKE 'sqlite\\_stat_' ESCAPE '\\'").fetchall()
    for (name,) in there:
        if name not in names:
            connection.execute(f"DROP TABLE main.{name}")
