"""`heliosvfs key`: the ways to unlock a database."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from heliosvfs.cli.keys import (
    KeyCommandOption,
    KeyEnvOption,
    KeyFileOption,
    NewKeyCommandOption,
    NewKeyEnvOption,
    NewKeyFileOption,
    NewPassphraseOption,
    PassphraseOption,
    key_from,
)
from heliosvfs.cli.output import JsonOption, print_json, print_table
from heliosvfs.connection import Connection, connect
from heliosvfs.keyring import Key
from heliosvfs.keys import KdfSettings

__all__ = ["app"]

app = typer.Typer(help="Add, list, revoke and change the keys that open a database.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="An encrypted database.", show_default=False)]
LabelOption = Annotated[str, typer.Option("--label", help="What to call the key slot.", show_default=False)]
FipsOption = Annotated[bool, typer.Option("--fips", help="PBKDF2 for a passphrase, not Argon2id.")]


def _open(file: Path, key: Key) -> contextlib.closing[Connection]:
    return contextlib.closing(connect(file, key=key, create=False))


@app.command("list")
def list_keys(  # noqa: PLR0913 - the options of the command
    file: FileArgument,
    *,
    key_file: KeyFileOption = None,
    key_env: KeyEnvOption = None,
    key_command: KeyCommandOption = None,
    passphrase: PassphraseOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the key slots, verified (`info` lists them without a key)."""
    with _open(file, key_from(key_file, key_env, key_command, passphrase=passphrase)) as connection:
        found = [asdict(slot) for slot in connection.list_keys()]
    if as_json:
        print_json({"slots": found})
    else:
        print_table("Key slots", ["label", "created", "kdf", "parameters"], [list(slot.values()) for slot in found])


@app.command("add")
def add_key(  # noqa: PLR0913 - the options of the command
    file: FileArgument,
    label: LabelOption,
    *,
    fips: FipsOption = False,
    key_file: KeyFileOption = None,
    key_env: KeyEnvOption = None,
    key_command: KeyCommandOption = None,
    passphrase: PassphraseOption = False,
    new_key_file: NewKeyFileOption = None,
    new_key_env: NewKeyEnvOption = None,
    new_key_command: NewKeyCommandOption = None,
    new_passphrase: NewPassphraseOption = False,
) -> None:
    """Add another key that opens the database."""
    key = key_from(key_file, key_env, key_command, passphrase=passphrase, what="Present passphrase")
    new = key_from(new_key_file, new_key_env, new_key_command, passphrase=new_passphrase, what="New passphrase", new=True)
    with _open(file, key) as connection:
        connection.add_key(new, label=label, settings=KdfSettings(fips_mode=fips))
    typer.echo(f"{file}: {label!r} opens it too")


@app.command("revoke")
def revoke_key(  # noqa: PLR0913 - the options of the command
    file: FileArgument,
    label: LabelOption,
    *,
    key_file: KeyFileOption = None,
    key_env: KeyEnvOption = None,
    key_command: KeyCommandOption = None,
    passphrase: PassphraseOption = False,
) -> None:
    """Take a key away. Whoever kept a copy of the file as it was can still open that copy, and with it this master key."""
    with _open(file, key_from(key_file, key_env, key_command, passphrase=passphrase)) as connection:
        connection.revoke_key(label)
    typer.echo(f"{file}: {label!r} no longer opens it; a copy of the old header still does, until the data is under new keys")


@app.command("change")
def change_key(  # noqa: PLR0913 - the options of the command
    file: FileArgument,
    *,
    fips: FipsOption = False,
    key_file: KeyFileOption = None,
    key_env: KeyEnvOption = None,
    key_command: KeyCommandOption = None,
    passphrase: PassphraseOption = False,
    new_key_file: NewKeyFileOption = None,
    new_key_env: NewKeyEnvOption = None,
    new_key_command: NewKeyCommandOption = None,
    new_passphrase: NewPassphraseOption = False,
) -> None:
    """Put a new key in the place of the one given; the data is not touched."""
    key = key_from(key_file, key_env, key_command, passphrase=passphrase, what="Present passphrase")
    new = key_from(new_key_file, new_key_env, new_key_command, passphrase=new_passphrase, what="New passphrase", new=True)
    with _open(file, key) as connection:
        connection.change_key(new, settings=KdfSettings(fips_mode=fips))
    typer.echo(f"{file}: the key was changed")
