"""What has to be known of an SQL text before it is executed: whether it is one statement, changes rows, or changes the schema.

Most of it can be read off the text. Where it can't, SQLite is asked: the statement is prepared and not executed, and what was
prepared stays in APSW's statement cache, where its execution finds it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import apsw

from heliosvfs.dbapi2.errors import DataError, ProgrammingError

__all__ = ["Column", "Prepared", "Statement", "classify", "counts_all_changes", "prepare", "script"]

Column = tuple[str, str]

_COMMENTS = re.compile(r"(?:[ \t\f\r\n]+|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))*", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]*")
_DML = re.compile(r"INSERT|UPDATE|DELETE|REPLACE", re.IGNORECASE)
_SCHEMA_STAYS = frozenset(("SELECT", "VALUES", "WITH", "BEGIN", "COMMIT", "END", "SAVEPOINT", "RELEASE", "EXPLAIN", "PRAGMA", ""))
_CALLS = frozenset(("Program", "VUpdate", "Function", "PureFunc", "AggStep"))
_FURTHER = re.compile(r"ATTACH|VACUUM", re.IGNORECASE)
_INTO = re.compile(r"\bINTO\b", re.IGNORECASE)
_MARK = re.compile(r"[:@$]\w")
_ENDING = "; \t\r\n"
_WIDEST = 4  # bytes of a character in UTF-8


@dataclass(slots=True)
class Statement:
    """An SQL text that may be executed.

    Attributes:
        text: The text of its one statement.
        is_dml: It begins with INSERT, UPDATE, DELETE or REPLACE.
        may_return_rows: It is no DML, or has a RETURNING clause.
        alters: It may change the schema, and with it what other statements return.
        attaches: It is an ATTACH or a VACUUM INTO: it opens a further file.
        is_plain: Nothing but executing it is to be done: it is none of the others.
        named: What to say if it is given a sequence, because it has named parameters; None before Python 3.12 or if it has none.
    """

    text: str
    is_dml: bool = False
    may_return_rows: bool = True
    alters: bool = False
    attaches: bool = False
    named: str | None = None
    is_plain: bool = field(init=False)

    def __post_init__(self) -> None:
        """See whether executing it is all there is to do."""
        self.is_plain = not self.is_dml and not self.alters and self.named is None


class Prepared(NamedTuple):
    """What SQLite says of a statement.

    Attributes:
        text: The text up to and with its semicolon.
        is_readonly: Whether it leaves the database as it is.
        columns: Name and declared type of each column of its rows.
        parameters: Names of its parameters, None for those without.
    """

    text: str
    is_readonly: bool
    columns: tuple[Column, ...]
    parameters: tuple[str | None, ...]


def prepare(connection: apsw.Connection, sql: str) -> Prepared:
    """Prepare the first statement of a text, and do not execute it.

    On an audited connection the statement is prepared again when it is executed, because that is when the audit looks; and one
    that can't be prepared is handed to an audited cursor, so that the attempt is recorded.

    Raises:
        apsw.Error: SQLite can't prepare it.
    """
    auditor = getattr(connection, "auditor", None)
    if auditor is None:
        return _prepare(apsw.Cursor(connection), sql, can_cache=True)
    was = auditor.enter()
    try:
        return _prepare(apsw.Cursor(connection), sql, can_cache=False)
    except apsw.Error:
        auditor.gate.take_denial()  # the audited cursor will be denied the same, and that is the attempt that is recorded
        _prepare(connection.cursor(), sql, can_cache=False)
        raise
    finally:
        auditor.leave(was)


def _prepare(cursor: apsw.Cursor, sql: str, *, can_cache: bool) -> Prepared:
    found: list[Prepared] = []

    def stop(cursor: apsw.Cursor, text: str, _: Any) -> bool:
        parameters = cursor.bindings_names if cursor.has_vdbe else ()
        found.append(Prepared(text, cursor.is_readonly, cursor.get_description(), parameters))
        return False

    cursor.exec_trace = stop
    try:
        # apsw.ext.query_info prepares without values in this way, too
        cursor.execute(sql, apsw._null_bindings, can_cache=can_cache)  # type: ignore[attr-defined]  # noqa: SLF001
    except apsw.ExecTraceAbort:
        pass
    finally:
        cursor.close(True)  # noqa: FBT003 - APSW's parameter: do not raise
    return found[0]


def counts_all_changes(connection: apsw.Connection, sql: str) -> bool:
    """Tell whether a statement's changes and the changes of all it brings about are the same number.

    They are not where its program calls others: triggers and foreign keys (Program), virtual tables, the program's functions.
    """
    if getattr(connection, "auditor", None) is not None:
        return False  # the log's own changes come between
    cursor = apsw.Cursor(connection)
    cursor.exec_trace = None
    try:
        cursor.execute(sql, apsw._null_bindings, explain=1)  # type: ignore[attr-defined]  # noqa: SLF001 - as in prepare
        return _CALLS.isdisjoint(row[1] for row in cursor)
    finally:
        cursor.close(True)  # noqa: FBT003 - APSW's parameter: do not raise


def _check_size(sql: str, limit: int) -> None:
    if len(sql) * _WIDEST > limit and len(sql.encode(errors="surrogatepass")) > limit:
        msg = "query string is too large"
        raise DataError(msg)


def _after_comments(sql: str) -> int:
    """Return where white space and comments at the beginning end."""
    match = _COMMENTS.match(sql)
    return match.end() if match else 0


def _named(connection: apsw.Connection, sql: str) -> str | None:
    """Return what sqlite3 says of a statement with named parameters that is given a sequence."""
    for number, name in enumerate(prepare(connection, sql).parameters, 1):
        if name is not None and not name.isdigit():  # ?1 has a name too, to SQLite
            return (
                f"Binding {number} (':{name}') is a named parameter, but you supplied a sequence which requires nameless "
                "(qmark) placeholders."
            )
    return None


def script(connection: apsw.Connection, sql: str, limit: int) -> Iterator[tuple[str, bool]]:
    """Check the text of executescript(), and split it where that matters; each part is executed before the next is asked for.

    Returns:
        The text, or one statement after the other if one may open a further file; and whether it does.

    Raises:
        DataError: It is longer than SQLite accepts.
        ValueError: It has a null character.
    """
    if "\0" in sql:
        msg = "embedded null character"
        raise ValueError(msg)
    _check_size(sql, limit)
    return _each(connection, sql) if _FURTHER.search(sql) else iter(((sql, False),))


def _each(connection: apsw.Connection, sql: str) -> Iterator[tuple[str, bool]]:
    while (start := _after_comments(sql)) < len(sql):
        if sql[start] == ";":
            sql = sql[start + 1 :]
            continue
        text = prepare(connection, sql).text
        yield text, _attaches(text, _first_word(text))
        sql = sql[len(text) :]


def _attaches(text: str, word: str) -> bool:
    return word == "ATTACH" or (word == "VACUUM" and _INTO.search(text) is not None)


def _first_word(text: str) -> str:
    return _WORD.match(text, _after_comments(text))[0].upper()  # type: ignore[index]


def classify(connection: apsw.Connection, sql: str, limit: int) -> Statement:
    """Say what a text is.

    Raises:
        ProgrammingError: It is more than one statement, or has a null character.
        DataError: It is longer than SQLite accepts.
        apsw.Error: SQLite can't prepare it.
    """
    if not isinstance(sql, str):
        msg = f"execute() argument 1 must be str, not {type(sql).__name__}"
        raise TypeError(msg)
    _check_size(sql, limit)
    if "\0" in sql:
        msg = "the query contains a null character"
        raise ProgrammingError(msg)
    text = sql
    body = sql.rstrip(_ENDING)
    if ";" in body:  # perhaps inside a string, a comment or a trigger: SQLite knows
        text = prepare(connection, sql).text
        body = text.rstrip(_ENDING)
    rest = sql[len(text) :]
    if _after_comments(rest) < len(rest) or text.count(";", len(body)) > 1:
        msg = "You can only execute one statement at a time."
        raise ProgrammingError(msg)
    start = _after_comments(text)
    is_dml = _DML.match(text, start) is not None
    word = _first_word(text)
    may_return_rows = not is_dml or "returning" in text.lower()
    named = _named(connection, text) if sys.version_info >= (3, 12) and _MARK.search(text) else None
    return Statement(text, is_dml, may_return_rows, not is_dml and word not in _SCHEMA_STAYS, _attaches(text, word), named)
