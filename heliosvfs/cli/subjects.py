"""`heliosvfs gdpr`: what people may ask for, as a configuration declares where their data is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from heliosvfs.cli.output import JsonOption, as_json, print_facts, print_json, print_table
from heliosvfs.compliance.consents import consents_of
from heliosvfs.compliance.subjects import ErasureReport
from heliosvfs.embedded import EmbeddedDatabase
from heliosvfs.errors import UsageError
from heliosvfs.opening import connect

__all__ = ["app"]

app = typer.Typer(help="Export, erase and expire personal data; keep a log of consents.", no_args_is_help=True)

ConfigOption = Annotated[Path, typer.Option("--config", metavar="TOML", help="The configuration, with its key and [gdpr].")]
DatabaseOption = Annotated[Path | None, typer.Option("--database", help="The database; without it, that of the configuration.")]
SubjectArgument = Annotated[str, typer.Argument(help="The subject's identifier.")]
ReasonOption = Annotated[str, typer.Option(help="Why: the request, or the clause. It is recorded, so it names nobody.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Don't ask.")]


def _open(config: Path, database: Path | None) -> EmbeddedDatabase:
    return EmbeddedDatabase(connect(database, config=config, create=False))


@app.command()
def export(subject: SubjectArgument, *, config: ConfigOption, database: DatabaseOption = None) -> None:
    """Print all data of a subject as JSON (GDPR 15, 20)."""
    with _open(config, database) as opened:
        typer.echo(as_json(opened.export_subject(subject)))


@app.command()
def erase(  # noqa: PLR0913 - the options of the command
    subject: SubjectArgument,
    *,
    config: ConfigOption,
    reason: ReasonOption,
    database: DatabaseOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Erase a subject's data, as the configuration says of each table (GDPR 17)."""
    _confirm("erase", yes=yes)
    with _open(config, database) as opened:
        _print(opened.erase_subject(subject, reason=reason), as_json=as_json)


@app.command()
def anonymise(  # noqa: PLR0913 - the options of the command
    subject: SubjectArgument,
    *,
    config: ConfigOption,
    reason: ReasonOption,
    database: DatabaseOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Overwrite a subject's personal columns, and keep the rows."""
    _confirm("overwrite", yes=yes)
    with _open(config, database) as opened:
        _print(opened.anonymise_subject(subject, reason=reason), as_json=as_json)


def _confirm(what: str, *, yes: bool) -> None:
    if yes:
        return
    try:
        sure = typer.confirm(f"This will {what} the subject's data for good. Go on?")
    except typer.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise
        msg = "nobody answered, and nothing was done: --yes says that you are sure"
        raise UsageError(msg) from None
    if not sure:
        raise typer.Abort


def _print(report: ErasureReport, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(report))
        return
    facts: dict[str, Any] = {f"deleted from {table}": count for table, count in report.deleted.items()}
    facts |= {f"overwritten in {table}": count for table, count in report.anonymised.items()}
    facts |= {f"kept in {table}": f"{count}: {reason}" for table, (count, reason) in report.kept.items()}
    facts["values erased from the audit log"] = report.audit_values
    print_facts(facts)
    for note in report.notes:
        typer.echo(f"Note: {note}.")


@app.command()
def consent(  # noqa: PLR0913 - the options of the command
    subject: SubjectArgument,
    purpose: Annotated[str, typer.Argument(help='What it is for: "newsletter".')],
    *,
    config: ConfigOption,
    withdrawn: Annotated[bool, typer.Option("--withdrawn", help="It was taken back.")] = False,
    text_version: Annotated[str, typer.Option(help="Which text was agreed to.")] = "",
    database: DatabaseOption = None,
) -> None:
    """Record that a subject gave a consent, or withdrew it (GDPR 7)."""
    with _open(config, database) as opened:
        made = opened.record_consent(subject, purpose, given=not withdrawn, text_version=text_version)
    typer.echo(f"Recorded as entry {made.id}.")


@app.command()
def consents(
    subject: SubjectArgument, *, config: ConfigOption, database: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """Show what a subject agreed to, and took back."""
    with _open(config, database) as opened:
        found = consents_of(opened.connection, subject)
    if as_json:
        print_json({"consents": [one.as_dict() for one in found]})
        return
    rows = [
        [one.id, one.time, one.purpose, "given" if one.given else "withdrawn", one.text_version, one.recorded_by] for one in found
    ]
    print_table("", ["entry", "when", "purpose", "consent", "text", "recorded by"], rows)


@app.command()
def expire(
    *,
    config: ConfigOption,
    database: DatabaseOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and delete nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete rows that are older than the configuration lets them be (GDPR 5(1)(e)); for cron."""
    with _open(config, database) as opened:
        found = opened.expire(dry_run=dry_run)
    if as_json:
        print_json({"expired": [asdict(one) for one in found]})
        return
    print_table("", ["table", "rows", "no time, kept"], [[one.table, one.rows, one.unreadable] for one in found])
