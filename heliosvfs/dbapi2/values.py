"""Values of rows that are not as APSW made them: text factories, converters, and text that is not UTF-8.

APSW decodes text before anyone can ask for its bytes. For text that can be decoded the bytes are those of its encoding; a row
with text that can't be is read once more, through a statement around the first one that casts its columns to blobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw

from heliosvfs.dbapi2.adapters import converters
from heliosvfs.dbapi2.constants import PARSE_COLNAMES, PARSE_DECLTYPES
from heliosvfs.dbapi2.errors import OperationalError
from heliosvfs.dbapi2.sessions import Session

if TYPE_CHECKING:
    from heliosvfs.dbapi2.fetching import Fetching

__all__ = ["Caster", "undecoded"]


def _converter_of(name: str, declared: str | None, detect_types: int) -> Any:
    """Return the converter of a column, None if it has none."""
    found = None
    if detect_types & PARSE_COLNAMES and "[" in name:
        kind, bracket, _ = name.rpartition("[")[2].partition("]")
        found = converters.get(kind.upper()) if bracket else None
    if found is None and detect_types & PARSE_DECLTYPES and declared:
        # NUMBER(10) and INTEGER NOT NULL are a NUMBER and an INTEGER
        found = converters.get(declared.partition(" ")[0].partition("(")[0].upper())
    return found


class _Text(bytes):
    """Text of a row that was read as bytes."""


_TEXT = (str, _Text)


def _made(factory: Any, text: str | bytes) -> Any:
    return factory(text.encode() if isinstance(text, str) else bytes(text))


class Caster:
    """Turns the rows of one execution into what text factory and converters make of them.

    Attributes:
        rows: How many it has turned so far.
    """

    def __init__(self, cursor: Fetching, session: Session) -> None:
        self.rows = 0
        self._connection = cursor._connection  # noqa: SLF001 - as below
        self._db = session.db
        self._converters: list[Any] = []
        if session.detect_types:
            columns = cursor._columns()  # noqa: SLF001 - the cursor's own helper
            self._converters = [_converter_of(name, declared, session.detect_types) for name, declared in columns]

    def cast(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a row as text factory and converters want it."""
        self.rows += 1
        factory = self._connection.text_factory
        if not any(self._converters):
            if factory is str:
                return row
            return tuple([_made(factory, value) if isinstance(value, _TEXT) else value for value in row])
        shaped = []
        for value, converter in zip(row, self._converters, strict=False):
            if converter is not None:
                content = self._bytes(value)
                shaped.append(converter(content) if content else None)
            elif factory is not str and isinstance(value, _TEXT):
                shaped.append(_made(factory, value))
            else:
                shaped.append(value)
        return tuple(shaped)

    def _bytes(self, value: Any) -> bytes:
        """Return a value's bytes as sqlite3_column_blob() would; those of NULL and of what is empty are none."""
        if isinstance(value, bytes):
            return bytes(value)
        if type(value) is str:
            return value.encode()
        if type(value) is int:
            return b"%d" % value
        if value is None:
            return b""
        reader = apsw.Cursor(self._db)
        reader.exec_trace = None  # nothing is read of the database: it is about SQLite's own digits
        return str(reader.execute("SELECT CAST(? AS TEXT)", (value,)).get).encode()


def undecoded(cursor: Fetching, error: UnicodeDecodeError) -> Any:
    """Return the row that could not be decoded, its text as bytes for the text factory.

    Raises:
        OperationalError: The text factory is the usual one, or the row can't be had in this way.
    """
    columns = cursor._columns()  # noqa: SLF001 - the cursor's own helper
    if cursor._connection.text_factory is not str:  # noqa: SLF001
        row = _read_again(cursor, len(columns))
        if row is not None and error.object in row:
            return row
    column = f" column '{columns[0][0]}'" if len(columns) == 1 else ""
    text = error.object.partition(b"\0")[0].decode("ascii", "replace")
    msg = f"Could not decode to UTF-8{column} with text '{text}'"
    raise OperationalError(msg) from None


def _read_again(cursor: Fetching, width: int) -> tuple[Any, ...] | None:
    """Return the row that follows those handed out, None if the statement can't be part of another.

    The statement is still under way, so this reads the same state of the database.
    """
    names = [f"c{number}" for number in range(width)]
    values = ", ".join(
        f"typeof({name}), CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END" for name in names
    )
    inner = cursor._statement.text.rstrip("; \t\r\n")  # noqa: SLF001 - as above
    done = 0 if cursor._caster is None else cursor._caster.rows  # noqa: SLF001
    reader = apsw.Cursor(cursor._base.db)  # noqa: SLF001
    reader.exec_trace = None
    sql = f"WITH q({', '.join(names)}) AS ({inner}\n) SELECT {values} FROM q LIMIT 1 OFFSET {done}"  # noqa: S608 - the statement's own text
    try:
        row = reader.execute(sql, cursor._parameters).fetchone()  # noqa: SLF001
    except apsw.Error:
        return None
    finally:
        reader.close(True)  # noqa: FBT003 - APSW's parameter: do not raise
    if row is None:
        return None
    return tuple(_Text(value) if kind == "text" else value for kind, value in zip(row[::2], row[1::2], strict=True))
