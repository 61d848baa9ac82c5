"""The half of a cursor that hands out rows, each as APSW's C code made it.

sqlite3 is always one step ahead: when it hands out the last row its statement has ended, and the locks that the statement held
are gone. So are these cursors; the row that they are ahead is kept in `_ahead`. Rows are touched in Python only where a row
factory, a text factory or a converter asks for it (`values.py`).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from threading import get_ident
from typing import TYPE_CHECKING, Any

import apsw

from heliosvfs.dbapi2 import values
from heliosvfs.dbapi2.constants import PARSE_COLNAMES
from heliosvfs.dbapi2.errors import raise_translated
from heliosvfs.dbapi2.sessions import LOCKED, NO_CURSOR, Session
from heliosvfs.dbapi2.statements import Statement

if TYPE_CHECKING:
    from heliosvfs.dbapi2.connections import Connection

__all__ = ["UNREAD", "Fetching"]

_MAKES = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:CREATE|DROP|ALTER)\b", re.IGNORECASE | re.DOTALL)
UNREAD = object()  # the statement has been executed and no row of it has been fetched
_NOTHING = Statement("")


class Fetching:
    """Hands out the rows of the statement that was executed last.

    Attributes:
        row_factory: Makes of each row what fetching returns; None: a tuple.
        arraysize: How many rows fetchmany() returns.
    """

    _gate: Session = NO_CURSOR  # who may use this cursor; a stand-in while nobody may
    _base: Session  # the database that it belongs to, always
    _connection: Connection
    _cursor: apsw.Cursor
    _statement: Statement = _NOTHING
    _ahead: Any = None
    _description: Any = None
    _rowcount: int = -1
    _lastrowid: int | None = None
    _parameters: Any = ()  # of a statement whose rows are under way
    _caster: values.Caster | None = None
    row_factory: Any = None
    arraysize: int = 1

    def _columns(self) -> tuple[tuple[str, str], ...]:
        """Return name and declared type of each column."""
        try:
            return self._cursor.get_description()
        except (apsw.ExecutionCompleteError, apsw.CursorClosedError):
            if _MAKES.match(self._statement.text):  # it has made what it would make again, and returns no rows
                return ()
            return self._base.prepare(self._statement.text).columns

    def _describe(self) -> None:
        try:
            columns = self._columns()
        except Exception as error:  # noqa: BLE001 - raised again, translated
            raise_translated(error)
        names = [name for name, _ in columns]
        if self._base.detect_types & PARSE_COLNAMES:
            names = [name.partition("[")[0].removesuffix(" ") if "[" in name else name for name in names]
        self._description = tuple([(name, None, None, None, None, None, None) for name in names]) or None

    def _look(self) -> None:
        """Take what shaping the rows needs to know, while the statement is under way: afterwards it would be prepared again."""
        if self._description is UNREAD:
            self._describe()
        if self._caster is None and self._connection._casts:  # noqa: SLF001
            self._caster = values.Caster(self, self._base)

    def _first(self, shapes: bool) -> Any:  # noqa: FBT001 - by name it would take longer
        """Return the next row where none is kept, None after the last; afterwards the cursor is one step ahead.

        Args:
            shapes: Whether the row will be shaped.
        """
        kept, self._ahead = self._ahead, None
        if kept is None:
            return None
        fetch = self._cursor.fetchone
        try:
            if type(kept) is deque:
                row = kept.popleft()
                self._ahead = kept or None
                return row
            if kept is not UNREAD:  # the row that was read ahead could not be decoded, and now it is its turn
                raise kept  # noqa: TRY301 - handled like one that is read now
            row = fetch()
        except UnicodeDecodeError as error:
            self._ahead = UNREAD
            return values.undecoded(self, error)
        except Exception as error:  # noqa: BLE001 - raised again, translated
            raise_translated(error)
        if row is not None:
            try:
                if shapes:
                    self._look()
                self._ahead = fetch()
            except Exception as error:  # noqa: BLE001 - raised again, translated
                return self._stumbled(row, error)
        if self._ahead is None and self._statement.is_dml:
            self._ended()
        return row

    def _stumbled(self, row: Any, error: Exception) -> Any:
        """Return a row although reading the one after it failed, if that one is at fault and not the statement."""
        if isinstance(error, UnicodeDecodeError):
            self._ahead = error
            return row
        self._ahead = None
        try:
            raise_translated(error)
        finally:
            del error  # a cycle with this frame would keep the cursor for the garbage collector, in any thread

    def _ended(self) -> None:
        """Note what the last statement, a DML one with RETURNING, has changed."""
        self._rowcount = self._gate.db.changes()

    def _shaped(self, row: Any) -> Any:
        """Make of a row what the factories and converters ask for; meanwhile this cursor can't be used."""
        gate, self._gate = self._gate, LOCKED
        try:
            session = self._base
            if session.detect_types or self._connection.text_factory is not str:
                caster = self._caster
                if caster is None:
                    caster = self._caster = values.Caster(self, session)
                row = caster.cast(row)
        finally:
            self._gate = gate
        return row if self.row_factory is None else self.row_factory(self, row)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the rows that are left."""
        # a generator takes half the time of an iterator's __next__; its state is the cursor's all the same
        connection = self._connection
        while True:
            session = self._gate
            if get_ident() != session.owner:
                row = session.reach(next, self, UNREAD)
                if row is UNREAD:
                    return
                yield row
                continue
            row = self._ahead
            if type(row) is tuple:
                try:
                    ahead = self._ahead = self._cursor.fetchone()
                except Exception as error:  # noqa: BLE001 - raised again, translated
                    row = self._stumbled(row, error)
                else:
                    if ahead is None and self._statement.is_dml:
                        self._ended()
            else:
                row = self._first(self.row_factory is not None or connection._casts)  # noqa: SLF001
                if row is None:
                    return
            if self.row_factory is not None or connection._casts:  # noqa: SLF001
                row = self._shaped(row)
            yield row

    def __next__(self) -> Any:
        """Return the next row."""
        session = self._gate
        if get_ident() != session.owner:
            return session.reach(Fetching.__next__, self)
        row = self._ahead
        if type(row) is tuple:
            try:
                ahead = self._ahead = self._cursor.fetchone()
            except Exception as error:  # noqa: BLE001 - raised again, translated
                row = self._stumbled(row, error)
            else:
                if ahead is None and self._statement.is_dml:
                    self._ended()
        else:
            row = self._first(self.row_factory is not None or self._connection._casts)  # noqa: SLF001
            if row is None:
                raise StopIteration
        if self.row_factory is not None or self._connection._casts:  # noqa: SLF001
            return self._shaped(row)
        return row

    def fetchone(self) -> Any:
        """Return the next row, None after the last."""
        session = self._gate
        if get_ident() != session.owner:
            return session.reach(Fetching.fetchone, self)
        if type(self._ahead) is tuple:
            return Fetching.__next__(self)
        shapes = self.row_factory is not None or self._connection._casts  # noqa: SLF001
        row = self._first(shapes)
        return self._shaped(row) if shapes and row is not None else row

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows: `arraysize` of them, or ``size``."""
        size = self.arraysize if size is None else size
        if size < 1:
            return self.fetchall()
        return list(islice(self, size))

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        session = self._gate
        if get_ident() != session.owner:
            return session.reach(Fetching.fetchall, self)
        ahead = self._ahead
        if ahead is None:
            return []
        if self._connection._casts or isinstance(ahead, (Exception, deque)):  # noqa: SLF001
            return list(self)
        try:
            rows: list[Any] = self._cursor.fetchall()
        except Exception as error:  # noqa: BLE001 - raised again, translated
            self._ahead = None
            raise_translated(error)
        self._ahead = None
        if self._statement.is_dml:
            self._ended()
        if ahead is not UNREAD:
            rows.insert(0, ahead)
        return rows if self.row_factory is None else self._made(rows)

    def _made(self, rows: list[Any]) -> list[Any]:
        """Return what the row factory makes of rows; those after one that it refuses are left to be fetched."""
        factory = self.row_factory
        made: list[Any] = []
        add = made.append
        try:
            for row in rows:
                add(factory(self, row))
        except BaseException:
            self._ahead = deque(rows[len(made) + 1 :]) or None
            raise
        return made
