"""`heliosvfs audit`: read, verify, sign, export and prune the audit log of a database."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from heliosaudit.checkpoints import Checkpoint, CheckpointError, SigningKey, VerifyingKey
from heliosaudit.coverage import gaps
from heliosaudit.exports import export as write_export
from heliosaudit.exports import snapshot
from heliosaudit.policies import Policy
from heliosaudit.queries import rows
from heliosaudit.retention import prune as prune_log
from heliosaudit.schemas import LOG
from heliosaudit.verifications import last_prune, log_uuid
from heliosaudit.verifications import verify as verify_log
from heliosvfs import defaults
from heliosvfs.cli import tails
from heliosvfs.cli.keys import KeyOptions, takes_keys
from heliosvfs.cli.logs import SHOWN, open_log, record, select
from heliosvfs.cli.output import MOST_DAYS, JsonOption, print_facts, print_json, print_table, progress_bar, write_file
from heliosvfs.config import Config
from heliosvfs.errors import UsageError
from heliosvfs.keyring import as_secret
from heliosvfs.reopening import Reopening

__all__ = ["app"]

app = typer.Typer(help="Read, verify, sign, export and prune the audit log of a database.", no_args_is_help=True)

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="An encrypted database with an audit log.", show_default=False)
]
SigningKeyOption = Annotated[
    Path | None, typer.Option("--signing-key", help="File of the private key that signs.", show_default=False)
]
_LARGEST = 2**63 - 1  # of SQLite's integers


def _signing_key(path: Path | None) -> SigningKey | None:
    if path is None:
        return None
    passphrase = os.environ.get("HELIOSVFS_SIGNING_PASSPHRASE")
    return SigningKey.load(path, None if passphrase is None else passphrase.encode())


def _public_key(text: str) -> VerifyingKey:
    try:
        return VerifyingKey.parse(text)
    except CheckpointError as error:
        msg = f"--public-key: {error}"
        raise UsageError(msg) from error


def _kept() -> tuple[int | None, bool]:
    """Return for how many days the configuration that was named keeps events, and whether it locks the log down.

    Raises:
        ConfigError: It can't be used.
        UsageError: It locks the log down, and keeps events for ever.
    """
    named = os.environ.get(defaults.CONFIG_VARIABLE)
    if not named:
        return None, False
    config = Config.from_file(named)
    floor, lockdown = config.audit.retention_days, config.compliance.audit_trail_lockdown
    if lockdown and floor is None:
        msg = f"{named} has audit_trail_lockdown and no audit.retention_days: it keeps events for ever"
        raise UsageError(msg)
    return floor, lockdown


def _moment(option: str, text: str | None) -> str | None:
    """Return a time as the log has it, of which it may be the beginning: times are compared as text.

    Raises:
        UsageError: It is none, or not in UTC.
    """
    if text is None:
        return None
    if not re.fullmatch(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d+)?)?)?Z?)?)?)?", text, re.ASCII):
        msg = f"{option} takes a time in UTC such as 2026-07-31 or 2026-07-31T16:30, not {text!r}"
        raise UsageError(msg)
    return text.replace(" ", "T").rstrip("Z")


def _print_events(found: list[tuple[Any, ...]], *, as_json: bool) -> None:
    if as_json:
        print_json({"events": [dict(zip(SHOWN, row, strict=True)) for row in found]})
        return
    print_table("", ["id", "when", "who", "what", "on", "rows", "SQL"], [_for_people(row) for row in found])


def _for_people(row: tuple[Any, ...]) -> list[Any]:
    event = {name: "" if value is None else value for name, value in zip(SHOWN, row, strict=True)}
    what = event["operation"] + ("" if event["success"] else ", failed") + (", rolled back" if event["rolled_back"] else "")
    when = str(event["timestamp"])[:19].replace("T", " ")
    return [event["id"], when, event["user"], what, event["target"], event["affected_rows"], event["query"]]


@app.command()
@takes_keys
def log(  # noqa: PLR0913 - the options of the command
    file: FileArgument,
    *,
    user: Annotated[str | None, typer.Option(help="Only of this user.")] = None,
    operation: Annotated[str | None, typer.Option(help="Only of this operation, such as DELETE.")] = None,
    target: Annotated[str | None, typer.Option(help="Only on this table or object.")] = None,
    event_class: Annotated[str | None, typer.Option("--class", help="Only of this class.")] = None,
    session: Annotated[str | None, typer.Option(help="Only of this session.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this time on: UTC, ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Only before this time.")] = None,
    failures: Annotated[bool, typer.Option("--failures", help="Only what failed or was denied.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.", min=1, max=_LARGEST)] = 50,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Show events, oldest first."""
    since, until = (_moment(name, text) for name, text in (("--since", since), ("--until", until)))
    filters = {
        "user": user,
        "operation": operation,
        "target": target,
        "class": event_class,
        "session": session,
        "since": since,
        "until": until,
        "failures": failures,
    }
    with open_log(file, key.source()) as connection:
        record(connection, "READ LOG", {name: value for name, value in filters.items() if value})
        _print_events(select(connection, filters, 0, limit, newest=True), as_json=as_json)


@app.command()
@takes_keys
def search(
    file: FileArgument,
    text: Annotated[str, typer.Argument(help="What the SQL with its values holds, such as a patient's number.")],
    *,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.", min=1, max=_LARGEST)] = 50,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Find the events whose SQL holds a text."""
    with open_log(file, key.source()) as connection:
        record(connection, "SEARCH LOG", {})
        _print_events(select(connection, {"text": text}, 0, limit, newest=True), as_json=as_json)


@app.command()
@takes_keys
def tail(
    file: FileArgument,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, and show events as they come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many to begin with.", min=1, max=_LARGEST)] = 10,
    key: KeyOptions,
) -> None:
    """Show the last events, a line each; with --follow wait while others lock the database, and end if its file is replaced."""
    if follow:
        tails.follow(file, as_secret(key.source()), lines)
        return
    with open_log(file, key.source()) as connection:
        record(connection, "READ LOG", {"follow": False})
        tails.show(select(connection, {}, 0, lines, newest=True))


@app.command()
@takes_keys
def verify(  # noqa: PLR0913 - the options of the command
    file: FileArgument,
    *,
    checkpoint: Annotated[Path | None, typer.Option(help="A checkpoint that was kept elsewhere.", show_default=False)] = None,
    public_key: Annotated[str | None, typer.Option(help="The verifier key of who signed it: name+hash+base64.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that a long log is divided over; 0: as many as processors.", min=0)] = 0,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Verify the chain, and against a checkpoint that nothing was cut off or rewritten; exit status 1: it does not show that."""
    trusted = None
    if checkpoint is not None:
        if public_key is None:
            msg = "--checkpoint needs --public-key: a checkpoint proves nothing unless you know who signed it"
            raise UsageError(msg)
        trusted = Checkpoint.parse(checkpoint.read_bytes(), _public_key(public_key))
    secret = as_secret(key.source())
    with open_log(file, secret) as connection:
        with progress_bar("verifying") as progress:
            many = workers or os.cpu_count() or 1
            opener = Reopening.of(file, secret)
            report = verify_log(connection, checkpoint=trusted, progress=progress, workers=many, opener=opener)
        record(connection, "VERIFY LOG", {"verdict": report.verdict, "events": report.events}, success=report.ok)
    facts: dict[str, Any] = {"verdict": report.verdict, "events": report.events, "seconds": round(report.seconds, 3)}
    if report.first_broken is not None:
        facts["first broken"] = asdict(report.first_broken)
    if report.head is not None:
        facts["head"] = f"{report.head.id} {report.head.checksum.hex()}"
    if report.notes:
        facts["notes"] = list(report.notes)
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)
    if not report.ok or (trusted is not None and report.verdict != "verified"):
        raise typer.Exit(1)


@app.command("make-key")
def make_key(
    path: Annotated[Path, typer.Argument(help="File for the private key; it must not exist.")],
    name: Annotated[str, typer.Option(help="Name of the signer, such as example.com/audit.")],
) -> None:
    """Make a key pair for signing, and print the public key; HELIOSVFS_SIGNING_PASSPHRASE encrypts the private one."""
    passphrase = os.environ.get("HELIOSVFS_SIGNING_PASSPHRASE")
    key = SigningKey.make(name)
    key.save(path, None if passphrase is None else passphrase.encode())
    typer.echo(str(key.public))


@app.command()
@takes_keys
def checkpoint(
    file: FileArgument,
    *,
    signing_key: Annotated[Path, typer.Option("--signing-key", help="File of the private key that signs.", show_default=False)],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write it to; without, it is printed.")] = None,
    key: KeyOptions,
) -> None:
    """Sign what the log has come to, once it is verified; keep the result where nobody who can write the database can."""
    signer = _signing_key(signing_key)
    assert signer is not None  # noqa: S101 - the option has no default
    with open_log(file, key.source()) as connection:
        with snapshot(connection):  # or what others append meanwhile would be signed unverified
            verify_log(connection).raise_if_broken()
            note = Checkpoint.of(connection, log_uuid(connection) or "").sign(signer)
        record(connection, "CHECKPOINT", {"signer": signer.name})
    if output is None:
        typer.echo(note.encode(), nl=False)  # bytes, here and below: whatever changes them breaks the signature
    else:
        write_file(output, note.encode(), replaces=True)


@app.command()
@takes_keys
def export(  # noqa: PLR0913 - the options of the command
    file: FileArgument,
    output: Annotated[Path, typer.Argument(help="File to write; it must not exist.", show_default=False)],
    *,
    format: Annotated[str, typer.Option(help="jsonl or csv.")] = "jsonl",  # noqa: A002 - the option's name
    compress: Annotated[bool, typer.Option("--gzip", help="Compress it.")] = False,
    after: Annotated[
        int | None,
        typer.Option(help="Only events after this id, the last of the export before.", min=0, max=_LARGEST, show_default="all"),
    ] = None,
    signing_key: SigningKeyOption = None,
    formulas: Annotated[bool, typer.Option("--raw-formulas", help="Leave what a spreadsheet takes for formulas.")] = False,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Write events to a file, with a manifest beside it: range, head, SHA-256 and signature."""
    with open_log(file, key.source()) as connection:
        if after is None:  # from where the log was pruned to, or its beginning
            pruned, first = last_prune(connection), rows(connection, f"SELECT min(id) FROM main.{LOG}")[0][0]
            after = pruned[0] if pruned is not None and first == pruned[0] + 1 else 0
        manifest = write_export(
            connection, output, format=format, compress=compress, after=after, key=_signing_key(signing_key), formulas=formulas
        )
    (print_json if as_json else print_facts)(asdict(manifest))


@app.command()
@takes_keys
def prune(  # noqa: PLR0913 - the options of the command
    file: FileArgument,
    *,
    days: Annotated[int, typer.Option(help="Events younger than so many days stay.", min=1, max=MOST_DAYS)],
    archive: Annotated[Path | None, typer.Option(help="File to move them to.", show_default=False)] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them without an archive.")] = False,
    signing_key: SigningKeyOption = None,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Move old events to an archive; the log still verifies, and says what was pruned.

    A configuration that is named (--config, HELIOSDB_CONFIG) has the last word: audit.retention_days, audit_trail_lockdown.
    """
    if (archive is None) == (not delete):
        msg = "name the --archive to move the events to, or say --delete"
        raise UsageError(msg)
    floor, lockdown = _kept()
    with open_log(file, key.source()) as connection:
        signer = _signing_key(signing_key)
        found = prune_log(connection, days=days, archive=archive, key=signer, floor=floor, lockdown=lockdown)
    facts = {"first": found.first, "last": found.last, "archive": None if found.archive is None else asdict(found.archive)}
    (print_json if as_json else print_facts)(facts)


@app.command()
def coverage(
    *,
    preset: Annotated[str, typer.Option(help="soc2, hipaa, gdpr, pci_dss, fda_21_cfr_part_11 or iec_62443.")],
    as_json: JsonOption = False,
) -> None:
    """Say what a preset does not see, and which clauses' reviewers ask for it."""
    found = [{"not seen": gap.what, "asked for by": list(gap.clauses)} for gap in gaps(Policy.preset(preset))]
    if as_json:
        print_json({"preset": preset, "gaps": found})
    else:
        print_table("", ["not seen", "asked for by"], [[gap["not seen"], ", ".join(gap["asked for by"])] for gap in found])
