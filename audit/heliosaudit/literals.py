"""SQL with its values in it, as an auditor reads it: `query LIKE '%P12345%'` finds a patient's events.

SQLite's own `expanded_sql` stops at a NUL and knows no limit, so values are rendered here, in SQLite's literal syntax
(https://sqlite.org/lang_expr.html, "Literal Values"; unistr() for control characters).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apsw

__all__ = ["Template", "literal", "printable", "stored", "without_literals", "without_secrets", "without_uri_secrets"]

_COMMENT = r"--[^\n]* | /\*.*?(?:\*/|\Z)"
_IN_NAMES = r"[0-9A-Za-z_$\x80-\U0010ffff]"  # tokenize.c, IdChar
_TOKENS = re.compile(  # tokenize.c, sqlite3GetToken
    rf"""
      '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]     # quoted
    | {_COMMENT}
    | \ufeff                                                          # white space where a token begins
    | [0-9A-Za-z_\x80-\U0010ffff]{_IN_NAMES}*                          # names, "$" within them too, and numbers
    | (?P<parameter>\?[0-9]* | [:@\#$](?:::)*{_IN_NAMES}(?:{_IN_NAMES}|::)*(?:\([^\t-\r\x20)]*\))?)
    """,
    re.VERBOSE | re.DOTALL,
)
_LITERAL = r"""
      [xX]?'(?:[^']|'')*(?:'|\Z)
    | (?P<name>"(?:[^"]|"")*(?:"|\Z))  # a text, too, where there is no such name (https://sqlite.org/quirks.html#dblquote)
    | (?P<word>[^\W\d][\w$]* | \$[\w$]* | \?\d*)
    | \.?\d[\w.]*
    """
_LITERALS = re.compile(_LITERAL, re.VERBOSE)
_TOKENS_AND_LITERALS = re.compile(rf"(?P<around>{_COMMENT} | `(?:[^`]|``)*` | \[[^\]]*\]) | {_LITERAL}", re.VERBOSE | re.DOTALL)
_AROUND = re.compile(r"(--|/\*|[`\[])(.*?)(\*/|[`\]]|)", re.DOTALL)
_CONTROLS = re.compile("[\x00-\x1f\x7f\ud800-\udfff\\\\]")
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_SECRETS = re.compile(r"key|pass|file:", re.IGNORECASE)
_SECRET_NAMES = re.compile(r"key|passphrase|password", re.IGNORECASE)
_WORDS = re.compile(
    r"""
      (?P<comment>--[^\n]* | /\*.*?(?:\*/|$))
    | (?P<name>"(?:[^"]|"")*" | '(?:[^']|'')*' | `(?:[^`]|``)*` | \[[^\]]*\] | [\w$]+)
    | (?P<sign>[.;])
    """,
    re.VERBOSE | re.DOTALL,
)
_URI_OPTIONS = re.compile(r"([?&;])([^=&;#'\"\s]+)=([^&#'\"]*)")
_OPEN_OPTIONS = frozenset({"cache", "immutable", "mode", "modeof", "nolock", "psow", "vfs"})  # https://sqlite.org/uri.html
_INTEGERS = 1 << 63
_DIGITS = 9  # of a parameter's number that may count: SQLite allows none beyond 32,766, and zeros in front


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return "\\\\" if character == "\\" else f"\\u{ord(character):04x}"


def stored(value: Any) -> Any:
    """Return a bound value as SQLite stores it: None, int, float, str or bytes. What APSW has a wrapper for stays as it is.

    APSW reads the value of a subclass as C does, past the methods of that class, which may say something else.
    """
    kind = type(value)
    if kind is int or kind is str or kind is bytes or value is None:
        return value
    if issubclass(kind, float):
        number = float.__float__(value)
        return None if math.isnan(number) else number
    if issubclass(kind, int):  # bool, for one
        return int.__int__(value)
    if issubclass(kind, str):
        return str.__str__(value)
    data = _bytes_of(value)
    return value if data is None else bytes(data)


def _bytes_of(value: Any) -> memoryview | None:
    """Return the bytes that APSW binds for an object with a buffer; None: it has none, or not any more."""
    try:
        view = memoryview(value)
        return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes("A"))
    except (BufferError, TypeError, ValueError):
        return None


def literal(value: Any, limit: int) -> str:  # noqa: PLR0911 - one for each kind of value
    """Render a value as an SQL literal, as SQLite stores it.

    Args:
        value: What was bound: None, int, float, str, bytes or another buffer, or one of APSW's wrappers.
        limit: Characters of a text, or bytes of a blob, that are kept; the literal says how many were left out.
    """
    kind = type(value)
    if kind is int:
        return str(value) if -_INTEGERS <= value < _INTEGERS else f"{value} /* beyond 64 bits */"
    if kind is str:
        return _text(value, limit)
    if value is None:
        return "NULL"
    if issubclass(kind, float):
        number = float.__float__(value)
        if math.isfinite(number):
            return repr(number)
        return "NULL /* NaN */" if math.isnan(number) else "9e999" if number > 0 else "-9e999"
    if issubclass(kind, (int, str)):
        return literal(stored(value), limit)
    if issubclass(kind, apsw.zeroblob):
        return f"zeroblob({apsw.zeroblob.length(value)})"
    data = _bytes_of(value)
    if data is None:
        return f"/* {kind.__name__} */"
    left_out = f" /* {len(data) - limit} more bytes */" if len(data) > limit else ""
    return f"x'{data[:limit].hex()}'{left_out}"


def _text(value: str, limit: int) -> str:
    left_out = ""
    if len(value) > limit:
        left_out = f" /* {len(value) - limit} more characters */"
        value = value[:limit]
    quoted = value.replace("'", "''") if "'" in value else value
    if not value.isprintable() and _CONTROLS.search(value):
        return f"unistr('{_CONTROLS.sub(_escape, quoted)}'){left_out}"
    return f"'{quoted}'{left_out}"


def without_secrets(sql: str) -> str:
    """Take keys and passphrases out of SQL: of PRAGMA key and its like, of ATTACH ... KEY, and of URIs."""
    if not _SECRETS.search(sql):
        return sql
    end = _end_before_secret(sql)
    return without_uri_secrets(sql if end is None else f"{sql[:end]} ***")


def without_uri_secrets(text: str) -> str:
    """Take the values of options that SQLite itself does not know out of the URIs in a text, as keys are given by them."""
    if "file:" not in text.lower():
        return _URI_OPTIONS.sub(lambda match: _option(match, hides=_names_secret(match.group(2))), text)
    return _URI_OPTIONS.sub(lambda match: _option(match, hides=match.group(2).lower() not in _OPEN_OPTIONS), text)


def _option(match: re.Match[str], *, hides: bool) -> str:
    return f"{match.group(1)}{match.group(2)}=***" if hides else match.group()


def _names_secret(name: str) -> bool:
    """Tell whether a name is one of a key or a passphrase; foreign keys are none."""
    return bool(_SECRET_NAMES.search(name)) and "foreign_key" not in name.lower()


def _end_before_secret(sql: str) -> int | None:
    """Return where PRAGMA key and its like, or ATTACH ... KEY, are about to say their secret; None: they are not there."""
    awaited = after = ""  # "pragma" until its name has come, "attach" until KEY or the statement's end has
    end: int | None = None
    for match in _WORDS.finditer(sql):
        if match.lastgroup == "comment":
            continue
        word = match.group().lower()
        if after == "pragma" and word != ".":  # the name is complete; it was the schema's if a dot follows
            if end is not None:
                return end
            after = ""
        if match.lastgroup == "sign":
            awaited, end = ("" if word == ";" else "pragma" if after == "pragma" else awaited), None
            after = ""
        elif awaited == "pragma":
            awaited, after = "", "pragma"
            end = match.end() if _names_secret(word) else None
        elif word in ("pragma", "attach"):
            awaited = word
        elif (awaited == "attach" and word == "key") or (word.startswith("pragma_") and _names_secret(word)):
            return match.end()
    return end


def without_literals(sql: str) -> str:
    """Take text, blob and number literals out of SQL, and names in double quotes that may be texts."""
    return _TOKENS_AND_LITERALS.sub(_without_literal, sql)


def _without_literal(match: re.Match[str]) -> str:
    if match.lastgroup == "word":
        return match.group()
    if match.lastgroup == "around":  # a quotation mark in a comment, or in a name, ends there at the latest
        opening, text, closing = _AROUND.fullmatch(match.group()).groups()  # type: ignore[union-attr]
        return f"{opening}{_LITERALS.sub(_without_literal, text)}{closing}"
    is_name = match.lastgroup == "name" and (
        match.string[: match.start()].endswith(".") or match.string[match.end() :].lstrip().startswith(".")
    )
    return match.group() if is_name else "?"


def printable(sql: str) -> str:
    """Replace what can't be stored or shown: control characters and lone surrogates."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", sql) if not sql.isprintable() else sql


class Template:
    """SQL taken apart at its parameters, so that rendering values into it costs a join.

    Attributes:
        text: The SQL, with secrets taken out and cut to its limit.
    """

    __slots__ = ("_is_sequential", "_names", "_parts", "text")

    def __init__(self, sql: str, limit: int) -> None:
        """Take SQL apart.

        Args:
            sql: Text of one statement.
            limit: Characters that are kept.
        """
        sql = without_secrets(sql.strip())
        text = printable(sql)
        if len(text) > limit:
            text = f"{text[:limit]} /* {len(text) - limit} more characters */"
        self.text = text
        self._parts: list[str] = []  # the text between parameters, and "" in the place of each
        self._take_apart(sql, limit)
        self._is_sequential = all(name == "?" for _, name in self._names)

    def _take_apart(self, sql: str, limit: int) -> None:
        """Find index into the sequence, and name, of each parameter in order; what lies beyond the limit is not shown."""
        start = largest = 0
        found: list[int] = []
        numbers: dict[str, int] = {}
        names: dict[int, str] = {}  # "?1" after ":a" is the same parameter, and its name ":a"
        for match in _TOKENS.finditer(sql):
            if match.end() > limit:
                break
            name = match.group("parameter")
            if name is None:
                continue
            # https://sqlite.org/lang_expr.html#varparam: "?" takes one more than the largest number so far, a name its own
            if name == "?":
                number = largest + 1
            elif name[0] == "?":
                number = int(name[1:][-_DIGITS:])
            else:
                number = numbers.setdefault(name, largest + 1)
            if name != "?":
                names.setdefault(number, name)
            largest = max(largest, number)
            self._parts += (self.text[start : match.start()], "")
            found.append(number)
            start = match.end()
        self._parts.append(self.text[start:])
        self._names = [(number - 1, names.get(number, "?")) for number in found]

    @property
    def has_parameters(self) -> bool:
        """Whether there is anything to render."""
        return bool(self._names)

    def values(self, bindings: Sequence[Any] | Mapping[str, Any] | None) -> list[Any]:
        """Return the value of each parameter in the order of the text; missing ones are None, as SQLite binds NULL."""
        if bindings is None:
            return [None] * len(self._names)
        if self._is_sequential and isinstance(bindings, (tuple, list)) and len(bindings) == len(self._names):
            return list(bindings)
        if isinstance(bindings, Mapping) or not hasattr(bindings, "__len__"):
            return [_named(bindings, name) for _, name in self._names]
        size = len(bindings)
        return [bindings[index] if index < size else None for index, _ in self._names]

    def render(self, bindings: Sequence[Any] | Mapping[str, Any] | None, limit: int) -> str:
        """Return the SQL with literals in the place of its parameters; ``limit`` is that of `literal`."""
        parts, at = self._parts.copy(), 1
        is_simple = self._is_sequential and type(bindings) is tuple and 2 * len(bindings) + 1 == len(parts)
        values: Any = bindings if is_simple else self.values(bindings)
        for value in values:
            kind = type(value)
            # the most frequent kinds, as `literal` has them
            if kind is str and len(value) <= limit and value.isprintable() and "'" not in value:
                parts[at] = f"'{value}'"
            elif kind is int and -_INTEGERS <= value < _INTEGERS:
                parts[at] = str(value)
            elif kind is float and value - value == 0:  # finite
                parts[at] = repr(value)
            else:
                parts[at] = literal(value, limit)
            at += 2
        return "".join(parts)

    def replace(self, bindings: Sequence[Any] | Mapping[str, Any] | None, show: Callable[[Any], str]) -> str:
        """Return the SQL with ``show(value)`` in the place of each parameter."""
        parts = self._parts.copy()
        parts[1::2] = [show(value) for value in self.values(bindings)]
        return "".join(parts)


def _named(bindings: Any, name: str) -> Any:
    try:
        return bindings[name[1:]]
    except (KeyError, IndexError, TypeError):
        return None
