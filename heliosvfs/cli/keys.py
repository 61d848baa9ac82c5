"""Where the command line takes a key from. Never from an argument: others can read a process's arguments."""

from __future__ import annotations

import getpass
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from heliosvfs import defaults
from heliosvfs.config import Config
from heliosvfs.config.keys import key_of
from heliosvfs.errors import UsageError
from heliosvfs.keyring import Key
from heliosvfs.keysources import KeyFile, KeyFromCommand, KeyFromEnvironment

__all__ = [
    "KeyCommandOption",
    "KeyEnvOption",
    "KeyFileOption",
    "NewKeyCommandOption",
    "NewKeyEnvOption",
    "NewKeyFileOption",
    "NewPassphraseOption",
    "PassphraseOption",
    "key_from",
]

KeyFileOption = Annotated[
    Path | None, typer.Option("--key-file", help="File with the key: 32 raw bytes or 64 hexadecimal digits.", show_default=False)
]
KeyEnvOption = Annotated[
    str | None, typer.Option("--key-env", metavar="NAME", help="Environment variable with the key, 64 hexadecimal digits.")
]
KeyCommandOption = Annotated[
    str | None, typer.Option("--key-command", metavar="COMMAND", help="Command that prints the key; no shell is involved.")
]
PassphraseOption = Annotated[
    bool, typer.Option("--passphrase", help="What --key-file, --key-env or --key-command gives is a passphrase, not a raw key.")
]
NewKeyFileOption = Annotated[
    Path | None, typer.Option("--new-key-file", help="File with the new key: 32 raw bytes or 64 hexadecimal digits.")
]
NewKeyEnvOption = Annotated[str | None, typer.Option("--new-key-env", metavar="NAME", help="Variable with the new key.")]
NewKeyCommandOption = Annotated[
    str | None, typer.Option("--new-key-command", metavar="COMMAND", help="Command that prints the new key.")
]
NewPassphraseOption = Annotated[bool, typer.Option("--new-passphrase", help="What these give is a passphrase, not a raw key.")]


def _configured_key() -> Key | None:
    """Return the key that the configuration of this process names, None if there is none or it names none."""
    config = os.environ.get(defaults.CONFIG_VARIABLE)
    return None if not config else key_of(Config.from_file(config))


def key_from(  # noqa: PLR0913 - one parameter for each option
    file: Path | None,
    environment: str | None,
    command: str | None,
    *,
    passphrase: bool,
    what: str = "Passphrase",
    new: bool = False,
) -> Key:
    """Return the key that the options name, or else the configuration, or ask for a passphrase; a new one is asked for twice.

    Raises:
        UsageError: More than one source was named, there is nobody to ask, or the two answers differ.
        ConfigError: The configuration can't be used.
    """
    if sum(source is not None for source in (file, environment, command)) > 1:
        msg = "name one source of the key: a file, a variable or a command"
        raise UsageError(msg)
    if file is not None:
        return KeyFile(file, passphrase=passphrase)
    if environment is not None:
        return KeyFromEnvironment(environment, passphrase=passphrase)
    if command is not None:
        return KeyFromCommand(shlex.split(command), passphrase=passphrase)
    configured = None if new else _configured_key()
    if configured is not None:
        return configured
    if passphrase:
        msg = "--passphrase says what a file, a variable or a command holds: name one of them"
        raise UsageError(msg)
    if not sys.stdin.isatty():
        msg = "there is no terminal to ask for a passphrase: use --key-file, --key-env or --key-command"
        raise UsageError(msg)
    answer = getpass.getpass(f"{what}: ")
    if new and getpass.getpass(f"{what} again: ") != answer:
        msg = "the two passphrases differ"
        raise UsageError(msg)
    return answer
