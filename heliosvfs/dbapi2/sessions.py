"""What a connection and its cursors share: the APSW connection, who may use it, and what its statements are known to be.

Every public call begins with one comparison: is this thread the owner? Usually it is, and nothing else is asked. A session that
threads share has no owner until one takes its lock, and a closed one never has; so all the rest is asked of whoever is not the
owner, in `Session.reach`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import nullcontext, suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

import apsw

from heliosvfs.dbapi2.errors import ProgrammingError
from heliosvfs.dbapi2.statements import Prepared, Statement, classify, prepare
from heliosvfs.torn import GuardedCursor

if TYPE_CHECKING:
    from heliosvfs.dbapi2.cursors import Cursor

__all__ = ["CLOSED_CURSOR", "LOCKED", "NO_CONNECTION", "NO_CURSOR", "Dropped", "Session"]

_Result = TypeVar("_Result")
_MOST_STATEMENTS = 1024
_LONGEST_STATEMENT = 16384
_FEW_CURSORS = 200


class Session:
    """One open database, as its connection and its cursors see it.

    Attributes:
        owner: The thread that may use it without asking; None: nobody may any more.
        db: The APSW connection.
        control: A cursor for BEGIN, COMMIT and ROLLBACK.
        is_shared: Whether threads share it, and it is open.
        begin: What opens a transaction before DML; None: nothing does.
        detect_types: As for connect().
        statements: What SQL texts are known to be.
        cursors: The cursors that have been made, for as long as they live, and some that are gone.
        most_cursors: How many may be remembered before those that are gone are forgotten.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_home",
        "_lock",
        "_refusal",
        "_sql_limit",
        "begin",
        "control",
        "cursors",
        "db",
        "detect_types",
        "is_shared",
        "most_cursors",
        "owner",
        "statements",
    )

    def __init__(self, db: apsw.Connection, *, check_same_thread: bool, detect_types: int) -> None:
        self.db = db
        if db.cursor_factory is GuardedCursor:
            db.cursor_factory = apsw.Cursor  # ours, which stand over it, do the same
        self.control = db.cursor()
        self.begin: str | None = None
        self.detect_types = detect_types
        self.statements: dict[str, Statement] = {}
        self._home = get_ident()
        self._lock = None if check_same_thread else threading.RLock()
        self.is_shared = not check_same_thread
        self._refusal = ""
        self._closed = False
        self._sql_limit = db.limit(apsw.SQLITE_LIMIT_SQL_LENGTH)
        self.cursors: list[weakref.ref[Cursor]] = []
        self.most_cursors = _FEW_CURSORS
        self.owner: int | None = self._home if check_same_thread else 0

    @classmethod
    def refusing(cls, message: str) -> Session:
        """Return a session that refuses every call with a message."""
        session = cls.__new__(cls)
        session.owner = None
        session._refusal, session._closed = message, False  # noqa: SLF001 - of the same class
        session.cursors, session.most_cursors, session.is_shared = [], _FEW_CURSORS, False
        return session

    def reach(self, method: Callable[..., _Result], *args: Any, **kwargs: Any) -> _Result:
        """Call a method for a thread that is not the owner, if it may.

        Raises:
            ProgrammingError: It may not.
        """
        if self.owner is None:
            raise ProgrammingError(self._refusal)
        lock = self._lock
        if lock is None:
            msg = (
                "SQLite objects created in a thread can only be used in that same thread. "
                f"The object was created in thread id {self._home} and this is thread id {get_ident()}."
            )
            raise ProgrammingError(msg)
        with lock:
            if self.owner is None:
                raise ProgrammingError(self._refusal)
            before, self.owner = self.owner, get_ident()
            try:
                return method(*args, **kwargs)
            finally:
                if self.owner is not None:
                    self.owner = before

    def check(self) -> None:
        """Refuse a thread that may not use the session; for what asks nothing of APSW.

        Raises:
            ProgrammingError: It may not.
        """
        if get_ident() != self.owner:
            self.reach(lambda: None)

    @property
    def is_closed(self) -> bool:
        """Whether there was a database and it has been closed."""
        return self.owner is None and self._closed

    # -- statements --------------------------------------------------------------------------------------------------

    def classify(self, sql: str) -> Statement:
        """Say what an SQL text is, and remember it."""
        statement = classify(self.db, sql, self._sql_limit)
        if len(sql) < _LONGEST_STATEMENT:
            if len(self.statements) >= _MOST_STATEMENTS:
                self.statements.clear()
            self.statements[sql] = statement
        return statement

    def prepare(self, sql: str) -> Prepared:
        """Prepare a statement without executing it."""
        return prepare(self.db, sql)

    def limit(self, category: int, limit: int = -1) -> int:
        """Get or set one of SQLite's limits; -1 if there is no such category."""
        before = self.db.limit(category, limit)
        if category == apsw.SQLITE_LIMIT_SQL_LENGTH:
            self._sql_limit = self.db.limit(category)
            self.statements.clear()  # they were checked against the old one
        return before

    @property
    def sql_limit(self) -> int:
        """The longest SQL text, in bytes."""
        return self._sql_limit

    # -- cursors -----------------------------------------------------------------------------------------------------

    def forget_cursors(self) -> None:
        """Forget cursors that are gone."""
        self.cursors[:] = [reference for reference in self.cursors if reference() is not None]
        self.most_cursors = max(_FEW_CURSORS, 2 * len(self.cursors))

    def settle(self) -> None:
        """Have each cursor find out the description of what it executed last, before the schema changes or is gone."""
        for reference in self.cursors:
            cursor = reference()
            if cursor is not None:
                with suppress(Exception):  # what can't be found out now can't be later
                    cursor.description  # noqa: B018 - a property that remembers

    # -- transactions ------------------------------------------------------------------------------------------------

    def end(self, command: str) -> None:
        """COMMIT or ROLLBACK, if there is a transaction."""
        if self.db.in_transaction:
            if command == "ROLLBACK":
                self.settle()
            self.control.execute(command)

    def close(self) -> None:
        """Close the database; open cursors and blobs are closed with it."""
        self.settle()
        self.db.close(True)  # noqa: FBT003 - APSW's parameter: what is left to fetch is no error
        self.owner, self._refusal, self._closed = None, "Cannot operate on a closed database.", True
        self.is_shared = False

    def drop(self, thing: apsw.Cursor | apsw.Blob) -> None:
        """Close what nobody has any more, when no other thread is within a call."""
        with self._lock or nullcontext(), suppress(Exception):  # nobody is there to be told
            thing.close(True)  # noqa: FBT003 - APSW's parameter: what is left to fetch is no error


class Dropped:
    """Closes a cursor or a blob of a session that threads share once its owner is gone.

    APSW would do so at once: if rows are left that calls into the VFS, and meanwhile other threads' calls find SQLite busy.
    """

    __slots__ = ("_session", "_thing")

    def __init__(self, session: Session, thing: apsw.Cursor | apsw.Blob) -> None:
        self._session, self._thing = session, thing

    def __del__(self) -> None:
        """Close it."""
        self._session.drop(self._thing)


NO_CONNECTION = Session.refusing("Base Connection.__init__ not called.")
NO_CURSOR = Session.refusing("Base Cursor.__init__ not called.")
CLOSED_CURSOR = Session.refusing("Cannot operate on a closed cursor.")
LOCKED = Session.refusing("Recursive use of cursors not allowed.")
