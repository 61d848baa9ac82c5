"""No card numbers (PANs) in what is stored or asked: docs/ACCESS.md, "Card numbers".

A number is taken for a card's if its length and first digits are those of an issuer's range (ISO/IEC 7812) and its last digit is
right by Luhn's formula (ISO/IEC 7812-1, annex B). Of random numbers of 16 digits about one in thirty is such a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from heliosaudit import Refusal, Rule

if TYPE_CHECKING:
    from heliosaudit.statements import Action, Verdict
    from heliosvfs.audited import AuditedConnection

__all__ = ["forbid_card_numbers", "has_card_number", "is_card_number"]

_SHORTEST, _LONGEST = 13, 19
_LEAST, _MOST = 10 ** (_SHORTEST - 1), 10**_LONGEST - 1
_RUNS = re.compile(r"\d(?:[ \-\u00a0\u2010-\u2015]?\d){12,}")  # digits, in groups perhaps
_GROUPS = re.compile(r"\d+")
_BLOBS = re.compile(r"[xX]'([0-9a-fA-F]+)'")
_RANGES = (  # first digits from and to, and the lengths that they have
    ("4", "4", (13, 16, 19)),  # Visa
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
    ("5018", "5018", (13, 14, 15, 16, 17, 18, 19)),  # Maestro
    ("5020", "5020", (13, 14, 15, 16, 17, 18, 19)),
    ("5038", "5038", (13, 14, 15, 16, 17, 18, 19)),
    ("6304", "6304", (13, 14, 15, 16, 17, 18, 19)),
    ("6759", "6763", (13, 14, 15, 16, 17, 18, 19)),
)
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_REASON = "a card number is not to be stored or asked for in the clear (PCI DSS 3.5.1)"


def is_card_number(text: str) -> bool:
    """Tell whether a text is a card number and nothing else; blanks and hyphens may group its digits."""
    match = _RUNS.fullmatch(text.strip())
    return match is not None and _is_number("".join(_GROUPS.findall(match.group())))


def has_card_number(value: Any) -> bool:
    """Tell whether a value is a card number or contains one: text, a number, or bytes."""
    return any(_in_text(text) for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    """Yield what is to be searched of a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (int, float)):
        whole = isinstance(value, int) or value.is_integer()
        if whole and _LEAST <= value <= _MOST:
            yield str(int(value))
    elif isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        yield data.decode("latin-1")
        if b"\0" in data:
            yield data.replace(b"\0", b"").decode("latin-1")  # UTF-16 and UTF-32


def _in_text(text: str) -> bool:
    return len(text) >= _SHORTEST and any(_in_run(match.group()) for match in _RUNS.finditer(text))


def _in_run(run: str) -> bool:
    """Look for a card number that begins and ends where groups of digits do."""
    groups = _GROUPS.findall(run)
    for first in range(len(groups)):
        digits = ""
        for group in groups[first:]:
            digits += group
            if len(digits) > _LONGEST:
                break
            if _is_number(digits):
                return True
    return False


def _is_number(digits: str) -> bool:
    length = len(digits)
    if not _SHORTEST <= length <= _LONGEST:
        return False
    digits = "".join(str(int(digit)) for digit in digits)  # other scripts' digits as well
    if not any(length in lengths and first <= digits[: len(first)] <= last for first, last, lengths in _RANGES):
        return False
    numbers = [int(digit) for digit in reversed(digits)]
    return (sum(numbers[::2]) + sum(_DOUBLED[digit] for digit in numbers[1::2])) % 10 == 0


class _NoCards(Rule):
    """Refuses statements with card numbers, bound or literal, whatever they do: the audit log would hold them, too."""

    def __init__(self) -> None:
        self._clean: set[str] = set()  # SQL that holds none

    def inspect(self, sql: str, bindings: Any, verdict: Verdict) -> Refusal | None:  # noqa: ARG002 - whatever they do
        """See `heliosaudit.Rule.inspect`."""
        if sql not in self._clean:
            blobs = [bytes.fromhex(digits) for digits in _BLOBS.findall(sql) if not len(digits) % 2]
            if _in_text(sql) or any(map(has_card_number, blobs)):
                return Refusal(_REASON, hides_values=True)
            if len(self._clean) > 1000:  # noqa: PLR2004 - a bound on memory
                self._clean.clear()
            self._clean.add(sql)
        if bindings is None:
            return None
        values = bindings.values() if isinstance(bindings, Mapping) else bindings
        for value in values:
            kind = type(value)  # most values are none, and are passed over here
            if kind is str:
                if len(value) < _SHORTEST or _RUNS.search(value) is None:
                    continue
            elif value is None or (kind is int and not _LEAST <= value <= _MOST):
                continue
            if has_card_number(value):
                return Refusal(_REASON, hides_values=True)
        return None

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
