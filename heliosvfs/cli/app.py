"""The commands, and how errors become messages and exit statuses."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import Annotated

import apsw
import typer

import heliosvfs
from heliosaudit.errors import AuditError, AuditPolicyError, AuditWriteError
from heliosvfs import defaults
from heliosvfs.cli import audit, backups, config, databases, demo, rotation, shell, signatures, slots, subjects
from heliosvfs.cli.output import visible
from heliosvfs.cli.stopping import stopping_in_order
from heliosvfs.errors import ConfigError, HeliosError, PolicyViolationError, UsageError

__all__ = ["app", "run"]

# what is wrong with a name that was given, or with the rights of who gave it: not with a database
_OF_NAMES = {
    errno.ENOENT,
    errno.EEXIST,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EROFS,
}
_NOT_UTF_8 = (
    "a name or another argument is not valid UTF-8, and SQLite takes nothing else: a file of such a name has to be renamed"
)
_NOT_TEXT = "what should be text is not valid UTF-8: SQL or a name in the database's schema, a value, or a file that was read"

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
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal's encoding lacks, or a file's name holds, ends no command
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with stopping_in_order():
            app()
    except (UsageError, ConfigError, PolicyViolationError, AuditPolicyError) as error:
        _fail(error, 2)
    except (HeliosError, AuditError, apsw.Error) as error:
        _fail(error, 1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error, _status_of(error))
    except UnicodeEncodeError as error:  # which holds what can't be encoded, a passphrase perhaps
        if not _has_surrogates(error):
            raise
        _fail(_NOT_UTF_8, 2)
    except UnicodeDecodeError:  # which holds what was read
        _fail(_NOT_TEXT, 1)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        raise SystemExit(130) from None


def _open_missing_streams() -> None:
    """Put the null device where the caller has closed a standard stream: Python leaves None there."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        null = open(os.devnull, "r+")  # noqa: SIM115 - for the life of the process
        sys.stdin, sys.stdout, sys.stderr = sys.stdin or null, sys.stdout or null, sys.stderr or null


def _status_of(error: OSError) -> int:
    return 2 if error.errno in _OF_NAMES else 1


def _has_surrogates(error: UnicodeEncodeError) -> bool:
    """Tell whether it is about bytes that Python took for text although they are none, not about an encoding of ours."""
    return any("\udc80" <= character <= "\udcff" for character in error.object[error.start : error.end])


def _in_words(error: BaseException | str) -> str:
    """Return an error's message, with what to do where SQLite says only what happened."""
    text = visible(error)
    if isinstance(error, (HeliosError, AuditError)) or not isinstance(error, apsw.Error):
        return text
    if isinstance(error, apsw.BusyError):
        return f"{text}: another program is writing to it or keeps it for itself; try again when that is done"
    if isinstance(error, apsw.ReadOnlyError):
        return f"{text}: its file or its folder may not be written by you"
    if isinstance(error, apsw.IOError):
        return f"{text} ({apsw.mapping_extended_result_codes.get(getattr(error, 'extendedresult', 0), 'SQLITE_IOERR')})"
    return text


def _fail(error: Exception | str, status: int) -> None:
    first = error.__context__ if isinstance(error, Exception) else None
    if isinstance(error, AuditWriteError) and isinstance(first, (HeliosError, apsw.Error, OSError)):  # what came of it, at close
        sys.stderr.write(f"heliosvfs: {_in_words(first)}\n")
    sys.stderr.write(f"heliosvfs: {_in_words(error)}\n")
    raise SystemExit(status) from None
