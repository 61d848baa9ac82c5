"""Functions of the program that SQLite calls back: user functions, aggregates, authorizer, progress handler, trace, collations.

APSW hands their exceptions to whoever executed the statement. sqlite3 does not: the statement fails with a message of its own,
and the exception is shown, as one that can't be raised, if enable_callback_tracebacks(True) asked for that.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

import apsw

from heliosvfs.dbapi2.errors import DataError, error_of_code

__all__ = [
    "aggregate_factory",
    "authorizer",
    "collation",
    "enable_callback_tracebacks",
    "progress_handler",
    "scalar",
    "tracer",
    "window_factory",
]


class _Unraisable(NamedTuple):
    """What a program's own sys.unraisablehook is told."""

    exc_type: type[BaseException]
    exc_value: BaseException
    exc_traceback: TracebackType | None
    err_msg: str | None
    object: Any


_TOO_BIG = "string or blob too big"
_shows_tracebacks = False
_INTEGERS = range(-(2**63), 2**63)


def enable_callback_tracebacks(enable: bool, /) -> None:  # noqa: FBT001 - sqlite3's signature
    """Show the exceptions of callbacks through sys.unraisablehook, or do not."""
    global _shows_tracebacks  # noqa: PLW0603 - a setting of the module, as in sqlite3
    _shows_tracebacks = bool(enable)


def _show(error: BaseException, source: Any) -> None:
    if not _shows_tracebacks:
        return
    hook: Any = sys.unraisablehook
    if hook is sys.__unraisablehook__:  # takes a type that only the interpreter makes, and writes this
        lines = traceback.format_exception(error)
        sys.stderr.write("".join((f"Exception ignored in: {source!r}\n", *lines)))
    else:
        hook(_Unraisable(type(error), error, error.__traceback__, None, source))


def _failure(error: BaseException, message: str) -> BaseException:
    """Return what the statement fails with."""
    if isinstance(error, MemoryError):
        return MemoryError()
    if isinstance(error, OverflowError):
        return error_of_code(apsw.SQLITE_TOOBIG, _TOO_BIG)
    return error_of_code(apsw.SQLITE_ERROR, message)


def _result(value: Any) -> Any:
    """Return a value that SQLite takes, or raise why there is none."""
    if type(value) is int and value not in _INTEGERS:
        msg = "int too big to convert"
        raise OverflowError(msg)
    if type(value) is str:
        value.encode()
        return value
    if value is None or isinstance(value, (int, float, str, bytes)):
        return value
    with memoryview(value) as view:
        if not view.c_contiguous:
            msg = "memoryview: underlying buffer is not C-contiguous"
            raise BufferError(msg)
        return bytes(view)


def scalar(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a user function."""

    def call(*arguments: Any) -> Any:
        try:
            return _result(function(*arguments))
        except Exception as error:  # noqa: BLE001 - sqlite3 has it so
            _show(error, function)
            raise _failure(error, "user-defined function raised exception") from None

    return call


class _Aggregate:
    """One use of an aggregate or window function; the program's object is made when the first row comes."""

    def __init__(self, cls: Callable[[], Any]) -> None:
        self._cls = cls
        self._instance: Any = None
        self._is_window = False
        self._is_broken = False

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return getattr(self._instance, method)(*arguments)
        except Exception as error:  # noqa: BLE001 - sqlite3 has it so
            self._fail(error, method)

    def _fail(self, error: BaseException, method: str) -> NoReturn:
        _show(error, self._cls)
        self._is_broken = True
        is_missing = isinstance(error, AttributeError) and self._instance is not None and not hasattr(self._instance, method)
        problem = "not defined" if is_missing else "raised error"
        raise _failure(error, f"user-defined aggregate's '{method}' method {problem}") from None

    def _answer(self, method: str) -> Any:
        if self._instance is None:
            return None
        value = self._call(method, ())
        try:
            return _result(value)
        except Exception as error:  # noqa: BLE001 - sqlite3 has it so
            self._fail(error, method)

    def step(self, *arguments: Any) -> None:
        if self._instance is None:
            try:
                self._instance = self._cls()
            except Exception as error:  # noqa: BLE001 - sqlite3 has it so
                self._fail(error, "__init__")
        self._call("step", arguments)

    def inverse(self, *arguments: Any) -> None:
        self._is_window = True
        self._call("inverse", arguments)

    def value(self) -> Any:
        self._is_window = True
        return self._answer("value")

    def final(self) -> Any:
        if self._is_broken:  # SQLite cleans up; the error that broke it is under way
            return None
        try:
            return self._answer("finalize")
        except Exception:
            if self._is_window:  # SQLite does not look at what xFinal says of a window, and neither does sqlite3
                return None
            raise


def aggregate_factory(cls: Callable[[], Any]) -> Callable[[], Any]:
    """Return APSW's factory of an aggregate function."""

    def make() -> tuple[Any, Any, Any]:
        aggregate = _Aggregate(cls)
        return None, lambda _, *arguments: aggregate.step(*arguments), lambda _: aggregate.final()

    return make


def window_factory(cls: Callable[[], Any]) -> Callable[[], Any]:
    """Return APSW's factory of a window function."""

    def make() -> tuple[Any, ...]:
        window = _Aggregate(cls)
        return (
            None,
            lambda _, *arguments: window.step(*arguments),
            lambda _: window.final(),
            lambda _: window.value(),
            lambda _, *arguments: window.inverse(*arguments),
        )

    return make


def authorizer(callback: Callable[..., Any]) -> Callable[..., int]:
    """Wrap an authorizer: what it raises, or returns that is no code, denies."""

    def authorize(*arguments: Any) -> int:
        try:
            verdict = callback(*arguments)
        except Exception as error:  # noqa: BLE001 - sqlite3 has it so
            _show(error, callback)
            return apsw.SQLITE_DENY
        if isinstance(verdict, int) and verdict in (apsw.SQLITE_OK, apsw.SQLITE_DENY, apsw.SQLITE_IGNORE):
            return verdict
        return apsw.SQLITE_DENY

    return authorize


def progress_handler(callback: Callable[[], Any]) -> Callable[[], bool]:
    """Wrap a progress handler: what it raises interrupts."""

    def progress() -> bool:
        try:
            return bool(callback())
        except Exception as error:  # noqa: BLE001 - sqlite3 has it so
            _show(error, callback)
            return True

    return progress


def tracer(callback: Callable[[str], Any]) -> Callable[[apsw.Cursor, str, Any], bool]:
    """Wrap a trace callback as APSW's exec tracer: it gets the SQL with its values in it, and can't stop it."""

    def trace(cursor: apsw.Cursor, text: str, _: Any) -> bool:
        try:
            sql = cursor.expanded_sql if cursor.has_vdbe else None
        except (MemoryError, apsw.NoMemError):
            sql = text
            msg = "Expanded SQL string exceeds the maximum string length"
            _show(DataError(msg), callback)
        if sql is not None:
            try:
                callback(sql)
            except Exception as error:  # noqa: BLE001 - sqlite3 has it so
                _show(error, callback)
        return True

    return trace


def collation(compare: Callable[[str, str], Any]) -> Callable[[str, str], int]:
    """Wrap a collation: what it raises, or returns that is no number, means equal."""

    def order(left: str, right: str) -> int:
        try:
            result = compare(left, right)
            return int(result > 0) - int(result < 0)
        except Exception as error:  # noqa: BLE001 - sqlite3 has it so
            _show(error, compare)
            return 0

    return order
