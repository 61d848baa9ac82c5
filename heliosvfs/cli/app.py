"""The commands, and how errors become messages and exit statuses."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import apsw
import typer

import heliosvfs
from heliosaudit.errors import AuditError, AuditPolicyError, AuditWriteError
from heliosvfs import defaults
from heliosvfs.cli import audit, backups, config, databases, demo, rotation, shell, signatures, slots, subjects
from heliosvfs.errors import ConfigError, HeliosError, PolicyViolationError, UsageError

__all__ = ["app", "run"]

app = typer.Typer(
    name="heliosvfs",
    help="Look after encrypted SQLite databases. Keys come from a prompt, a file, the environment or a command, "
    "never from an argument.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo.demo)
app.command()(databases.encrypt)
app.command()(databases.decrypt)
app.command()(databases.info)
app.command()(databases.check)
app.command()(databases.salvage)
app.command()(shell.shell)
app.add_typer(slots.app, name="key")
app.add_typer(audit.app, name="audit")
app.add_typer(config.app, name="config")
app.add_typer(subjects.app, name="gdpr")
app.add_typer(signatures.signer, name="signer")
app.add_typer(signatures.signature, name="signature")
app.command()(rotation.rotate)
app.command()(rotation.fips)
app.command()(backups.backup)
app.command()(backups.backups)
app.command()(backups.restore)


def _version(value: bool) -> None:  # noqa: FBT001 - typer's callback
    if value:
        typer.echo(f"heliosvfs {heliosvfs.__version__}, APSW {apsw.apsw_version()}, SQLite {apsw.sqlite_lib_version()}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[  # noqa: ARG001 - its callback has acted on it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show versions and exit.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="TOML", help=f"A configuration that names the key; also {defaults.CONFIG_VARIABLE}."),
    ] = None,
) -> None:
    """Look after encrypted SQLite databases."""
    if config is not None:
        os.environ[defaults.CONFIG_VARIABLE] = str(config)


def run() -> None:
    """Run the command line; an error of ours is one message on standard error, never a traceback."""
    _open_missing_streams()
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _stop)
    try:
        app()
    except (UsageError, ConfigError, PolicyViolationError, AuditPolicyError) as error:
        _fail(error, 2)
    except (HeliosError, AuditError, apsw.Error, OSError) as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        raise SystemExit(130) from None


def _open_missing_streams() -> None:
    """Put the null device where the caller has closed a standard stream: Python leaves None there."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        null = open(os.devnull, "r+")  # noqa: SIM115 - for the life of the process
        sys.stdin, sys.stdout, sys.stderr = sys.stdin or null, sys.stdout or null, sys.stderr or null


def _stop(number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that what is half-made, plain text perhaps, is removed."""
    sys.stderr.write("\nstopped\n")
    raise SystemExit(128 + number)


def _fail(error: Exception, status: int) -> None:
    first = error.__context__
    if isinstance(error, AuditWriteError) and isinstance(first, (HeliosError, apsw.Error, OSError)):  # what came of it, at close
        sys.stderr.write(f"heliosvfs: {first}\n")
    sys.stderr.write(f"heliosvfs: {error}\n")
    raise SystemExit(status) from None
