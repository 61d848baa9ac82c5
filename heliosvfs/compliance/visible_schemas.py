"""What a database looks like to a session: its schema without what the session may not see.

An empty database in memory has the tables, columns, views and indexes that are left. What SQLite says there of a statement is
what it would say if the rest did not exist: its own words, class and codes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import apsw

__all__ = ["Column", "Schema", "Table", "VisibleSchema", "read_schema"]

_WORDS = re.compile(r"\w+")
_GENERATED = frozenset({2, 3})  # in the column "hidden" of PRAGMA table_xinfo: virtual, stored
_OFF = frozenset({apsw.SQLITE_PRAGMA, apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH})  # PRAGMA acts when it is prepared
_NO_BINDINGS: Any = apsw._null_bindings  # type: ignore[attr-defined]  # noqa: SLF001 - what apsw.ext prepares statements with whose bindings it has not


class Column(NamedTuple):
    """A column, as PRAGMA table_xinfo tells of it."""

    name: str
    type: str
    key: int
    hidden: int

    @property
    def is_generated(self) -> bool:
        """Whether its value is computed from other columns."""
        return self.hidden in _GENERATED


class Table(NamedTuple):
    """A table or view, as PRAGMA table_list tells of it."""

    name: str
    kind: str
    without_rowid: bool
    strict: bool
    columns: tuple[Column, ...]
    uniques: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Schema:
    """The schema of a database.

    Attributes:
        version: SQLite's schema cookie.
        objects: Type, name, table and SQL of everything in it.
        tables: Tables and views by name, in lower case.
        functions: Name and number of arguments of each function of the connection.
        collations: Names of its collations.
        modules: Names of its modules of virtual tables, in lower case.
    """

    version: int
    objects: tuple[tuple[str, str, str, str | None], ...]
    tables: dict[str, Table]
    functions: frozenset[tuple[str, int]]
    collations: frozenset[str]
    modules: frozenset[str]


def read_schema(run: Callable[..., Any]) -> Schema:
    """Read the schema of the main database.

    Args:
        run: Runs SQL, with bindings, and returns the rows.
    """
    version = int(run("PRAGMA main.schema_version")[0][0])
    objects = tuple(run("SELECT type, name, tbl_name, sql FROM main.sqlite_schema"))
    tables = {}
    for schema, name, kind, _, without_rowid, strict in run("PRAGMA main.table_list"):
        if schema == "main" and not name.startswith("sqlite_"):
            columns, uniques = tuple(_columns(run, name)), tuple(_uniques(run, name)) if kind == "table" else ()
            tables[name.lower()] = Table(name, kind, bool(without_rowid), bool(strict), columns, uniques)
    functions = frozenset((str(row[0]), int(row[4])) for row in run("PRAGMA function_list"))
    collations = frozenset(str(row[1]) for row in run("PRAGMA collation_list"))
    modules = frozenset(str(row[0]).lower() for row in run("PRAGMA module_list"))
    return Schema(version, objects, tables, functions, collations, modules)


def _columns(run: Callable[..., Any], table: str) -> Iterator[Column]:
    try:
        for _, name, kind, _, _, key, hidden in run(f"PRAGMA main.table_xinfo({_quoted(table)})"):
            yield Column(name, kind or "", key, hidden)
    except apsw.SQLError:
        return  # of a view over what is gone, or of a virtual table without its module


def _uniques(run: Callable[..., Any], table: str) -> Iterator[tuple[str, ...]]:
    """Yield the columns of each UNIQUE constraint."""
    for _, index, _, origin, _ in run(f"PRAGMA main.index_list({_quoted(table)})"):
        if origin == "u":
            yield tuple(str(row[2]) for row in run(f"PRAGMA main.index_info({_quoted(index)})"))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class VisibleSchema:
    """A database in memory with what is visible of a schema."""

    def __init__(self, schema: Schema, *, hides_table: Callable[[str], bool], hides_column: Callable[[str, str], bool]) -> None:
        """Build it.

        Args:
            schema: The whole schema.
            hides_table: Tells whether a table is hidden, by its name in lower case.
            hides_column: Tells whether a column is hidden, by the names of table and column in lower case.
        """
        self._schema = schema
        self._database = apsw.Connection(":memory:")
        self._database.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        self._register()
        self._partly: set[str] = set()
        self._visible: dict[str, set[str]] = {}
        hidden: set[str] = set()
        for name, table in sorted(schema.tables.items(), key=lambda item: item[1].kind != "virtual"):
            if hides_table(name):
                hidden.update((name, *(column.name.lower() for column in table.columns)))
                continue
            shown = [column for column in table.columns if not hides_column(name, column.name.lower())]
            if len(shown) < len(table.columns):
                self._partly.add(name)
                hidden.update(column.name.lower() for column in table.columns if column not in shown)
            if table.kind != "view" and self._make_table(table, shown):
                self._visible[name] = {column.name.lower() for column in shown}
        self._make_the_rest(hidden)
        made = {name for names in self._visible.values() for name in names} | set(self._visible)
        self._found = {str(row[0]).lower() for row in self._database.execute("SELECT name FROM sqlite_schema")}
        hidden.update(name.lower() for _, name, _, _ in schema.objects if name.lower() not in self._found)
        names = sorted(hidden - made, key=len, reverse=True)
        self._hidden = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, names)) + r")(?!\w)") if names else None
        self._database.authorizer = lambda code, *_: apsw.SQLITE_DENY if code in _OFF else apsw.SQLITE_OK

    def _register(self) -> None:
        """Give it the names of the connection's functions and collations; none is ever called."""
        own = {(str(row[0]), int(row[4])) for row in self._database.execute("PRAGMA function_list")}
        for name, count in self._schema.functions - own:
            with contextlib.suppress(apsw.Error):
                self._database.create_scalar_function(name, lambda *_: None, count)
        for name in self._schema.collations - {"BINARY", "NOCASE", "RTRIM"}:
            self._database.create_collation(name, lambda a, b: (a > b) - (a < b))

    def _make_table(self, table: Table, shown: list[Column]) -> bool:
        """Make a table with the columns that are shown."""
        sql = next((sql for kind, name, _, sql in self._schema.objects if kind == "table" and name == table.name), None)
        if sql is not None and table.kind != "shadow" and len(shown) == len(table.columns) and self._try(sql):
            return True
        parts = [_quoted(column.name) + " " + _type(column) for column in shown]
        keys = sorted((column for column in table.columns if column.key), key=lambda column: column.key)
        if keys and all(column in shown for column in keys):
            parts.append(f"PRIMARY KEY({', '.join(_quoted(column.name) for column in keys)})")
            options = ["WITHOUT ROWID"] * table.without_rowid
        else:
            options = []
        names = {column.name for column in shown}
        parts += [f"UNIQUE({', '.join(map(_quoted, unique))})" for unique in table.uniques if names.issuperset(unique)]
        made = f"CREATE TABLE {_quoted(table.name)}({', '.join(parts)}) {', '.join(options)}"
        return bool(parts) and self._try(made)

    def _make_the_rest(self, hidden: set[str]) -> None:
        """Make indexes and views over what is there, and the triggers of such views that name nothing hidden."""
        for kind, _, _, sql in self._schema.objects:
            if kind == "index" and sql:
                self._try(sql)
        left = {name: sql for kind, name, _, sql in self._schema.objects if kind == "view" and sql}
        again = True
        while again:  # a view may be over one that is made later
            again = False
            for name, sql in list(left.items()):
                self._try(sql)
                if not self.joins_hidden(sql) and self.error_of(f"SELECT * FROM {_quoted(name)}") is None:
                    del left[name]
                    again = True
                else:
                    self._try(f"DROP VIEW {_quoted(name)}")
        views = {name for name, table in self._schema.tables.items() if table.kind == "view"}
        for kind, _, table, sql in self._schema.objects:
            if kind == "trigger" and sql and table.lower() in views and not any(name in sql.lower() for name in hidden):
                self._try(sql)

    def _try(self, sql: str) -> bool:
        try:
            self._database.execute(sql)
        except apsw.Error:
            return False
        return True

    def mentions_hidden(self, text: str) -> bool:
        """Tell whether a text holds a name of something hidden, which nothing visible has."""
        return self._hidden is not None and self._hidden.search(text.lower()) is not None

    def joins_hidden(self, sql: str) -> bool:
        """Tell whether a NATURAL JOIN may join by hidden columns, for which SQLite asks no authorizer."""
        words = set(_WORDS.findall(sql.lower()))
        return "natural" in words and any(set(_WORDS.findall(name)) <= words for name in self._partly)

    def is_partial(self, table: str) -> bool:
        """Tell whether a table is visible without some of its columns."""
        return table in self._partly

    def has(self, table: str, column: str | None = None) -> bool:
        """Tell whether a table or view, or a column of a table, is visible; names are in lower case."""
        return table in self._found if column is None else column in self._visible.get(table, ())

    def error_of(self, sql: str) -> apsw.Error | None:
        """Return what SQLite says of SQL where only this is there; None: it can be prepared."""
        try:
            for _ in self._database.cursor().execute(sql, _NO_BINDINGS, can_cache=False, explain=1):
                pass
        except (apsw.AuthError, apsw.ConstraintError):
            return None
        except apsw.Error as error:
            return error.with_traceback(None)
        return None

    def error_of_blob(self, schema: str, table: str, column: str) -> apsw.Error | None:
        """Return what SQLite says of a blob handle on a column where only this is there; None: it could be opened."""
        try:
            self._database.blob_open(schema, table, column, 1, False)  # noqa: FBT003 - APSW's signature
        except apsw.Error as error:
            return None if "no such rowid" in str(error) else error.with_traceback(None)
        return None


def _type(column: Column) -> str:
    """Return a column's type, so that SQLite writes it where it may be written."""
    kind = _quoted(column.type) if column.type and not column.type.replace(" ", "").isalnum() else column.type
    return f"{kind} GENERATED ALWAYS AS (NULL)" if column.is_generated else kind
