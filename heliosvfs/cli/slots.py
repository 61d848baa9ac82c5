"""`heliosvfs key`: the ways to unlock a database."""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from heliosvfs.cli.keys import KeyOptions, takes_keys
from heliosvfs.cli.output import JsonOption, print_json, print_table
from heliosvfs.cli.recording import recorded
from heliosvfs.connection import Connection
from heliosvfs.errors import UsageError
from heliosvfs.keyring import Key
from heliosvfs.keys import KdfSettings, Secret
from heliosvfs.recovery_keys import new_recovery_key, parse

__all__ = ["app"]

app = typer.Typer(help="Add, list, revoke and change the keys that open a database.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="An encrypted database.", show_default=False)]
LabelOption = Annotated[str, typer.Option("--label", help="What to call the key slot.", show_default=False)]
FipsOption = Annotated[bool, typer.Option("--fips", help="PBKDF2 for a passphrase, not Argon2id.")]


def _open(file: Path, key: Key) -> contextlib.AbstractContextManager[Connection]:
    return recorded(file, key, create=False)


@app.command("list")
@takes_keys
def list_keys(
    file: FileArgument,
    *,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """List the key slots, verified (`info` lists them without a key)."""
    with _open(file, key.source()) as connection:
        found = [asdict(slot) for slot in connection.list_keys()]
        if as_json:  # before closing, which fails where the log can't be written
            print_json({"slots": found})
        else:
            columns = ["label", "created", "kdf", "parameters", "last used"]
            print_table("Key slots", columns, [list(slot.values()) for slot in found])


@app.command("add")
@takes_keys
def add_key(
    file: FileArgument,
    label: LabelOption,
    *,
    fips: FipsOption = False,
    key: KeyOptions,
    new_key: KeyOptions,
) -> None:
    """Add another key that opens the database."""
    present, new = key.source("Present passphrase"), new_key.new_source()
    with _open(file, present) as connection:
        connection.add_key(new, label=label, settings=KdfSettings(fips_mode=fips))
        typer.echo(f"{file}: {label!r} opens it too")


@app.command("revoke")
@takes_keys
def revoke_key(
    file: FileArgument,
    label: LabelOption,
    *,
    key: KeyOptions,
) -> None:
    """Take a key away. Whoever kept it with a copy of the old header is stopped only by `heliosvfs rotate --master`."""
    with _open(file, key.source()) as connection:
        connection.revoke_key(label)
        typer.echo(
            f"{file}: {label!r} no longer opens it. Whoever kept that key and a copy of the old header can still read it, "
            "until `heliosvfs rotate --master` puts new keys in force"
        )


@app.command("change")
@takes_keys
def change_key(
    file: FileArgument,
    *,
    fips: FipsOption = False,
    key: KeyOptions,
    new_key: KeyOptions,
) -> None:
    """Put a new key in the place of the one given; the data is not touched."""
    present, new = key.source("Present passphrase"), new_key.new_source()
    with _open(file, present) as connection:
        connection.change_key(new, settings=KdfSettings(fips_mode=fips))
        typer.echo(f"{file}: the key was changed")


@app.command("recovery")
@takes_keys
def add_recovery_key(
    file: FileArgument,
    label: Annotated[str, typer.Option("--label", help="What to call the key slot.")] = "recovery",
    *,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Add a recovery key and print it, once: write it down and lock it away. `heliosvfs key recover` uses it."""
    with _open(file, key.source()) as connection:
        text = new_recovery_key(os.urandom)
        connection.add_key(parse(text), label=label)
        _show_recovery_key(file, label, text, as_json=as_json)  # before closing, which fails where the log can't be written


def _show_recovery_key(file: Path, label: str, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"label": label, "recovery_key": text})
        return
    groups = text.split("-")
    typer.echo(f"{file}: {label!r} opens it too. This is shown once, and kept nowhere:\n")
    typer.echo(f"    {'-'.join(groups[:4])}-\n    {'-'.join(groups[4:])}\n")


@app.command("recover")
@takes_keys
def recover(
    file: FileArgument,
    label: LabelOption,
    *,
    fips: FipsOption = False,
    new_key: KeyOptions,
) -> None:
    """Open a database with its recovery key, asked for or read from standard input, and add a new key."""
    secret = _recovery_key()
    with _open(file, secret) as connection:
        new = new_key.new_source()
        connection.add_key(new, label=label, settings=KdfSettings(fips_mode=fips))
        typer.echo(f"{file}: {label!r} opens it now; revoke the keys that are lost, and the recovery key if others have seen it")


def _recovery_key() -> Secret:
    """Ask for a recovery key until it is typed right; from a pipe it is read once."""
    if not sys.stdin.isatty():
        return parse(sys.stdin.read())
    while True:
        try:
            return parse(getpass.getpass("Recovery key: "))
        except UsageError as error:
            typer.echo(str(error), err=True)
