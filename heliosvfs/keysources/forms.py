"""The forms in which a source may hold a key. A source states which: nothing is ever guessed to be a passphrase."""

from __future__ import annotations

import string

from heliosvfs.errors import KeyUnavailableError, UsageError
from heliosvfs.keys import KEY_BYTES, Secret

__all__ = ["LARGEST", "raw_or_passphrase"]

LARGEST = 4096  # bytes; whatever is longer is no key
_HEX_DIGITS = KEY_BYTES * 2
_FORMS = f"{KEY_BYTES} raw bytes, or {_HEX_DIGITS} hexadecimal digits with at most one newline"


def raw_or_passphrase(content: bytes, where: str, *, passphrase: bool) -> Secret:
    """Read what a source holds: a passphrase if it was declared as one, else a raw key in one of its two forms.

    Raises:
        KeyUnavailableError: It is neither; the message says what was expected, and never what was read.
    """
    return _passphrase(content, where) if passphrase else _raw_key(content, where)


def _raw_key(content: bytes, where: str) -> Secret:
    """Read a raw key in one of its two forms.

    Raises:
        KeyUnavailableError: It has neither.
    """
    if len(content) == KEY_BYTES:
        return Secret.raw(content)
    text = content.removesuffix(b"\n").removesuffix(b"\r")
    if len(text) == _HEX_DIGITS and not set(text) - set(string.hexdigits.encode()):
        return Secret.raw(bytes.fromhex(text.decode()))
    msg = f"{where} holds {len(content)} bytes that are no key; expected {_FORMS}"
    raise KeyUnavailableError(msg)


def _passphrase(content: bytes, where: str) -> Secret:
    """Read a passphrase: one line, whose newline does not count.

    Raises:
        KeyUnavailableError: It is none, or more than one line: nobody knows then whether the others belong to it.
    """
    text = content.removesuffix(b"\n").removesuffix(b"\r")
    if b"\n" in text:
        msg = (
            f"{where} holds more than one line, and a passphrase is one: remove the others; a database whose passphrase is "
            "all of them opens with heliosvfs.connect(path, key=TEXT)"
        )
        raise KeyUnavailableError(msg)
    try:
        return Secret.passphrase(text.decode())
    except UnicodeDecodeError:
        msg = f"{where} holds a passphrase that is not UTF-8"
    except UsageError as error:
        msg = f"{where}: {error}"
    raise KeyUnavailableError(msg)
