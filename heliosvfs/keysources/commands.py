"""A key that a command prints."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from heliosvfs.errors import KeyUnavailableError, UsageError
from heliosvfs.keys import Secret
from heliosvfs.keysources.forms import LARGEST, raw_or_passphrase

__all__ = ["KeyFromCommand"]

_GRACE = 1.0  # seconds for a pipe to end after its writer


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
            process = subprocess.Popen(  # noqa: S603 - running the user's own command is what this class is for
                list(self.argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
            )
            content, status = _outcome(process, self.timeout)
        except OSError as error:
            msg = f"{where} can't be started: {error.strerror}"
            raise KeyUnavailableError(msg) from None
        except subprocess.TimeoutExpired:
            msg = f"{where} gave no key within {self.timeout:g} seconds"
            raise KeyUnavailableError(msg) from None
        if len(content) > LARGEST:
            msg = f"{where} prints more than {LARGEST} bytes: that is no key"
            raise KeyUnavailableError(msg)
        if status:
            msg = f"{where} failed with exit status {status}"
            raise KeyUnavailableError(msg)
        return raw_or_passphrase(content, where, passphrase=self.passphrase)


def _outcome(process: subprocess.Popen[bytes], timeout: float) -> tuple[bytes, int]:
    """Return what a command prints, up to what a key may be long and one byte more, and its exit status; then it has ended.

    A thread reads, because no other way to wait for a pipe with a limit of time works on every system.

    Raises:
        subprocess.TimeoutExpired: It takes longer.
    """
    until, output, read = time.monotonic() + timeout, process.stdout, list[bytes]()
    assert output is not None  # noqa: S101 - it was made with a pipe
    reader = threading.Thread(target=lambda: read.append(output.read(LARGEST + 1)), daemon=True)
    try:
        reader.start()
        reader.join(timeout)
        if not read:
            raise subprocess.TimeoutExpired(process.args, timeout)
        status = 0 if len(read[0]) > LARGEST else process.wait(max(0.0, until - time.monotonic()))
    finally:
        process.kill()  # nothing, where it has ended
        process.wait()
        reader.join(_GRACE)
        if not reader.is_alive():  # else a child of the command's keeps the pipe open
            output.close()
    return read[0], status
