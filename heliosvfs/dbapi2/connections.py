"""Connection: sqlite3's connection, over a connection of heliosvfs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from threading import get_ident
from types import TracebackType
from typing import Any, Literal

import apsw

from heliosvfs.dbapi2 import backups, dumps, errors, transactions
from heliosvfs.dbapi2.blobs import Blob, open_blob
from heliosvfs.dbapi2.constants import LEGACY_TRANSACTION_CONTROL
from heliosvfs.dbapi2.cursors import Cursor
from heliosvfs.dbapi2.errors import OperationalError, ProgrammingError
from heliosvfs.dbapi2.functions import Functions
from heliosvfs.dbapi2.guards import guarded
from heliosvfs.dbapi2.memories import opened
from heliosvfs.dbapi2.sessions import NO_CONNECTION, Session
from heliosvfs.keyring import Key

__all__ = ["Connection", "Prepared"]


class Prepared:
    """What calling a connection returns: a statement that was prepared."""

    def __new__(cls) -> Prepared:  # noqa: PYI034 - it never returns
        """Refuse: only a connection prepares statements."""
        msg = f"cannot create '{cls.__module__}.{cls.__qualname__}' instances"
        raise TypeError(msg)


class Connection(Functions):
    """A connection to an encrypted database.

    Attributes:
        row_factory: The row factory that cursors begin with.
    """

    Warning = errors.Warning
    Error = errors.Error
    InterfaceError = errors.InterfaceError
    DatabaseError = errors.DatabaseError
    DataError = errors.DataError
    OperationalError = errors.OperationalError
    IntegrityError = errors.IntegrityError
    InternalError = errors.InternalError
    ProgrammingError = errors.ProgrammingError
    NotSupportedError = errors.NotSupportedError

    _session: Session = NO_CONNECTION
    _text_factory: Any = str
    _casts: bool = False  # whether cursors have to look at the values of rows
    _isolation_level: str | None = ""
    _autocommit: int = LEGACY_TRANSACTION_CONTROL
    row_factory: Any = None

    def __init__(  # noqa: PLR0913 - sqlite3's own arguments
        self,
        database: Any,
        timeout: float = 5.0,
        detect_types: int = 0,
        isolation_level: str | None = "",
        check_same_thread: bool = True,  # noqa: FBT001, FBT002 - sqlite3's signature
        factory: Any = None,  # noqa: ARG002 - connect() has called it
        cached_statements: int = 128,
        uri: bool = False,  # noqa: FBT001, FBT002 - sqlite3's signature
        *,
        autocommit: int = LEGACY_TRANSACTION_CONTROL,
        key: Key | None = None,
        config: Any = None,
        audit: Any = None,
    ) -> None:
        """See `connect`."""
        sys.audit("sqlite3.connect", database)
        self._session = NO_CONNECTION
        level = transactions.isolation_level(isolation_level)
        mode = transactions.autocommit(autocommit)
        options = {"timeout": timeout, "statements": cached_statements, "config": config, "audit": audit}
        db, self._release = opened(database, uri=uri, key=key, **options)
        session = Session(db, check_same_thread=check_same_thread, detect_types=detect_types)
        self.row_factory = None
        self._text_factory = str
        self._casts = bool(detect_types)
        self._isolation_level, self._autocommit = level, mode
        session.begin = transactions.begin_before_dml(level, mode)
        if mode is False:
            session.control.execute("BEGIN")
        self._session = session
        sys.audit("sqlite3.connect/handle", self)

    # -- cursors -----------------------------------------------------------------------------------------------------

    def cursor(self, factory: Callable[[Any], Any] = Cursor) -> Any:
        """Return a new cursor."""
        cursor = factory(self)
        if factory is not Cursor and not issubclass(type(cursor), Cursor):
            msg = f"factory must return a cursor, not {type(cursor).__name__}"
            raise TypeError(msg)
        if self.row_factory is not None:
            cursor.row_factory = self.row_factory
        return cursor

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        """Execute a statement with a new cursor, and return that."""
        cursor = Cursor(self)  # whatever cursor() a subclass has: that is not asked, and may call this
        if self.row_factory is not None:
            cursor.row_factory = self.row_factory
        return cursor.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Any:
        """Execute a statement once for each set of parameters with a new cursor, and return that."""
        return Connection.cursor(self).executemany(sql, parameters)

    def executescript(self, sql_script: str, /) -> Any:
        """Execute several statements with a new cursor, and return that."""
        return Connection.cursor(self).executescript(sql_script)

    @guarded
    def __call__(self, sql: str, /) -> Prepared:
        """Prepare a statement."""
        self._session.prepare(self._session.classify(sql).text)
        return object.__new__(Prepared)

    # -- transactions ------------------------------------------------------------------------------------------------

    @guarded
    def commit(self) -> None:
        """Commit the transaction, if there is one."""
        transactions.end(self._session, "COMMIT", self._autocommit)

    @guarded
    def rollback(self) -> None:
        """Roll the transaction back, if there is one."""
        transactions.end(self._session, "ROLLBACK", self._autocommit)

    def __enter__(self) -> Any:
        """Return the connection."""
        self._session.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        """Commit, or roll back if there was an exception."""
        if self._autocommit is True:
            return False
        if kind is not None:
            self.rollback()
            return False
        try:
            self.commit()
        except BaseException:
            self.rollback()
            raise
        return False

    @property
    def in_transaction(self) -> bool:
        """Whether there is a transaction."""
        session = self._session
        if get_ident() != session.owner:
            return session.reach(lambda: session.db.in_transaction)
        return session.db.in_transaction

    @property
    def isolation_level(self) -> str | None:
        """What opens a transaction before DML: "", "DEFERRED", "IMMEDIATE" or "EXCLUSIVE"; None: nothing does."""
        self._session.check()
        return self._isolation_level

    @isolation_level.setter
    def isolation_level(self, level: str | None) -> None:
        level = transactions.isolation_level(level)
        self._isolation_level = level
        self._session.begin = transactions.begin_before_dml(level, self._autocommit)
        if level is None:
            self.commit()

    @isolation_level.deleter
    def isolation_level(self) -> None:
        msg = "cannot delete attribute"
        raise AttributeError(msg)

    @property
    def autocommit(self) -> int:
        """True, False (PEP 249's way), or LEGACY_TRANSACTION_CONTROL, where `isolation_level` decides."""
        self._session.check()
        return self._autocommit

    @autocommit.setter
    def autocommit(self, mode: int) -> None:
        mode = transactions.autocommit(mode)
        self._session.check()
        self._set_autocommit(mode)

    @guarded
    def _set_autocommit(self, mode: int) -> None:
        session = self._session
        if mode is True:
            session.end("COMMIT")
        elif mode is False and not session.db.in_transaction:
            session.control.execute("BEGIN")
        self._autocommit = mode
        session.begin = transactions.begin_before_dml(self._isolation_level, mode)

    # -- values ------------------------------------------------------------------------------------------------------

    @property
    def text_factory(self) -> Any:
        """Makes of text, as UTF-8 bytes, what rows hold: str, bytes, bytearray or another callable."""
        return self._text_factory

    @text_factory.setter
    def text_factory(self, factory: Any) -> None:
        self._text_factory = factory
        self._casts = factory is not str or (self._session is not NO_CONNECTION and bool(self._session.detect_types))

    @property
    def total_changes(self) -> int:
        """How many rows have been changed since the connection was opened."""
        session = self._session
        if get_ident() != session.owner:
            return session.reach(lambda: session.db.total_changes())  # noqa: PLW0108 - there may be no db
        return session.db.total_changes()

    # -- the database as a whole -------------------------------------------------------------------------------------

    @guarded
    def blobopen(self, table: str, column: str, row: int, /, *, readonly: bool = False, name: str = "main") -> Blob:
        """Open a value for reading and writing in pieces."""
        return open_blob(self._session, name, table, column, row, readonly=readonly)

    def iterdump(self, *, filter: str | None = None) -> Iterator[str]:  # noqa: A002 - sqlite3's name
        """Return an iterator over the SQL text of the database."""
        self._session.check()
        return dumps.statements_of(self, filter)

    @guarded
    def backup(
        self,
        target: Any,
        *,
        pages: int = -1,
        progress: Callable[[int, int, int], Any] | None = None,
        name: str = "main",
        sleep: float = 0.250,
    ) -> None:
        """Copy this database into that of another connection, ours or (unencrypted then) Python's own sqlite3's."""
        if progress is not None and not callable(progress):
            msg = "progress argument must be a callable"
            raise TypeError(msg)
        pages = pages or -1
        if isinstance(target, Connection):
            if target is self:
                msg = "target cannot be the same connection instance"
                raise ValueError(msg)
            target._session.check()  # noqa: SLF001 - of the same class
            backups.copy_pages(self._session, target, pages, progress, name, sleep)
        elif backups.is_stdlib_connection(target):
            backups.copy_to_stdlib(self._session, target, pages, progress, name, sleep)
        else:
            msg = f"backup() argument 1 must be sqlite3.Connection, not {type(target).__name__}"
            raise TypeError(msg)

    @guarded
    def serialize(self, *, name: str = "main") -> bytes:
        """Return the database as the bytes of an unencrypted file."""
        contents = self._session.db.serialize(name)
        if contents is None:
            msg = f"unable to serialize '{name}'"
            raise OperationalError(msg)
        return contents

    @guarded
    def deserialize(self, data: Any, /, *, name: str = "main") -> None:
        """Make the connection one to an in-memory database with these contents."""
        with memoryview(data.encode() if isinstance(data, str) else data) as view:
            if not view.c_contiguous:
                msg = "memoryview: underlying buffer is not C-contiguous"
                raise BufferError(msg)
            contents = bytes(view)
        self._session.settle()
        self._session.db.deserialize(name, contents)

    # -- settings ----------------------------------------------------------------------------------------------------

    @guarded
    def getlimit(self, category: int, /) -> int:
        """Return one of SQLite's limits."""
        return self._limit(category, -1)

    @guarded
    def setlimit(self, category: int, limit: int, /) -> int:
        """Set one of SQLite's limits, and return what it was."""
        return self._limit(category, limit)

    def _limit(self, category: int, limit: int) -> int:
        before = self._session.limit(category, limit)
        if before < 0:
            msg = "'category' is out of bounds"
            raise ProgrammingError(msg)
        return before

    @guarded
    def getconfig(self, op: int, /) -> bool:
        """Return one of SQLite's boolean settings, SQLITE_DBCONFIG_..."""
        return self._config(op, -1)

    @guarded
    def setconfig(self, op: int, enable: bool = True, /) -> None:  # noqa: FBT001, FBT002 - sqlite3's signature
        """Set one of SQLite's boolean settings."""
        if self._config(op, int(enable)) is not bool(enable):
            msg = f"unable to set config {op}"
            raise OperationalError(msg)

    def _config(self, op: int, value: int) -> bool:
        if op not in apsw.mapping_db_config:
            msg = f"unknown config 'op': {op}"
            raise ValueError(msg)
        return bool(self._session.db.config(op, value))

    def interrupt(self) -> None:
        """Have what another thread executes on this connection end with an error."""
        session = self._session
        if session.owner is None:
            session.reach(lambda: None)
        session.db.interrupt()

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the database; what was not committed is rolled back."""
        session = self._session
        if get_ident() != session.owner:
            if session.is_closed:
                return None
            return session.reach(Connection.close, self)
        try:
            if self._autocommit is False:
                session.end("ROLLBACK")
            session.close()
            self._release()
        except Exception as error:  # noqa: BLE001 - raised again, translated
            errors.raise_translated(error)
        return None

    if sys.version_info >= (3, 13):

        def __del__(self) -> None:
            """Warn if it was not closed."""
            if self._session is not NO_CONNECTION and not self._session.is_closed:
                import warnings  # noqa: PLC0415 - not wanted before it is needed

                warnings.warn(f"unclosed database in {self!r}", ResourceWarning, stacklevel=1, source=self)
