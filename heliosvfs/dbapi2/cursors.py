"""Cursor: executes statements, and says what is known of the last one; `fetching.py` is the other half."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import ref

import apsw

from heliosvfs.dbapi2.adapters import bound, missing, plain_types
from heliosvfs.dbapi2.attachments import attach
from heliosvfs.dbapi2.deprecations import named_given_sequence
from heliosvfs.dbapi2.errors import ProgrammingError, raise_translated
from heliosvfs.dbapi2.feeds import Feed
from heliosvfs.dbapi2.fetching import UNREAD, Fetching
from heliosvfs.dbapi2.sessions import CLOSED_CURSOR, LOCKED, NO_CURSOR, Dropped, Session
from heliosvfs.dbapi2.statements import Statement, script
from heliosvfs.torn import undo

if TYPE_CHECKING:
    from heliosvfs.dbapi2.connections import Connection

__all__ = ["Cursor"]


class Cursor(Fetching):
    """A cursor of a `Connection`.

    Attributes:
        row_factory: Makes of each row what fetching returns; None: a tuple.
        arraysize: How many rows fetchmany() returns.
    """

    def __init__(self, connection: Connection, /) -> None:
        """Make a cursor of a connection; `Connection.cursor` does."""
        try:
            session = connection._session  # noqa: SLF001 - the other half of the same thing
        except AttributeError:
            _refuse(connection)
        if get_ident() != session.owner:
            session.reach(Cursor.__init__, self, connection)
            return
        if self._gate is not NO_CURSOR:  # __init__ was called before
            self._reset()
        self._connection = connection
        self._gate = self._base = session
        self._cursor = session.db.cursor()
        if session.is_shared:
            self._dropped = Dropped(session, self._cursor)
        cursors = session.cursors
        cursors.append(ref(self))
        if len(cursors) > session.most_cursors:
            session.forget_cursors()

    def _reset(self) -> None:
        if self._gate is LOCKED:
            LOCKED.reach(lambda: None)
        self._ahead = self._description = self._lastrowid = self.row_factory = None
        self._rowcount = -1

    # -- executing ---------------------------------------------------------------------------------------------------

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:
        """Execute one statement.

        Args:
            sql: The statement.
            parameters: Values of its placeholders: a sequence, or a dict for named ones.

        Raises:
            ProgrammingError: It is more than one statement, or the parameters do not fit.
        """
        session = self._gate
        if get_ident() != session.owner:
            return session.reach(Cursor.execute, self, sql, parameters)
        try:
            try:
                statement = session.statements[sql]
            except KeyError:
                statement = session.classify(sql)
            kind = type(parameters)
            if kind is not tuple and kind is not list:
                parameters = bound(parameters)
            else:
                for value in parameters:
                    if type(value) not in plain_types:
                        parameters = bound(parameters)
                        break
            if statement.is_plain:
                self._cursor.execute(statement.text, parameters)
            else:
                if statement.named is not None and parameters and not isinstance(parameters, dict):
                    named_given_sequence(statement.named)
                if statement.is_dml:
                    self._change(session, statement, parameters)
                    return self
                self._alter(session, statement, parameters)
        except BaseException as error:  # noqa: BLE001 - raised again, translated
            undo(session.db, error, sql)
            self._failed(error, lacking=isinstance(error, KeyError) and type(parameters) is dict)
        self._statement, self._parameters, self._caster = statement, parameters, None
        self._ahead = self._description = UNREAD
        self._rowcount = -1
        self._lastrowid = session.db.last_insert_rowid()
        return self

    def _alter(self, session: Session, statement: Statement, parameters: Any) -> None:
        if statement.alters:
            session.settle()
        if statement.attaches:
            attach(self._cursor, session.db, statement.text, parameters)
        else:
            self._cursor.execute(statement.text, parameters)

    def _change(self, session: Session, statement: Statement, parameters: Any) -> None:
        db = session.db
        if session.begin is not None and not db.in_transaction:
            session.prepare(statement.text)  # what can't be prepared opens no transaction
            if self._ahead is not None:
                self._let_go()
            session.control.execute(session.begin)
        self._cursor.execute(statement.text, parameters)
        self._statement, self._parameters, self._caster = statement, parameters, None
        if statement.may_return_rows:
            self._description = UNREAD
            done = self._is_done()
            self._ahead, self._rowcount = (None, db.changes()) if done else (UNREAD, 0)
        else:
            self._ahead = self._description = None
            self._rowcount = db.changes()
        self._lastrowid = db.last_insert_rowid()

    def _is_done(self) -> bool:
        try:
            self._cursor.has_vdbe  # noqa: B018 - APSW raises where there is no statement any more
        except apsw.ExecutionCompleteError:
            return True
        return False

    def _let_go(self) -> None:
        """End the statement before, if rows of it are left: what is done next shall not see its old snapshot, nor have its locks.

        Raises:
            apsw.ThreadingViolationError: It is executing, and what it executes has come here.
        """
        if self._ahead is not None:
            self._cursor.close(True)  # noqa: FBT003 - APSW's parameter: what is left to fetch is no error
            self._cursor = self._base.db.cursor()
            if self._base.is_shared:
                self._dropped = Dropped(self._base, self._cursor)
            self._ahead = None

    def _failed(self, error: BaseException, *, lacking: bool) -> NoReturn:
        try:
            self._let_go()
        except Exception as refusal:  # noqa: BLE001 - raised below
            error, lacking = refusal, False
        else:
            self._description = None
            self._rowcount = -1
        if lacking:
            raise missing(error.args[0]) from None
        try:
            raise_translated(error)
        finally:
            del error  # a cycle with this frame would keep the cursor for the garbage collector, in any thread

    def executemany(self, sql: str, seq_of_parameters: Iterable[Any], /) -> Cursor:
        """Execute one DML statement once for each set of parameters.

        Raises:
            ProgrammingError: The statement changes nothing, is more than one, or the parameters do not fit.
        """
        session = self._gate
        if get_ident() != session.owner:
            return session.reach(Cursor.executemany, self, sql, seq_of_parameters)
        if not isinstance(sql, str):
            msg = f"executemany() argument 1 must be str, not {type(sql).__name__}"
            raise TypeError(msg)
        db, feed = session.db, None
        try:
            statement = session.statements.get(sql) or session.classify(sql)
            if session.prepare(statement.text).is_readonly:
                msg = "executemany() can only execute DML statements."
                raise ProgrammingError(msg)  # noqa: TRY301 - raised again as it is
            feed = Feed(db, statement.text, seq_of_parameters)
            if statement.alters:
                session.settle()
            self._let_go()
            self._ahead = UNREAD  # a generator that fetches from this cursor is to be refused, and not to find it at its end
            if statement.is_dml and session.begin is not None and not db.in_transaction:
                session.control.execute(session.begin)
            self._cursor.executemany(statement.text, feed.rows)
            if statement.may_return_rows:
                deque(self._cursor, maxlen=0)
        except BaseException as error:  # noqa: BLE001 - raised again, translated
            undo(session.db, error, sql)
            self._failed(error, lacking=feed is not None and feed.lacks(error))
        self._statement = statement
        self._ahead, self._description = None, UNREAD if statement.may_return_rows else None
        self._rowcount = feed.changed() if statement.is_dml else -1
        return self

    def executescript(self, sql_script: str, /) -> Cursor:
        """Execute several statements, after committing what is open."""
        session = self._gate
        if get_ident() != session.owner:
            return session.reach(Cursor.executescript, self, sql_script)
        if not isinstance(sql_script, str):
            msg = f"executescript() argument must be str, not {type(sql_script).__name__}"
            raise TypeError(msg)
        try:
            parts = script(session.db, sql_script, session.sql_limit)
            if self._connection.autocommit == -1:
                session.end("COMMIT")
            session.settle()
            cursor = session.db.cursor()
            for text, attaches in parts:
                if attaches:
                    attach(cursor, session.db, text, ())
                else:
                    cursor.execute(text, apsw._null_bindings)  # type: ignore[attr-defined]  # noqa: SLF001 - unbound means NULL
                deque(cursor, maxlen=0)
        except BaseException as error:  # noqa: BLE001 - raised again, translated
            undo(session.db, error, sql_script)
            raise_translated(error)
        return self

    # -- what is known of the last statement -------------------------------------------------------------------------

    @property
    def description(self) -> tuple[tuple[str, None, None, None, None, None, None], ...] | None:
        """Name of each column, and six Nones; None if the last statement returns no rows.

        Raises:
            DatabaseError: All rows have been fetched, and the statement that they came from can't be prepared any more.
        """
        if self._description is UNREAD:
            session = self._base
            if session.is_shared and get_ident() != session.owner:
                session.reach(self._describe)
            else:
                self._describe()
        return self._description  # type: ignore[no-any-return]

    @property
    def rowcount(self) -> int:
        """How many rows the last DML statement changed, -1 for others."""
        return self._rowcount

    @property
    def lastrowid(self) -> int | None:
        """The rowid of the row that was inserted last."""
        return self._lastrowid

    @property
    def connection(self) -> Connection:
        """The connection."""
        return self._connection

    def setinputsizes(self, sizes: Any, /) -> None:
        """Do nothing; PEP 249 wants it."""

    def setoutputsize(self, size: Any, column: Any = None, /) -> None:
        """Do nothing; PEP 249 wants it."""

    def close(self) -> None:
        """Close the cursor."""
        session = self._gate if self._gate is not CLOSED_CURSOR else self._base
        if get_ident() != session.owner:
            return session.reach(Cursor.close, self)
        if self._gate is CLOSED_CURSOR:
            return None
        try:
            self._cursor.close(True)  # noqa: FBT003 - APSW's parameter: what is left to fetch is no error
        except Exception as error:  # noqa: BLE001 - raised again, translated
            raise_translated(error)
        self._gate = CLOSED_CURSOR
        self._ahead = None
        return None


def _refuse(connection: Any) -> NoReturn:
    msg = f"Cursor() argument 1 must be sqlite3.Connection, not {type(connection).__name__}"
    raise TypeError(msg)
