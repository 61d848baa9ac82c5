"""iterdump(): a database as SQL text, statement by statement in the order and the words that sqlite3 uses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import TYPE_CHECKING, Any

from heliosvfs.dbapi2.errors import raise_translated

if TYPE_CHECKING:
    from heliosvfs.dbapi2.connections import Connection

__all__ = ["statements_of"]


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def statements_of(connection: Connection, like: str | None) -> Iterator[str]:  # noqa: C901 - the cases of a dump
    """Give the statements that make the database anew.

    Args:
        connection: The connection.
        like: A LIKE pattern of the names to dump; None: all.
    """
    session = connection._session  # noqa: SLF001 - part of the connection

    def ask(call: Callable[..., Any], *arguments: Any) -> Any:
        if get_ident() != session.owner:
            return session.reach(ask, call, *arguments)
        try:
            return call(*arguments)
        except Exception as error:  # noqa: BLE001 - raised again, translated
            raise_translated(error)

    def executed(sql: str, *parameters: Any) -> Any:
        return session.db.cursor().execute(sql, parameters)

    def rows(sql: str, *parameters: Any) -> list[Any]:
        return ask(lambda: executed(sql, *parameters).fetchall())  # type: ignore[no-any-return]

    if sys.version_info >= (3, 13) and rows("PRAGMA foreign_key_check"):
        yield "PRAGMA foreign_keys=OFF;"
    yield "BEGIN TRANSACTION;"
    condition, pattern = ("", ()) if like is None else (' AND "name" LIKE ?', (like,))
    schema = f'SELECT "name", "sql" FROM "sqlite_master" WHERE "sql" NOT NULL AND "type" {{}}{condition}'  # noqa: S608 - constants
    sequence: list[str] = []
    has_virtual_tables = False
    for name, sql in rows(schema.format("== 'table'") + ' ORDER BY "name"', *pattern):
        if name == "sqlite_sequence":
            sequence = ['DELETE FROM "sqlite_sequence";']
            for table, number in rows('SELECT "name", "seq" FROM "sqlite_sequence"'):
                sequence.append(f'INSERT INTO "sqlite_sequence" VALUES({_literal(table)},{number});')
            continue
        if name == "sqlite_stat1":
            yield 'ANALYZE "sqlite_master";'
        elif name.startswith("sqlite_"):
            continue
        elif sql.startswith("CREATE VIRTUAL TABLE"):
            if not has_virtual_tables:
                has_virtual_tables = True
                yield "PRAGMA writable_schema=ON;"
            yield (
                "INSERT INTO sqlite_master(type,name,tbl_name,rootpage,sql)"
                f"VALUES('table',{_literal(name)},{_literal(name)},0,{_literal(sql)});"
            )
        else:
            yield f"{sql};"
        columns = [str(column[1]) for column in rows(f"PRAGMA table_info({_identifier(name)})")]
        values = "||','||".join(f"quote({_identifier(column)})" for column in columns)
        start = _literal(f"INSERT INTO {_identifier(name)} VALUES(")
        select = f"SELECT {start}||{values}||')' FROM {_identifier(name)}"  # noqa: S608 - a dump
        lines = ask(executed, select)
        while (line := ask(lines.fetchone)) is not None:
            yield f"{line[0]};"
    for _, sql in rows(schema.format("IN ('index', 'trigger', 'view')"), *pattern):
        yield f"{sql};"
    if has_virtual_tables:
        yield "PRAGMA writable_schema=OFF;"
    yield from sequence
    yield "COMMIT;"
