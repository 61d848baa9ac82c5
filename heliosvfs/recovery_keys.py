"""Recovery keys: 32 random bytes in a form that people can write down and type, which finds their mistakes.

    0W40J2KW-1C60T3GH-... eight groups of eight characters

The alphabet is Crockford's base 32, without I, L, O and U; O is read as 0, I and L as 1, and neither case nor separators count. A
group is a number of 40 bits: 32 bits of the key, times 256, plus what makes it the group's own number modulo 251. That is a prime
which divides no power of 32, no number below 32 and not 31, so every mistyped character, every swap of two neighbours and every
swap of two groups is found, with the group that it is in; of other mistakes 250 in 251 for each group.
"""

from __future__ import annotations

from heliosvfs.errors import UsageError
from heliosvfs.keys import KEY_BYTES, Randomness, Secret

__all__ = ["GROUPS", "format_key", "new_recovery_key", "parse"]

GROUPS = 8
_LETTERS = 8  # of a group
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_READ_AS = {letter: number for number, letter in enumerate(_ALPHABET)} | {"O": 0, "I": 1, "L": 1}
_MODULUS = 251
_SEPARATORS = " -\t\r\n_"


def new_recovery_key(random: Randomness) -> str:
    """Return a new recovery key as people see it; it is shown once and kept nowhere."""
    return format_key(random(KEY_BYTES))


def format_key(key: bytes) -> str:
    """Return a raw key of 32 bytes in the form that people can type.

    Raises:
        UsageError: It is of another length.
    """
    if len(key) != KEY_BYTES:
        msg = f"a recovery key is {KEY_BYTES} bytes, not {len(key)}"
        raise UsageError(msg)
    return "-".join(_group(int.from_bytes(key[4 * n : 4 * n + 4], "big"), n + 1) for n in range(GROUPS))


def _group(value: int, number: int) -> str:
    whole = value * 256
    whole += (number - whole) % _MODULUS
    return "".join(_ALPHABET[whole >> 5 * place & 31] for place in reversed(range(_LETTERS)))


def parse(text: str) -> Secret:
    """Read a recovery key as somebody typed it.

    Raises:
        UsageError: It is none; the message says which group is wrong, and never what was typed.
    """
    letters = [letter for letter in text.upper() if letter not in _SEPARATORS]
    if len(letters) != GROUPS * _LETTERS:
        msg = (
            f"a recovery key has {GROUPS} groups of {_LETTERS} characters, {GROUPS * _LETTERS} in all; {len(letters)} were given"
        )
        raise UsageError(msg)
    key = b""
    wrong = []
    for number in range(1, GROUPS + 1):
        group = letters[_LETTERS * (number - 1) : _LETTERS * number]
        digits = [_READ_AS.get(letter) for letter in group]
        whole = 0
        for digit in digits:
            whole = whole * 32 + (digit or 0)
        if None in digits or whole % _MODULUS != number or whole % 256 >= _MODULUS:
            wrong.append(number)
        key += (whole >> 8).to_bytes(4, "big")
    if wrong:
        msg = (
            f"the recovery key is mistyped in group {', '.join(map(str, wrong))} of {GROUPS}: compare it with what was written "
            "down (there is no I, L, O or U in it)"
        )
        raise UsageError(msg)
    return Secret.raw(key)
