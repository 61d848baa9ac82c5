"""`heliosvfs signer` and `heliosvfs signature`: who may sign, and what was signed (21 CFR Part 11; docs/SIGNATURES.md)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from heliosvfs.audited import AuditedConnection
from heliosvfs.cli.keys import KeyOptions, takes_keys, typed
from heliosvfs.cli.output import JsonOption, print_json, print_table
from heliosvfs.cli.recording import recorded
from heliosvfs.compliance import signatures, signers
from heliosvfs.errors import UsageError

__all__ = ["signature", "signer"]

signer = typer.Typer(help="Enrol, list and revoke those who may sign.", no_args_is_help=True)
signature = typer.Typer(help="List and verify electronic signatures.", no_args_is_help=True)

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="An encrypted database with an audit log.", show_default=False)
]
SignerArgument = Annotated[str, typer.Argument(help="What identifies the signer.")]
_VARIABLE = "HELIOSVFS_SIGNER_PASSPHRASE"
_NEW_VARIABLE = "HELIOSVFS_NEW_SIGNER_PASSPHRASE"


@contextlib.contextmanager
def _open(file: Path, key: KeyOptions) -> Iterator[AuditedConnection]:
    with recorded(file, key.source(), create=False) as connection:
        if not isinstance(connection, AuditedConnection):
            msg = f"{file} has no audit log, and signatures are part of one: heliosvfs.connect(..., audit=...) makes it"
            raise UsageError(msg)
        yield connection


def _passphrase(what: str, variable: str, *, new: bool = False) -> str:
    """Return a signer's passphrase, from the terminal or a variable; never from an argument."""
    if found := os.environ.get(variable):
        return found
    if not sys.stdin.isatty():
        msg = f"there is no terminal to ask for the signer's passphrase: set {variable}"
        raise UsageError(msg)
    return typed(what, new=new)


@signer.command("add")
@takes_keys
def add(
    file: FileArgument,
    signer_id: SignerArgument,
    *,
    name: Annotated[str, typer.Option(help="Printed name, as it stands on every signature.")],
    key: KeyOptions,
) -> None:
    """Enrol a signer; the signer types the passphrase, and nobody else knows it."""
    with _open(file, key) as connection:
        secret = _passphrase(f"Passphrase of {signer_id}", _NEW_VARIABLE, new=True)
        made = signers.enrol(connection, signer_id, name=name, passphrase=secret)
    typer.echo(f"{made.name} ({made.id}) may sign; public key {made.public_key}.")


@signer.command("list")
@takes_keys
def list_signers(
    file: FileArgument,
    *,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """List those who may sign, and those who may no longer."""
    with _open(file, key) as connection:
        found = signers.signers(connection)
        if as_json:  # before closing, which fails where the log can't be written
            print_json({"signers": [asdict(one) for one in found]})
            return
        rows = [[one.id, one.name, one.enrolled, one.revoked] for one in found]
        print_table("", ["id", "name", "enrolled", "revoked"], rows)


@signer.command("revoke")
@takes_keys
def revoke(
    file: FileArgument,
    signer_id: SignerArgument,
    *,
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")],
    key: KeyOptions,
) -> None:
    """Keep a signer from signing from now on; what they signed stays signed."""
    with _open(file, key) as connection:
        signers.revoke(connection, signer_id, reason=reason)
    typer.echo(f"{signer_id} may no longer sign.")


@signer.command("passphrase")
@takes_keys
def change(
    file: FileArgument,
    signer_id: SignerArgument,
    *,
    key: KeyOptions,
) -> None:
    """Give a signer another passphrase, who types the old one and the new one."""
    with _open(file, key) as connection:
        old = _passphrase(f"Passphrase of {signer_id}", _VARIABLE)
        new = _passphrase("New passphrase", _NEW_VARIABLE, new=True)
        signers.change_passphrase(connection, signer_id, old=old, new=new)
    typer.echo("Changed.")


@signature.command("list")
@takes_keys
def list_signatures(
    file: FileArgument,
    *,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """List all signatures: printed name, time and meaning, and whether each holds (21 CFR 11.50)."""
    with _open(file, key) as connection:
        _print(signatures.verify_signatures(connection), as_json=as_json)


@signature.command("verify")
@takes_keys
def verify(
    file: FileArgument,
    *,
    table: Annotated[list[str] | None, typer.Option("--table", help="A table whose changes are to be signed.")] = None,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Verify the log and every signature in it; exit status 1: something does not hold, or is not signed."""
    with _open(file, key) as connection:
        report = signatures.verify_signatures(connection, table or ())
        _print(report, as_json=as_json)  # before closing, which fails where the log can't be written
    if not report.ok:
        raise typer.Exit(1)


def _print(report: signatures.SignatureReport, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "ok": report.ok,
                "chain": report.chain,
                "signatures": [asdict(one) for one in report.signatures],
                "unsigned": list(report.unsigned),
            }
        )
        return
    rows = [
        [one.event, one.name, one.time, one.meaning, ", ".join(str(number) for number, _ in one.signed), one.flaw or "valid"]
        for one in report.signatures
    ]
    print_table("", ["event", "signed by", "on", "meaning", "events signed", ""], rows)
    typer.echo(f"The log is {report.chain}.")
    if report.unsigned:
        typer.echo(f"Changes that nobody signed: events {', '.join(map(str, report.unsigned))}.")
