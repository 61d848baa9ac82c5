"""`heliosvfs encrypt`, `decrypt`, `info`, `check` and `salvage`."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import apsw
import typer

from heliosvfs.check import check as check_database
from heliosvfs.cli.keys import KeyOptions, takes_keys
from heliosvfs.cli.output import JsonOption, print_facts, print_json, print_table, progress_bar, visible
from heliosvfs.connection import KeySlot
from heliosvfs.convert import ConvertReport
from heliosvfs.convert import decrypt as decrypt_database
from heliosvfs.convert import encrypt as encrypt_database
from heliosvfs.errors import UsageError
from heliosvfs.keys import KdfSettings
from heliosvfs.opening import open_untouched, require_regular
from heliosvfs.partials import require_free
from heliosvfs.salvage import salvage as salvage_database
from heliosvfs.vfs import files_of

__all__ = ["check", "decrypt", "encrypt", "info", "salvage"]

_FOUND_SOMETHING = 1

SourceArgument = Annotated[
    Path, typer.Argument(metavar="IN", help="The database to copy; it is not touched.", show_default=False)
]
DestArgument = Annotated[Path, typer.Argument(metavar="OUT", help="The copy; it must not exist.", show_default=False)]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="An encrypted database.", show_default=False)]


@takes_keys
def encrypt(  # noqa: PLR0913 - the options of the command
    source: SourceArgument,
    dest: DestArgument,
    page_size: Annotated[int | None, typer.Option(help="Bytes of a page of the copy; the source's unless given.")] = None,
    *,
    fips: Annotated[bool, typer.Option("--fips", help="Derive keys from passphrases with PBKDF2, not Argon2id.")] = False,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Make an encrypted copy of a plain SQLite database, proven equal to it."""
    require_free(os.fspath(dest))  # before anybody types a passphrase in vain
    chosen = key.new_source()
    with progress_bar(f"Encrypting {source.name}") as progress:
        report = encrypt_database(
            source, dest, key=chosen, page_size=page_size, settings=KdfSettings(fips_mode=fips), progress=progress
        )
    _print_conversion(report, as_json=as_json)


@takes_keys
def decrypt(
    source: SourceArgument,
    dest: DestArgument,
    *,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Make a plain copy of an encrypted database, proven equal to it. Whoever can read the copy can read the data."""
    require_free(os.fspath(dest))  # before anybody types a passphrase in vain
    chosen = key.source()
    with progress_bar(f"Decrypting {source.name}") as progress:
        report = decrypt_database(source, dest, key=chosen, progress=progress)
    _print_conversion(report, as_json=as_json)


def _print_conversion(report: ConvertReport, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(report))
        return
    rows = sum(report.tables.values())
    typer.echo(
        f"{report.dest}: {rows} rows in {len(report.tables)} tables, {report.pages} pages of {report.page_size} bytes, "
        f"equal to {report.source} (SHA-256 {report.digest[:16]}…), {report.seconds:.1f} s"
    )


@takes_keys
def info(
    file: FileArgument,
    *,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Show what the header of a database says; without a key it can't be verified, and says so."""
    if not file.exists():
        msg = f"{file} does not exist"
        raise UsageError(msg)
    require_regular(os.fspath(file))
    if key.is_given:
        connection: apsw.Connection = open_untouched(file, key=key.source())
    else:
        connection = apsw.Connection(os.fspath(file), flags=apsw.SQLITE_OPEN_READONLY, vfs="heliosvfs")
    with contextlib.closing(connection):
        database = files_of(connection)[0]
        if database.access.is_empty:
            raise database.access.nothing_in_it()
        superblock = database.access.superblock
        facts: dict[str, Any] = {
            "file": os.fspath(file),
            "verified": key.is_given,
            "format_version": 1,
            "uuid": superblock.uuid,
            "created": superblock.created,
            "page_size": superblock.page_size,
            "pages": superblock.layout.logical_size(file.stat().st_size) // superblock.page_size,
            "cipher": superblock.epoch.cipher,
            "updates": superblock.sequence,
            "slots": [asdict(KeySlot.of(slot)) for slot in superblock.slots],
            "epochs": [{"id": epoch.id, "cipher": epoch.cipher, "created": epoch.created} for epoch in superblock.epochs],
        }
    if as_json:
        print_json(facts)
        return
    slots, epochs = facts.pop("slots"), facts.pop("epochs")
    facts["verified"] = (
        "yes: the HMAC is right" if key.is_given else "no: that takes a key (--key-file, --key-env, --key-command)"
    )
    print_facts(facts)
    print_table("Key slots", ["label", "created", "kdf", "parameters", "last used"], [list(slot.values()) for slot in slots])
    print_table("Epochs", ["id", "cipher", "created"], [list(epoch.values()) for epoch in epochs])


@takes_keys
def check(
    file: FileArgument,
    *,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Check that every page, WAL frame and journal record authenticates, then run SQLite's integrity_check."""
    chosen = key.source()
    with progress_bar(f"Checking {file.name}") as progress:
        report = check_database(file, key=chosen, progress=progress)
    if as_json:
        print_json({"ok": report.ok, **asdict(report)})
    else:
        print_facts(
            {
                "pages": report.pages,
                "WAL": f"{report.wal_frames} committed frames, {report.wal_leftover} left over",
                "journal": f"hot, {report.journal_records} records" if report.hot_journal else "none to roll back",
                "integrity_check": f"not run: {report.unchecked}"
                if report.unchecked
                else "; ".join(report.integrity) or ("ok as far as it could look" if report.missing else "ok"),
            }
        )
        if report.bad_pages:
            rows = [[p.page, p.offset, p.owner, p.harmless or f"DAMAGED: {p.why}"] for p in report.bad_pages]
            print_table("Pages that fail authentication", ["page", "offset", "belongs to", "verdict"], rows)
        for line in (*report.problems, *report.notes):
            typer.echo(visible(line, keep=""))  # it may hold names from the database
        well = "every page is as it was written" if report.missing else "all is well"
        typer.echo(f"{file}: {well}" if report.ok else f"{file}: damaged; `heliosvfs salvage` saves what can be read")
    if not report.ok:
        raise typer.Exit(_FOUND_SOMETHING)


@takes_keys
def salvage(
    damaged: Annotated[
        Path, typer.Argument(metavar="DAMAGED", help="The damaged database; it is not touched.", show_default=False)
    ],
    dest: DestArgument,
    *,
    key: KeyOptions,
    new_key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Save everything that still authenticates into a new encrypted database, under the same key unless another is named."""
    require_free(os.fspath(dest))  # before anybody types a passphrase in vain
    present, another = key.source(), new_key.source_if_given()
    with progress_bar(f"Salvaging {damaged.name}") as progress:
        report = salvage_database(damaged, dest, key=present, dest_key=another, progress=progress)
    if as_json:
        print_json({"complete": report.complete, **asdict(report)})
    else:
        print_table("Rows saved", ["table", "rows"], [[name, rows] for name, rows in report.tables.items()])
        for line in (*report.problems, *report.notes):
            typer.echo(visible(line, keep=""))  # it may hold names from the database
        for name, rows in report.missing.items():
            typer.echo(f"{name}: {'an unknown number of' if rows is None else rows} rows are missing")
        typer.echo(
            f"{dest}: {sum(report.tables.values())} rows saved, {report.lost_and_found} more without their table, "
            f"{len(report.damaged_pages)} of {report.pages} pages could not be read"
        )
    if not report.complete:
        raise typer.Exit(_FOUND_SOMETHING)
