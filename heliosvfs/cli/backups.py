"""`heliosvfs backup`, `backups` and `restore`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from heliosvfs.backup import BackupReport
from heliosvfs.backup import backup as back_up
from heliosvfs.backup import restore as restore_database
from heliosvfs.cli.keys import KeyOptions, takes_keys
from heliosvfs.cli.output import MOST_DAYS, JsonOption, print_json, print_table, progress_bar, visible
from heliosvfs.cli.recording import recorded
from heliosvfs.errors import UsageError
from heliosvfs.keys import KdfSettings
from heliosvfs.origins import backups_in
from heliosvfs.partials import require_free

__all__ = ["backup", "backups", "restore"]

FipsOption = Annotated[bool, typer.Option("--fips", help="PBKDF2 for a new passphrase, not Argon2id.")]


@takes_keys
def backup(  # noqa: PLR0913 - the options of the command
    source: Annotated[Path, typer.Argument(metavar="SRC", help="An encrypted database; it stays in use.", show_default=False)],
    dest: Annotated[
        Path, typer.Argument(metavar="DEST", help="The backup, or a folder: then it is named by the time.", show_default=False)
    ],
    *,
    retention_days: Annotated[
        float | None, typer.Option(min=0.001, max=MOST_DAYS, help="Then remove older backups beside it, never the last good one.")
    ] = None,
    fips: FipsOption = False,
    key: KeyOptions,
    new_key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Write an encrypted backup of a database in use, and prove it; under the same key unless another is named."""
    if not dest.is_dir():
        require_free(os.fspath(dest))  # before anybody types a passphrase in vain
    present, another = key.source(), new_key.source_if_given()
    settings = KdfSettings(fips_mode=True) if fips else None
    with recorded(source, present, create=False) as connection:
        with progress_bar(f"Backing up {source.name}") as progress:
            report = back_up(connection, dest, key=another, settings=settings, retention_days=retention_days, progress=progress)
        _tell(report, as_json=as_json)  # before closing, which fails where the log can't be written


def _tell(report: BackupReport, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(report))
        return
    typer.echo(
        f"{report.path}: {report.pages} pages, {report.size} bytes, every page opened again"
        f"{' and every row compared' if report.compared else ''} (SHA-256 {report.digest[:16]}…), {report.seconds:.1f} s"
    )
    _print_notes(report.notes)
    for path in report.removed:
        typer.echo(f"removed {path}: its days were over")


def _print_notes(notes: tuple[str, ...]) -> None:
    for note in notes:
        typer.echo(visible(note, keep=""))  # it holds names from the database


def backups(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with backups.", show_default=False)],
    *,
    as_json: JsonOption = False,
) -> None:
    """List the backups in a folder, as their headers describe them: without a key that is not verified."""
    if not folder.is_dir():
        msg = f"{folder} is no folder"
        raise UsageError(msg)
    found = [{"path": item.path, "of": item.source_uuid, "created": item.created.isoformat()} for item in backups_in(folder)]
    if as_json:
        print_json({"backups": found})
    else:
        print_table("Backups (not verified)", ["path", "database", "created"], [list(item.values()) for item in found])


@takes_keys
def restore(  # noqa: PLR0913 - the options of the command
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="A backup; it is not touched.", show_default=False)],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The new database; it must not exist.", show_default=False)],
    *,
    of: Annotated[str | None, typer.Option("--of", metavar="UUID", help="Refuse a backup of any other database.")] = None,
    fips: FipsOption = False,
    key: KeyOptions,
    new_key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Check a backup, copy it into a new database, and prove that one equal to it."""
    require_free(os.fspath(dest))
    present, another = key.source(), new_key.source_if_given()
    with progress_bar(f"Restoring {source.name}") as progress:
        report = restore_database(
            source,
            dest,
            key=present,
            new_key=another,
            settings=KdfSettings(fips_mode=fips),
            source_uuid=of,
            progress=progress,
        )
    if as_json:
        print_json(asdict(report))
    else:
        made = f", made {report.created}" if report.created else ""
        typer.echo(f"{report.path}: {report.pages} pages, equal to {report.backup}{made}, {report.seconds:.1f} s")
        _print_notes(report.notes)
