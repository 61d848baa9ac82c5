"""A key that a command prints."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from heliosvfs.errors import KeyUnavailableError, UsageError
from heliosvfs.keys import Secret
from heliosvfs.keysources.forms import raw_or_passphrase

__all__ = ["KeyFromCommand"]


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
        return raw_or_passphrase(done.stdout, where, passphrase=self.passphrase)
