"""The exceptions of PEP 249 as sqlite3 has them, and how the errors of APSW, heliosvfs and heliosaudit become them.

What heliosvfs or heliosaudit raises stays what it is and is the PEP 249 class as well: `except heliosvfs.WrongKeyError` and
`except sqlite3.DatabaseError` both catch it. SQLite's own errors are plain PEP 249 ones, with the message that SQLite gave.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import apsw

from heliosaudit.errors import AuditError
from heliosvfs.errors import HeliosError, KeyUnavailableError, UsageError

__all__ = [
    "DataError",
    "DatabaseError",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Warning",
    "error_of_code",
    "raise_translated",
    "translated",
]


class Warning(Exception):  # noqa: A001, N818 - PEP 249's name
    """See PEP 249."""


class Error(Exception):
    """Base class of the errors of this module.

    Attributes:
        sqlite_errorcode: SQLite's extended result code; there only if SQLite raised the error.
        sqlite_errorname: Its name.
    """

    sqlite_errorcode: int
    sqlite_errorname: str


class InterfaceError(Error):
    """The interface of SQLite was misused, rather than the database."""


class DatabaseError(Error):
    """Something is wrong with the database."""


class DataError(DatabaseError):
    """A value is too large."""


class OperationalError(DatabaseError):
    """Something about the operation of the database, not necessarily under the control of the programmer."""


class IntegrityError(DatabaseError):
    """A constraint failed."""


class InternalError(DatabaseError):
    """SQLite found an internal error."""


class ProgrammingError(DatabaseError):
    """The module was misused: wrong number of parameters, use after close."""


class NotSupportedError(DatabaseError):
    """SQLite does not offer what was asked for."""


# the table of sqlite3's own C code, by primary result code; whatever is not here is a DatabaseError
_OF_CODE: dict[int, type[Error]] = {
    **dict.fromkeys((apsw.SQLITE_INTERNAL, apsw.SQLITE_NOTFOUND), InternalError),
    **dict.fromkeys(
        (
            apsw.SQLITE_ERROR,
            apsw.SQLITE_PERM,
            apsw.SQLITE_ABORT,
            apsw.SQLITE_BUSY,
            apsw.SQLITE_LOCKED,
            apsw.SQLITE_READONLY,
            apsw.SQLITE_INTERRUPT,
            apsw.SQLITE_IOERR,
            apsw.SQLITE_FULL,
            apsw.SQLITE_CANTOPEN,
            apsw.SQLITE_PROTOCOL,
            apsw.SQLITE_EMPTY,
            apsw.SQLITE_SCHEMA,
        ),
        OperationalError,
    ),
    apsw.SQLITE_TOOBIG: DataError,
    **dict.fromkeys((apsw.SQLITE_CONSTRAINT, apsw.SQLITE_MISMATCH), IntegrityError),
    **dict.fromkeys((apsw.SQLITE_MISUSE, apsw.SQLITE_RANGE), InterfaceError),
}
_BINDINGS = re.compile(r"uses (\d+) and there are (\d+) (?:supplied|left)")
_UNNAMED = re.compile(r"Binding (\d+) has no name")
_NO_KEY = (
    " (here: connect(key=...), heliosvfs.configure(key=...), or the environment variables HELIOSVFS_KEY_FILE and HELIOSVFS_KEY)"
)
_both: dict[tuple[type, type], type[BaseException]] = {}


def error_of_code(code: int, message: str) -> Error:
    """Return the error of one of SQLite's extended result codes."""
    error = _OF_CODE.get(code & 0xFF, DatabaseError)(message)
    error.sqlite_errorcode = code
    error.sqlite_errorname = _name(code)
    return error


def _name(code: int) -> str:
    name = apsw.mapping_extended_result_codes.get(code) or apsw.mapping_result_codes.get(code, "unknown")
    return str(name)


def translated(error: BaseException) -> BaseException:
    """Return what a sqlite3 program expects in the place of an error, or the error itself."""
    if isinstance(error, (Error, Warning)):
        return error
    if isinstance(error, (HeliosError, AuditError)):
        return _as_both(error)
    if isinstance(error, apsw.Error):
        return _of_apsw(error)
    if isinstance(error, OverflowError) and "int" in str(error):
        return OverflowError("Python int too large to convert to SQLite INTEGER")
    if isinstance(error, UnicodeDecodeError):
        return _undecodable(error)
    return error


def raise_translated(error: BaseException) -> NoReturn:
    """Raise `translated` of an error that is being handled."""
    instead = translated(error)
    try:
        if instead is error:
            raise error
        raise instead.with_traceback(error.__traceback__) from error.__cause__
    finally:
        del instead, error  # a cycle with this frame would keep the cursor for the garbage collector, in any thread


def _of_apsw(error: apsw.Error) -> BaseException:  # noqa: PLR0911 - a table of cases
    message = str(error)
    if isinstance(error, apsw.NoMemError):
        return MemoryError()
    if isinstance(error, apsw.BindingsError):
        return ProgrammingError(_bindings_message(message))
    if isinstance(error, apsw.ThreadingViolationError):
        return ProgrammingError("Recursive use of cursors not allowed." if "inside" in message else message)
    if isinstance(error, apsw.ConnectionClosedError):
        return ProgrammingError("Cannot operate on a closed database.")
    if isinstance(error, apsw.CursorClosedError):
        return ProgrammingError("Cannot operate on a closed cursor.")
    if isinstance(error, apsw.ExtensionLoadingError):
        return OperationalError(message.removeprefix("ExtensionLoadingError: "))
    code = getattr(error, "extendedresult", None)
    if code is None:
        return InterfaceError(message)
    if code & 0xFF == apsw.SQLITE_TOOBIG and "too big" not in message and "too large" not in message:
        message = "string or blob too big"
    return error_of_code(code, message)


def _bindings_message(message: str) -> str:
    if counts := _BINDINGS.search(message):
        return (
            f"Incorrect number of bindings supplied. The current statement uses {counts[1]}, and there are {counts[2]} supplied."
        )
    if number := _UNNAMED.search(message):
        return f"Binding {int(number[1]) + 1} has no name, but you supplied a dictionary (which has only names)."
    return message


def _undecodable(error: UnicodeDecodeError) -> OperationalError:
    text = error.object.decode("ascii", "replace")
    return OperationalError(f"Could not decode to UTF-8 text '{text}'")


def _joined(pep: type[BaseException], kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """Return an error whose class is two classes at once; pickles name this function."""
    pair = (pep, kind)  # the PEP 249 class first: peewee translates errors by the name of a class or of its first base
    if pair not in _both:
        namespace = {
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__doc__": kind.__doc__,
            "__reduce__": lambda self: (_joined, (pep, kind, self.args, self.__dict__)),
        }
        _both[pair] = type(kind.__name__, pair, namespace)
    both = _both[pair].__new__(_both[pair])
    both.args = args
    both.__dict__.update(state)
    return both


def _as_both(error: BaseException) -> BaseException:
    """Return an error of ours as an instance of its own class and of the PEP 249 one."""
    code = getattr(error, "extendedresult", None)
    pep = ProgrammingError if isinstance(error, UsageError) else OperationalError
    if code is not None:
        pep = _OF_CODE.get(code & 0xFF, DatabaseError)  # type: ignore[assignment]
    both: Any = _joined(pep, type(error), error.args, error.__dict__)
    if isinstance(error, KeyUnavailableError) and ("no key was given" in str(error) or "without a key" in str(error)):
        both.args = (str(error) + _NO_KEY,)
    if code is not None:
        both.sqlite_errorcode, both.sqlite_errorname = code, _name(code)
    return both  # type: ignore[no-any-return]
