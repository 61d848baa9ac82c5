"""Declared paths resolved against a database's schema: which rows are a subject's, and which of their columns are personal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heliosvfs.errors import UsageError

if TYPE_CHECKING:
    from heliosvfs.compliance.declarations import DataPath
    from heliosvfs.connection import Connection

__all__ = ["Column", "Table", "quoted", "resolved"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name.
        affinity: "TEXT", "NUMERIC" or "BLOB", as its declared type says (https://sqlite.org/datatype3.html, 3.1).
        required: Whether it is NOT NULL.
        is_key: Whether it is part of the primary key.
        is_unique: Whether a unique index is on it.
    """

    name: str
    affinity: str
    required: bool
    is_key: bool
    is_unique: bool


@dataclass(frozen=True)
class Table:
    """A declared table.

    Attributes:
        path: Its declaration.
        where: SQL for "this row is the subject's", with one parameter.
        columns: All its columns.
        personal: Those that hold personal data.
    """

    path: DataPath
    where: str
    columns: tuple[Column, ...]
    personal: tuple[Column, ...]


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def resolved(connection: Connection, paths: Sequence[DataPath]) -> list[Table]:
    """Resolve declarations, what refers to other tables before these.

    Raises:
        UsageError: A table or column does not exist, a reference leads nowhere or in a circle, or nothing is declared.
    """
    if not paths:
        msg = "no table is declared to hold personal data: gdpr.personal_data, or heliosvfs.compliance.declarations.DataPath"
        raise UsageError(msg)
    by_name = {path.table.lower(): path for path in paths}
    if len(by_name) < len(paths):
        msg = "a table is declared twice to hold personal data"
        raise UsageError(msg)
    depths = {path.table: _depth(path, by_name) for path in paths}
    ordered = sorted(paths, key=lambda path: -depths[path.table])
    return [_table(connection, path, by_name) for path in ordered]


def _depth(path: DataPath, by_name: dict[str, DataPath]) -> int:
    """Return how many references lead from a table to the one with the subject's identifier."""
    depth, at = 0, path
    while at.reference is not None:
        _, table, _ = at.reference
        if table.lower() not in by_name:
            msg = f"{at.table}: via leads to {table}, which is not declared to hold personal data"
            raise UsageError(msg)
        at = by_name[table.lower()]
        depth += 1
        if depth > len(by_name):
            msg = f"{path.table}: via leads in a circle"
            raise UsageError(msg)
    return depth


def _where(path: DataPath, by_name: dict[str, DataPath]) -> str:
    if path.reference is None:
        return f"{quoted(path.subject_column)} = ?"
    column, table, parent = path.reference
    inner = _where(by_name[table.lower()], by_name)
    return f"{quoted(column)} IN (SELECT {quoted(parent)} FROM main.{quoted(table)} WHERE {inner})"


def _table(connection: Connection, path: DataPath, by_name: dict[str, DataPath]) -> Table:
    columns = _columns(connection, path.table)
    if not columns:
        msg = f"{path.table} is declared to hold personal data, and there is no such table"
        raise UsageError(msg)
    known = {column.name.lower(): column for column in columns}
    wanted = [*path.columns, *([path.subject_column] if path.subject_column else [])]
    if path.reference is not None:
        column, table, parent = path.reference
        wanted.append(column)
        if parent.lower() not in {one.name.lower() for one in _columns(connection, table)}:
            msg = f"{path.table}: via leads to {table}.{parent}, and there is no such column"
            raise UsageError(msg)
    for name in wanted:
        if name.lower() not in known:
            msg = f"{path.table}.{name} is declared to hold personal data, and there is no such column"
            raise UsageError(msg)
    if path.columns:
        personal = tuple(known[name.lower()] for name in path.columns)
    else:
        apart = _references(connection, path.table) | {path.subject_column.lower()}
        personal = tuple(column for column in columns if not column.is_key and column.name.lower() not in apart)
    return Table(path, _where(path, by_name), columns, personal)


def _ask(connection: Connection, sql: str) -> list[Any]:
    """Ask SQLite of the schema; that is no access to data, so it is no event."""
    auditor = getattr(connection, "auditor", None)
    rows: list[Any] = connection.execute(sql).fetchall() if auditor is None else auditor.writer.run(sql)
    return rows


def _columns(connection: Connection, table: str) -> tuple[Column, ...]:
    unique = {
        info[2].lower()
        for index in _ask(connection, f"PRAGMA main.index_list({quoted(table)})")
        if index[2] and len(found := _ask(connection, f"PRAGMA main.index_info({quoted(index[1])})")) == 1
        for info in found
        if info[2] is not None
    }
    return tuple(
        Column(name, _affinity(kind), bool(required), bool(key), name.lower() in unique)
        for _, name, kind, required, _, key, hidden in _ask(connection, f"PRAGMA main.table_xinfo({quoted(table)})")
        if not hidden
    )


def _affinity(kind: str) -> str:
    upper = kind.upper()
    if "INT" in upper or any(word in upper for word in ("REAL", "FLOA", "DOUB", "NUM", "DEC")):
        return "NUMERIC"
    return "TEXT" if any(word in upper for word in ("CHAR", "CLOB", "TEXT", "DATE", "TIME")) else "BLOB"


def _references(connection: Connection, table: str) -> set[str]:
    return {row[3].lower() for row in _ask(connection, f"PRAGMA main.foreign_key_list({quoted(table)})")}
