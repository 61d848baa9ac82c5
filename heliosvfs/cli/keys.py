"""Where the command line takes a key from. Never from an argument: others can read a process's arguments."""

from __future__ import annotations

import functools
import getpass
import inspect
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from heliosvfs import defaults
from heliosvfs.config import Config
from heliosvfs.config.keys import key_of
from heliosvfs.errors import UsageError
from heliosvfs.keyring import Key
from heliosvfs.keysources import KeyFile, KeyFromCommand, KeyFromEnvironment

__all__ = ["KeyOptions", "takes_keys", "typed"]


@dataclass(frozen=True)
class KeyOptions:
    """What a command was told of a key; nothing is read, run or asked for before `source`.

    Attributes:
        file: File with the key.
        environment: Name of the variable with it.
        command: Command that prints it.
        is_passphrase: Whether what these give is a passphrase.
    """

    file: Path | None = None
    environment: str | None = None
    command: str | None = None
    is_passphrase: bool = False

    @property
    def is_given(self) -> bool:
        """Whether a source was named."""
        return any(source is not None for source in (self.file, self.environment, self.command))

    def source(self, what: str = "Passphrase", *, new: bool = False) -> Key:
        """Return the key that the options name, or else the configuration, or ask for a passphrase; for a new one twice.

        Raises:
            UsageError: More than one source was named, there is nobody to ask, or the two answers differ.
            ConfigError: The configuration can't be used.
        """
        if sum(source is not None for source in (self.file, self.environment, self.command)) > 1:
            msg = "name one source of the key: a file, a variable or a command"
            raise UsageError(msg)
        if self.file is not None:
            return KeyFile(self.file, passphrase=self.is_passphrase)
        if self.environment is not None:
            return KeyFromEnvironment(self.environment, passphrase=self.is_passphrase)
        if self.command is not None:
            return KeyFromCommand(_words(self.command), passphrase=self.is_passphrase)
        configured = None if new else _configured_key()
        if configured is not None:
            return configured
        if self.is_passphrase:
            msg = "--passphrase says what a file, a variable or a command holds: name one of them"
            raise UsageError(msg)
        if not sys.stdin.isatty():
            msg = "there is no terminal to ask for a passphrase: use --key-file, --key-env or --key-command"
            raise UsageError(msg)
        return typed(what, new=new)

    def new_source(self) -> Key:
        """Return the new key that the options name, or ask for it twice."""
        return self.source("New passphrase", new=True)

    def source_if_given(self) -> Key | None:
        """Return the key that the options name; None if they name none."""
        return self.source() if self.is_given else None


def _words(command: str) -> list[str]:
    """Return a command and its arguments; nothing of it is told, because it may hold what opens a vault."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        msg = f"the command for the key can't be taken apart into words: {str(error).lower()}"
        raise UsageError(msg) from None
    if not words:
        msg = "the command for the key is empty"
        raise UsageError(msg)
    return words


def typed(what: str, *, new: bool = False) -> str:
    """Ask for a secret at the terminal; for a new one twice.

    Raises:
        UsageError: The two answers differ.
    """
    answer = getpass.getpass(f"{what}: ")
    if new and getpass.getpass(f"{what} again: ") != answer:
        msg = "the two passphrases differ"
        raise UsageError(msg)
    return answer


def _configured_key() -> Key | None:
    """Return the key that the configuration of this process names, None if there is none or it names none."""
    config = os.environ.get(defaults.CONFIG_VARIABLE)
    return None if not config else key_of(Config.from_file(config))


_FILE = "File with the {}key: 32 raw bytes or 64 hexadecimal digits."
_OPTIONS: dict[str, dict[str, Any]] = {
    "key": {
        "file": Annotated[Path | None, typer.Option("--key-file", help=_FILE.format(""), show_default=False)],
        "environment": Annotated[
            str | None,
            typer.Option("--key-env", metavar="NAME", help="Environment variable with the key, 64 hexadecimal digits."),
        ],
        "command": Annotated[
            str | None,
            typer.Option("--key-command", metavar="COMMAND", help="Command that prints the key; no shell is involved."),
        ],
        "is_passphrase": Annotated[
            bool,
            typer.Option("--passphrase", help="What --key-file, --key-env or --key-command gives is a passphrase, no raw key."),
        ],
    },
    "new_key": {
        "file": Annotated[Path | None, typer.Option("--new-key-file", help=_FILE.format("new "), show_default=False)],
        "environment": Annotated[str | None, typer.Option("--new-key-env", metavar="NAME", help="Variable with the new key.")],
        "command": Annotated[
            str | None, typer.Option("--new-key-command", metavar="COMMAND", help="Command that prints the new key.")
        ],
        "is_passphrase": Annotated[
            bool, typer.Option("--new-passphrase", help="What these give is a passphrase, not a raw key.")
        ],
    },
}


def takes_keys(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name its keys: four for each parameter ``key`` or ``new_key``, a `KeyOptions`.

    typer makes a command's options of its signature, so the command that it is given has one of its own.
    """
    signature = inspect.signature(command, eval_str=True)
    unset = asdict(KeyOptions())
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name not in _OPTIONS:
            parameters.append(parameter)
            continue
        parameters += [
            parameter.replace(name=f"{parameter.name}_{field}", annotation=annotation, default=unset[field])
            for field, annotation in _OPTIONS[parameter.name].items()
        ]
    keys = [name for name in _OPTIONS if name in signature.parameters]

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        for name in keys:
            arguments[name] = KeyOptions(**{field: arguments.pop(f"{name}_{field}") for field in _OPTIONS[name]})
        command(**arguments)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    return run
