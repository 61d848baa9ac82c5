"""`heliosvfs demo --config FILE`: a database as a configuration says, keys and all, in a folder of its own."""

from __future__ import annotations

import contextlib
from pathlib import Path

import typer

from heliosaudit.verifications import verify
from heliosvfs.audited import AuditedConnection
from heliosvfs.config import Config
from heliosvfs.connection import Connection
from heliosvfs.errors import HeliosError
from heliosvfs.opening import connect

__all__ = ["run"]

_NOTE = "brucellosis, chronic, and a note that is nowhere in the clear"


def run(file: Path, folder: Path) -> bool:
    """Make a database as a configuration says, anywhere but where it says; tell whether everything held.

    Args:
        file: The configuration.
        folder: Where the database is made.

    Raises:
        ConfigError, KeyUnavailableError, PolicyViolationError, UsageError: The configuration can't be followed here.
    """
    config = Config.from_file(file)
    path = folder / "clinic.db"
    typer.echo(f"1. Making {path} as {file} says, with the key that it names ...")
    with contextlib.closing(connect(path, config=config)) as connection:
        info = connection.get_storage_info()
        facts = ", ".join(config.origins.presets) or "no preset"
        cipher = info["encryption_algorithm"] or "nothing"
        typer.echo(f"   Sealed with {cipher}, pages of {connection.pragma('page_size')} bytes, {facts}.")
        connection.execute("CREATE TABLE patient(id INTEGER PRIMARY KEY, name TEXT, note TEXT)")
        connection.execute("INSERT INTO patient(name, note) VALUES(?, ?)", ("Florence Nightingale", _NOTE))
        rows = connection.execute("SELECT name, note FROM patient").fetchall()
        held = rows == [("Florence Nightingale", _NOTE)]
        held &= _show_audit(connection)
    held &= _show_no_plaintext(folder, is_encrypted=bool(info["encryption_enabled"]))
    held &= _show_reopening(path, config)
    return held


def _show_audit(connection: Connection) -> bool:
    typer.echo("\n2. Verifying the audit log ...")
    if not isinstance(connection, AuditedConnection) or connection.auditor is None:
        typer.echo("   The configuration has none: audit.enabled, or a preset, switches it on.")
        return True
    connection.auditor.flush()
    report = verify(connection)
    typer.echo(f"   {report.events} events, {report.verdict}.")
    return report.ok


def _show_no_plaintext(folder: Path, *, is_encrypted: bool) -> bool:
    typer.echo("\n3. Looking for the patient's note in the files ...")
    found = [path.name for path in folder.iterdir() if _NOTE.encode() in path.read_bytes()]
    if not is_encrypted:
        typer.echo(f"   It is there, in {', '.join(found)}: the configuration says encryption.enabled = false.")
        return True
    typer.echo("   It is in none." if not found else f"   FAILED: it is in {', '.join(found)}.")
    return not found


def _show_reopening(path: Path, config: Config) -> bool:
    typer.echo("\n4. Opening it again, with the key asked for once more ...")
    try:
        with contextlib.closing(connect(path, config=config, create=False)) as connection:
            held = bool(connection.execute("SELECT count(*) FROM patient").get == 1)
    except HeliosError as error:
        typer.echo(f"   FAILED: {type(error).__name__}: {error}")
        return False
    typer.echo("   The patient is there." if held else "   FAILED: the patient is gone.")
    return held
