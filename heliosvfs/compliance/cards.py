"""No card numbers (PANs) in what is stored or asked: docs/ACCESS.md, "Card numbers".

A number is taken for a card's if its first digits and its length are those of an issuer's range (ISO/IEC 7812-1) and its last
digit is right by Luhn's formula (annex B). Of random numbers of 16 digits about one in forty is such a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heliosaudit import Refusal, Rule

if TYPE_CHECKING:
    import apsw

    from heliosaudit.statements import Action, Verdict
    from heliosvfs.audited import AuditedConnection

__all__ = ["CardsFound", "find_card_numbers", "forbid_card_numbers", "has_card_number", "is_card_number"]

_SHORTEST, _LONGEST = 14, 19  # Visa's numbers of 13 digits are no longer in use, and looked like the EAN-13 of half of Europe
_LEAST, _MOST = 10 ** (_SHORTEST - 1), 10**_LONGEST - 1
_MAYBE = re.compile(r"[\d \-\u00a0\u2010-\u2015]{14}")  # quick to search for: most texts have no such thing
_RUNS = re.compile(r"\d(?:[ \-\u00a0\u2010-\u2015]?\d){13,}")  # digits, in groups perhaps
_BYTE_RUNS = re.compile(rb"[0-9](?:[ \-\0]{0,4}[0-9]){13}")
_GROUPS = re.compile(r"\d+")
_FIRST, _MIDDLE = 4, 3  # the shortest groups within a text: 4-4-4-4, 4-6-5, 4-6-4
_HEX = re.compile(r"[0-9a-fA-F\-]*")
_DIGEST = 32  # digits of a hash or UUID in hexadecimal
_LITERALS = re.compile(r"[xX]'([0-9a-fA-F]+)'|\b0[xX]([0-9a-fA-F]{11,16})\b")  # blobs and hexadecimal integers
_UNDERSCORES = re.compile(r"(?<=\d)_(?=\d)")
_RANGES = (  # first digits from and to, and the lengths that they have
    ("4", "4", (16, 19)),  # Visa
    ("51", "55", (16,)),  # Mastercard
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),  # American Express
    ("37", "37", (15,)),
    ("6011", "6011", (16, 17, 18, 19)),  # Discover
    ("644", "659", (16, 17, 18, 19)),
    ("300", "305", (14, 16)),  # Diners Club
    ("3095", "3095", (14, 16)),
    ("36", "36", (14, 16)),
    ("38", "39", (14, 16)),
    ("3528", "3589", (16, 17, 18, 19)),  # JCB
    ("62", "62", (16, 17, 18, 19)),  # UnionPay
    ("2200", "2204", (16, 17, 18, 19)),  # Mir
    ("5018", "5018", (16, 17, 18, 19)),  # Maestro
    ("5020", "5020", (16, 17, 18, 19)),
    ("5038", "5038", (16, 17, 18, 19)),
    ("6304", "6304", (16, 17, 18, 19)),
    ("6759", "6763", (16, 17, 18, 19)),
)
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_KEPT = 1000  # SQL texts that are known to hold no number
_REASON = "a card number is not to be stored or asked for in the clear (PCI DSS 3.5.1)"


def is_card_number(text: str) -> bool:
    """Tell whether a text is a card number and nothing else; blanks and hyphens may group its digits."""
    match = _RUNS.fullmatch(text.strip())
    return match is not None and _is_number("".join(_GROUPS.findall(match.group())))


def has_card_number(value: Any) -> bool:
    """Tell whether a value is a card number or contains one: text, a number, or bytes."""
    if isinstance(value, str):
        return _in_text(value)
    if isinstance(value, (int, float)):
        is_whole = isinstance(value, int) or value.is_integer()
        return is_whole and _LEAST <= value <= _MOST and _is_number(str(int(value)))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _in_bytes(bytes(value))
    return value is not None and _in_text(str(value))  # what the application converts when it is bound, such as a Decimal


def _in_bytes(data: bytes) -> bool:
    if _BYTE_RUNS.search(data) is None:
        return False
    if _in_text(data.decode("latin-1")):
        return True
    return b"\0" in data and _in_text(data.replace(b"\0", b"").decode("latin-1"))  # UTF-16 and UTF-32


def _in_text(text: str) -> bool:
    return _MAYBE.search(text) is not None and any(_in_run(text, match) for match in _RUNS.finditer(text))


def _in_run(text: str, run: re.Match[str]) -> bool:
    """Look for a card number in digits that follow each other; within a longer text its groups are such as people write."""
    if len(run.group()) == len(text.strip()) and is_card_number(text):
        return True
    groups = list(_GROUPS.finditer(text, run.start(), run.end()))
    for first, group in enumerate(groups):
        if len(group.group()) < _FIRST:
            continue
        digits = ""
        for last in groups[first:]:
            digits += last.group()
            if len(digits) > _LONGEST:
                break
            if _is_number(digits) and not _is_part(text, group.start(), last.end()):
                return True
            if len(last.group()) < _MIDDLE:
                break
    return False


def _is_part(text: str, start: int, end: int) -> bool:
    """Tell whether digits are those of a decimal fraction, or of a hash or UUID in hexadecimal."""
    if start > 1 and text[start - 1] == "." and text[start - 2].isdigit():
        return True
    before = _HEX.match(text[max(0, start - 128) : start][::-1])
    after = _HEX.match(text, end)
    token = (before.group() if before else "") + (after.group() if after else "")
    return len(token) + end - start >= _DIGEST and any(character.isalpha() for character in token)


def _is_number(digits: str) -> bool:
    length = len(digits)
    if not _SHORTEST <= length <= _LONGEST:
        return False
    numbers = [int(digit) for digit in digits]  # other scripts' digits as well
    start = "".join(map(str, numbers[:4]))
    if not any(length in lengths and first <= start[: len(first)] <= last for first, last, lengths in _RANGES):
        return False
    numbers.reverse()
    return (sum(numbers[::2]) + sum(_DOUBLED[digit] for digit in numbers[1::2])) % 10 == 0


def _in_sql(sql: str) -> bool:
    """Look into a statement's text: its literals, and its comments and names as well, for the log would show them."""
    if _in_text(_UNDERSCORES.sub("", sql) if "_" in sql else sql):
        return True
    for blob, number in _LITERALS.findall(sql):
        if has_card_number(int(number, 16) if number else bytes.fromhex(blob) if not len(blob) % 2 else None):
            return True
    return False


class _NoCards(Rule):
    """Refuses statements with card numbers, bound or literal, whatever they do: the audit log would hold them, too."""

    def __init__(self) -> None:
        self._clean: set[str] = set()  # SQL that holds none

    def inspect(self, sql: str, bindings: Any, verdict: Verdict) -> Refusal | None:  # noqa: ARG002 - whatever they do
        """See `heliosaudit.Rule.inspect`."""
        if sql not in self._clean:
            if _in_sql(sql):
                return Refusal(_REASON, hides_values=True)
            if len(self._clean) >= _KEPT:
                self._clean.clear()
            self._clean.add(sql)
        if bindings is None:
            return None
        for value in bindings.values() if isinstance(bindings, Mapping) else bindings:
            kind = type(value)  # most values are none, and are passed over here
            if kind is str:
                if _MAYBE.search(value) is None:
                    continue
            elif value is None or (kind is int and not _LEAST <= value <= _MOST):
                continue
            if has_card_number(value):
                return Refusal(_REASON, hides_values=True)
        return None

    def inspect_unprepared(self, sql: str) -> Refusal | None:
        """See `heliosaudit.Rule.inspect_unprepared`."""
        return Refusal(_REASON, hides_values=True) if _in_sql(sql) else None

    def inspect_blob(self, schema: str, table: str, column: str, data: Any) -> Refusal | None:  # noqa: ARG002 - anywhere
        """See `heliosaudit.Rule.inspect_blob`."""
        return Refusal(_REASON, hides_values=True) if has_card_number(data) else None

    def authorize(self, action: Action) -> Refusal | None:  # noqa: ARG002 - names are no values
        """See `heliosaudit.Rule.authorize`."""
        return None


def forbid_card_numbers(connection: AuditedConnection) -> None:
    """Refuse card numbers in bound values, literals and blobs on a connection, and record each attempt without the number.

    Raises:
        AuditPolicyError: The connection is not audited.
    """
    connection.add_rule(_NoCards())


@dataclass(frozen=True)
class CardsFound:
    """Where card numbers are.

    Attributes:
        table: The table.
        column: The column.
        rows: How many rows have one there.
    """

    table: str
    column: str
    rows: int


def find_card_numbers(connection: apsw.Connection) -> Iterator[CardsFound]:
    """Look through all tables for card numbers, such as were there before, or were put together by SQL; none is shown.

    Args:
        connection: A connection that may read every table; each table is one SELECT, recorded as such.
    """
    # PRAGMAs, not their functions: a table of the database may have the name of one of those
    listed = connection.execute("PRAGMA main.table_list").fetchall()
    for table in [str(row[1]) for row in listed if row[2] in ("table", "shadow")]:
        if table.startswith("sqlite_"):
            continue
        counts: dict[int, int] = {}
        quoted = table.replace('"', '""')
        names = [str(row[1]) for row in connection.execute(f'PRAGMA main.table_xinfo("{quoted}")')]
        for row in connection.execute(f'SELECT * FROM main."{quoted}"'):
            for place, value in enumerate(row):
                if has_card_number(value):
                    counts[place] = counts.get(place, 0) + 1
        for place, rows in counts.items():
            yield CardsFound(table, names[place], rows)
