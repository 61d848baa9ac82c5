"""From TOML text or a dict to a Config, with errors that name the file, the option, what was expected, and the nearest name."""

from __future__ import annotations

import difflib
import os
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any

import msgspec

from heliosvfs.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore] # the same parser, for Python 3.10

__all__ = ["checked", "nearest", "parsed", "problem", "read"]

_LARGEST = 1024 * 1024  # bytes of a configuration file
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<where>[^`]*)`)?$", re.DOTALL)


def problem(source: str, option: str, what: str) -> ConfigError:
    """Return the error of one option."""
    return ConfigError(f"{source}: {option}: {what}" if option else f"{source}: {what}")


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: It can't be read, is no UTF-8, too large, or no TOML.
    """
    source = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no name of a file"
        msg = f"{source!s}: the configuration can't be read: {reason}"
        raise ConfigError(msg) from None
    if len(data) > _LARGEST:
        raise problem(str(source), "", f"expected a configuration, found more than {_LARGEST} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise problem(str(source), "", f"expected UTF-8, found another byte at offset {error.start}") from None
    return parsed(text, str(source))


def parsed(text: str, source: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        ConfigError: It is none.
    """
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at .*\)$", str(error))
        raise problem(
            source, "", f"expected TOML (https://toml.io), found something else {place.group() if place else ''}".rstrip()
        ) from None
    except (RecursionError, ValueError):
        raise problem(source, "", "expected TOML (https://toml.io), found something that can't be read as such") from None
    return document


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """Return " (did you mean ...?)" for a name that is not known, "" if nothing is near."""
    names = list(known)
    lower = {other.lower(): other for other in names}
    found = difflib.get_close_matches(name.lower(), list(lower), 1, 0.6)
    return f"; did you mean {lower[found[0]]!r}?" if found else f"; there are {', '.join(names)}"


def checked(document: Any, kind: type[msgspec.Struct], source: str) -> Any:
    """Turn a document into a struct of ``kind``.

    Raises:
        ConfigError: It is none.
    """
    _check_names(document, kind, source, "")
    try:
        return msgspec.convert(document, kind, strict=True)
    except msgspec.ValidationError as error:
        raise _said(error, kind, source) from None
    except (RecursionError, TypeError, ValueError) as error:
        raise problem(source, "", f"expected a configuration, found something else ({type(error).__name__})") from None


def _said(error: msgspec.ValidationError, kind: type[msgspec.Struct], source: str) -> ConfigError:
    match = _PLACE.match(str(error))
    assert match is not None  # noqa: S101 - it matches any text
    what, where = match["what"], (match["where"] or "").removeprefix("$").removeprefix(".")
    option, colon, rest = what.partition(": ")
    if colon and option.isidentifier():  # of a check of ours, which names the option itself
        where, what = f"{where}.{option}" if where else option, rest
    if what.lower().startswith("invalid enum value"):  # msgspec shows the value
        allowed = ", ".join(repr(one) for part in _type_at(kind, where) for one in typing.get_args(part))
        what = f"expected one of {allowed}"
    for theirs, ours in (("`", ""), (" | null", ""), ("object", "table"), ("array", "list")):
        what = what.replace(theirs, ours)
    return problem(source, where, what[:1].lower() + what[1:])


def _type_at(kind: Any, where: str) -> list[Any]:
    """Return the literal types of an option."""
    parts = [kind]
    for name in re.sub(r"\[[^\]]*\]", "", where).split("."):
        inside = [one for part in parts for one in _parts(part)]
        inside += [one for part in inside for argument in typing.get_args(part) for one in _parts(argument)]
        structs = [one for one in inside if isinstance(one, type) and issubclass(one, msgspec.Struct)]
        parts = [field.type for struct in structs for field in msgspec.structs.fields(struct) if field.encode_name == name]
    return [one for part in parts for one in _parts(part) if typing.get_origin(one) is typing.Literal]


def _check_names(document: Any, kind: Any, source: str, where: str) -> None:
    """Refuse unknown names, wherever they are, before anything else: a wrong name is the commonest mistake."""
    struct = _struct_in(kind, document)
    if struct is not None and isinstance(document, dict):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
        for name, value in document.items():
            here = f"{where}.{name}" if where else str(name)
            if name not in fields:
                what = "section" if not where and isinstance(value, dict) else "option"
                raise problem(source, here, f"unknown {what}{nearest(str(name), fields)}")
            _check_names(value, fields[name], source, here)
    elif isinstance(document, (list, tuple)):
        inner = next((one for one in _parts(kind) if typing.get_origin(one) in (tuple, list)), None)
        if inner is not None:
            for number, value in enumerate(document):
                _check_names(value, typing.get_args(inner)[0], source, f"{where}[{number}]")


def _parts(kind: Any) -> list[Any]:
    """Return the alternatives of a type, without annotations."""
    if typing.get_origin(kind) is typing.Annotated:
        return _parts(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [part for one in typing.get_args(kind) for part in _parts(one)]
    return [kind]


def _struct_in(kind: Any, document: Any) -> type[msgspec.Struct] | None:
    if not isinstance(document, dict):
        return None
    for part in _parts(kind):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None
