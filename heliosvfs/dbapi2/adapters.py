"""Adapters: how values that SQLite does not know become ones that it does; and converters, the way back.

A parameter of a plain type goes to APSW as it is. Which types are plain is kept here, so that a whole row can be checked at the
speed of a set operation; a type stops being plain when an adapter is registered for it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from heliosvfs.dbapi2.deprecations import warn
from heliosvfs.dbapi2.errors import ProgrammingError

__all__ = [
    "PrepareProtocol",
    "adapt",
    "adapters",
    "bound",
    "converters",
    "missing",
    "plain_types",
    "register_adapter",
    "register_converter",
]

_MISSING = object()
_SEQUENCES = (tuple, list)


class PrepareProtocol:
    """The protocol that parameters are adapted to: an object's ``__conform__`` gets this class."""


class _Adapters(dict[tuple[type, Any], Callable[[Any], Any]]):
    """The registry, which programs may change directly too."""

    def __setitem__(self, key: tuple[type, Any], adapter: Callable[[Any], Any]) -> None:
        if key[1:] == (PrepareProtocol,):
            if key[0] in _BASE_TYPES:
                plain_types.clear()
            plain_types.discard(key[0])
        super().__setitem__(key, adapter)


_BASE_TYPES = frozenset((int, float, str, bytearray))
plain_types: set[type] = {int, float, str, bytearray, bytes, type(None), bool, memoryview}
adapters = _Adapters()
converters: dict[str, Callable[[bytes], Any]] = {}


def register_adapter(type: type, adapter: Callable[[Any], Any], /) -> None:  # noqa: A002 - sqlite3's name
    """Register a callable that turns values of a type into ones that SQLite knows."""
    if not isinstance(type, _type):
        msg = f"register_adapter() argument 1 must be type, not {_type(type).__name__}"
        raise TypeError(msg)
    adapters[(type, PrepareProtocol)] = adapter


_type = type


def register_converter(typename: str, converter: Callable[[bytes], Any], /) -> None:
    """Register a callable that turns the bytes of a column of a declared type into a Python value."""
    converters[typename.upper()] = converter


def adapt(obj: Any, proto: Any = PrepareProtocol, alt: Any = _MISSING, /) -> Any:
    """Adapt a value to a protocol, as PEP 246 has it.

    Raises:
        ProgrammingError: It can't be adapted, and ``alt`` was not given.
    """
    adapter = adapters.get((type(obj), proto))
    if adapter is not None:
        return adapter(obj)
    for owner, method, argument in ((proto, "__adapt__", obj), (obj, "__conform__", proto)):
        function = getattr(owner, method, None)
        if function is None:
            continue
        try:
            adapted = function(argument)
        except TypeError:
            continue
        if adapted is not None:
            return adapted
    if alt is not _MISSING:
        return alt
    msg = "can't adapt"
    raise ProgrammingError(msg)


def _bindable(value: Any, where: str) -> Any:
    """Return a value that SQLite can bind.

    Raises:
        ProgrammingError: Its type is not supported.
    """
    if type(value) in plain_types:
        return value
    value = adapt(value, PrepareProtocol, value)
    if value is None or isinstance(value, (int, float, str, bytes, bytearray, memoryview)):
        return value
    try:
        with memoryview(value):
            return value
    except TypeError:
        msg = f"Error binding parameter {where}: type '{type(value).__name__}' is not supported"
        raise ProgrammingError(msg) from None


class _Named(dict[str, Any]):
    """Parameters by name that have to be adapted, or of a kind of dict whose own way to find one must be asked."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        super().__init__()
        self._parameters = parameters

    def __getitem__(self, name: str) -> Any:
        try:
            value = self._parameters[name]
        except LookupError:
            raise missing(name) from None
        return _bindable(value, f":{name}")


def missing(name: str) -> ProgrammingError:
    """Return the error for a parameter that is not there."""
    return ProgrammingError(f"You did not supply a value for binding parameter :{name}.")


def bound(parameters: Any) -> Any:
    """Return the parameters of a statement, each one adapted, as a list or a dict.

    Raises:
        ProgrammingError: They are neither a sequence nor a dict, or one is of a type that SQLite does not know.
    """
    kind = type(parameters)
    if kind in _SEQUENCES and plain_types.issuperset(map(type, parameters)):
        return parameters
    if isinstance(parameters, dict):
        if kind is dict and plain_types.issuperset(map(type, parameters.values())):
            return parameters
        return _Named(parameters)
    if kind is MappingProxyType or (kind not in _SEQUENCES and not hasattr(kind, "__getitem__")):
        msg = "parameters are of unsupported type"
        raise ProgrammingError(msg)
    # by index, and the length first: an adapter may change the sequence meanwhile
    return [_bindable(parameters[index], str(index + 1)) for index in range(len(parameters))]


def _deprecated(what: str) -> None:
    warn(f"The default {what} is deprecated as of Python 3.12; see the sqlite3 documentation for suggested replacement recipes")


def _adapt_date(value: dt.date) -> str:
    _deprecated("date adapter")
    return value.isoformat()


def _adapt_datetime(value: dt.datetime) -> str:
    _deprecated("datetime adapter")
    return value.isoformat(" ")


def _convert_date(value: bytes) -> dt.date:
    _deprecated("date converter")
    return dt.date(*map(int, value.split(b"-")))


def _convert_timestamp(value: bytes) -> dt.datetime:
    _deprecated("timestamp converter")
    day, time = value.split(b" ")
    clock, _, fraction = time.partition(b".")
    microseconds = int(fraction.decode()[:6].ljust(6, "0")) if fraction else 0
    year, month, mday = map(int, day.split(b"-"))
    hour, minute, second = map(int, clock.split(b":"))
    return dt.datetime(year, month, mday, hour, minute, second, microseconds)  # noqa: DTZ001 - naive, as sqlite3 has it


register_adapter(dt.date, _adapt_date)
register_adapter(dt.datetime, _adapt_datetime)
register_converter("date", _convert_date)
register_converter("timestamp", _convert_timestamp)
