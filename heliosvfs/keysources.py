"""Where a key comes from when it is not in the program: a file, an environment variable, a command.

Each is asked when a database is opened and keeps nothing. A file or variable states its form: exactly 32 bytes are a raw key, 64
hexadecimal digits are one too; a passphrase has to be declared as one, because nothing is ever guessed to be one.
"""

from __future__ import annotations

import os
import stat
import string
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heliosvfs.errors import KeyUnavailableError, UsageError
from heliosvfs.keys import KEY_BYTES, Secret

__all__ = ["KeyFile", "KeyFromCommand", "KeyFromEnvironment"]

_HEX_DIGITS = KEY_BYTES * 2
_LARGEST = 4096  # bytes; whatever is longer is no key
_FORMS = f"{KEY_BYTES} raw bytes, or {_HEX_DIGITS} hexadecimal digits with at most one newline"


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
    try:
        return Secret.passphrase(content.removesuffix(b"\n").removesuffix(b"\r").decode())
    except UnicodeDecodeError:
        msg = f"{where} holds a passphrase that is not UTF-8"
    except UsageError as error:
        msg = f"{where}: {error}"
    raise KeyUnavailableError(msg)


@dataclass(frozen=True)
class KeyFile:
    """A key in a file.

    Args:
        path: The file.
        passphrase: The file holds a passphrase (its first line, UTF-8) and not a raw key.
        allow_shared: Accept a file that others than its owner may read or write.
    """

    path: str | os.PathLike[str]
    passphrase: bool = False
    allow_shared: bool = False

    def secret(self) -> Secret:
        """Read the key.

        Raises:
            KeyUnavailableError: The file can't be read, others may read it, or it holds no key.
        """
        where = f"the key file {os.fspath(self.path)}"
        try:
            with Path(self.path).open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(_LARGEST + 1)
        except OSError as error:
            msg = f"{where} can't be read: {error.strerror}"
            raise KeyUnavailableError(msg) from None
        if os.name == "posix" and not self.allow_shared and stat.S_IMODE(mode) & 0o077:
            msg = (
                f"{where} can be used by others than its owner (mode {stat.S_IMODE(mode):04o}): "
                "chmod 600 it, or say KeyFile(..., allow_shared=True)"
            )
            raise KeyUnavailableError(msg)
        return _passphrase(content, where) if self.passphrase else _raw_key(content, where)


@dataclass(frozen=True)
class KeyFromEnvironment:
    """A key in an environment variable.

    Args:
        name: Name of the variable.
        passphrase: It holds a passphrase and not 64 hexadecimal digits.
    """

    name: str
    passphrase: bool = False

    def secret(self) -> Secret:
        """Read the key.

        Raises:
            KeyUnavailableError: The variable is not set, or holds no key.
        """
        where = f"the environment variable {self.name}"
        value = os.environ.get(self.name)
        if not value:
            msg = f"{where} is not set" if value is None else f"{where} is empty"
            raise KeyUnavailableError(msg)
        content = os.fsencode(value)
        return _passphrase(content, where) if self.passphrase else _raw_key(content, where)


@dataclass(frozen=True)
class KeyFromCommand:
    """A key that a command prints on its standard output: a password manager, a vault's client.

    Args:
        argv: The command and its arguments; no shell is involved.
        passphrase: It prints a passphrase and not a raw key.
        timeout: Seconds that it may take.
    """

    argv: Sequence[str]
    passphrase: bool = False
    timeout: float = 30.0

    def secret(self) -> Secret:
        """Run the command and read the key; what it prints elsewhere is left to the terminal.

        Raises:
            KeyUnavailableError: It can't be started, fails, takes too long, or prints no key.
            UsageError: There is no command.
        """
        if isinstance(self.argv, str) or not self.argv:
            msg = "KeyFromCommand takes a list: the command and its arguments"
            raise UsageError(msg)
        where = f"the key command {self.argv[0]}"
        try:
            done = subprocess.run(  # noqa: S603 - running the user's own command is what this class is for
                list(self.argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=self.timeout, check=False
            )
        except OSError as error:
            msg = f"{where} can't be started: {error.strerror}"
            raise KeyUnavailableError(msg) from None
        except subprocess.TimeoutExpired:
            msg = f"{where} gave no key within {self.timeout:g} seconds"
            raise KeyUnavailableError(msg) from None
        if done.returncode:
            msg = f"{where} failed with exit status {done.returncode}"
            raise KeyUnavailableError(msg)
        return _passphrase(done.stdout, where) if self.passphrase else _raw_key(done.stdout, where)
