"""`heliosvfs rotate` and `heliosvfs fips`."""

from __future__ import annotations

import errno
import getpass
import os
import stat
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import apsw
import typer

from heliosaudit.errors import AuditError
from heliosvfs import fips as fips_mode
from heliosvfs.cli.keys import KeyOptions, takes_keys
from heliosvfs.cli.output import MOST_DAYS, JsonOption, print_facts, print_json, print_table, progress_bar
from heliosvfs.cli.recording import recorded
from heliosvfs.errors import HeliosError, UsageError
from heliosvfs.keyring import Key, as_secret
from heliosvfs.keysources import KeyFile
from heliosvfs.recovery_keys import parse
from heliosvfs.rotation import RotationReport
from heliosvfs.rotation_dates import due, rotate_if_due
from heliosvfs.superblock import MAGIC

__all__ = ["fips", "rotate"]

_FOUND_SOMETHING = 1
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO)

KeepKeyFilesOption = Annotated[
    list[Path] | None, typer.Option("--keep-key-file", help="With --master: key file whose slot is kept; may be given again.")
]
KeepPassphraseFilesOption = Annotated[
    list[Path] | None,
    typer.Option("--keep-passphrase-file", help="With --master: file with a passphrase whose slot is kept; may be given again."),
]


@takes_keys
def rotate(  # noqa: PLR0913 - the options of the command
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="An encrypted database.", show_default=False)] = None,
    *,
    folder: Annotated[Path | None, typer.Option("--due", metavar="DIR", help="Rotate what is due in this folder.")] = None,
    interval_days: Annotated[
        float, typer.Option(min=0.001, max=MOST_DAYS, help="With --due: days that a data key may be used.")
    ] = 90.0,
    master: Annotated[bool, typer.Option("--master", help="New master key too: only presented keys keep opening it.")] = False,
    keep_key_file: KeepKeyFilesOption = None,
    keep_passphrase_file: KeepPassphraseFilesOption = None,
    keep_recovery_key: Annotated[
        bool, typer.Option("--keep-recovery-key", help="With --master: ask for a recovery key.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0.0, max=86_400, help="Seconds to wait for writers, and for readers.")] = 30.0,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Seal a database anew under a fresh data key while it is in use, and remove the old key."""
    if (file is None) == (folder is None):
        msg = "name one database, or a folder with --due"
        raise UsageError(msg)
    kept = [*(KeyFile(path) for path in keep_key_file or ()), *(KeyFile(p, passphrase=True) for p in keep_passphrase_file or ())]
    if (kept or keep_recovery_key) and not master:
        msg = "--keep-... names keys that --master shall spare"
        raise UsageError(msg)
    chosen = key.source()
    if folder is not None:
        if master:
            msg = "--due replaces data keys; a master key is replaced for one database at a time"
            raise UsageError(msg)
        _rotate_due(folder, chosen, interval_days, as_json=as_json)
        return
    assert file is not None  # noqa: S101 - one of the two is there
    keep: list[Key] = [*kept, *([_ask_recovery_key()] if keep_recovery_key else [])]
    with recorded(file, chosen, create=False) as connection:
        with progress_bar(f"Rotating {file.name}") as progress:
            report = connection.rotate(master=master, keep=keep, busy_timeout=timeout, progress=progress)
        if as_json:  # before closing, which fails where the log can't be written
            print_json(asdict(report))
        else:
            typer.echo(_in_words(report))


def _ask_recovery_key() -> Key:
    return parse(getpass.getpass("Recovery key: ") if sys.stdin.isatty() else sys.stdin.readline())


def _in_words(report: RotationReport) -> str:
    lines = [f"{report.path}: {report.pages} pages are under the data key of epoch {report.epoch}, {report.seconds:.1f} s"]
    if report.resumed:
        lines.append("an interrupted rotation was finished")
    if report.revoked_slots:
        lines.append(f"new master key; these keys open it no longer: {', '.join(report.revoked_slots)}")
    if report.removed_epochs:
        lines.append(f"removed: the keys of epoch {', '.join(map(str, report.removed_epochs))}")
    return "; ".join(lines)


def _rotate_due(folder: Path, key: Key, interval_days: float, *, as_json: bool) -> None:
    if not folder.is_dir():
        msg = f"{folder} is no folder"
        raise UsageError(msg)
    secret = as_secret(key)
    found = [_rotate_one(path, secret, interval_days) for path in sorted(folder.iterdir()) if _may_be_database(path)]
    if as_json:
        print_json({"databases": found})
    else:
        rows = [[entry["path"], entry["outcome"], entry.get("due", "")] for entry in found]
        print_table(f"Data keys older than {interval_days:g} days", ["database", "outcome", "due"], rows)
    if any(entry["failed"] for entry in found):
        raise typer.Exit(_FOUND_SOMETHING)


def _rotate_one(path: Path, key: Key, interval_days: float) -> dict[str, Any]:
    """Rotate one database if it is due; whatever goes wrong with it does not keep the others waiting."""
    try:
        with (
            recorded(path, key, create=False) as connection,
            progress_bar(f"Rotating {path.name}") as progress,
        ):
            report = rotate_if_due(connection, interval_days, progress=progress)
            next_due = due(connection, interval_days).due.isoformat()
    except UnicodeEncodeError:
        return {"path": str(path), "outcome": "SQLite opens no file whose name is not valid UTF-8: rename it", "failed": True}
    except (HeliosError, AuditError, apsw.Error, OSError) as error:
        return {"path": str(path), "outcome": str(error), "failed": True}
    outcome = "not due" if report is None else f"rotated to epoch {report.epoch}"
    return {"path": str(path), "outcome": outcome, "due": next_due, "failed": False}


def _may_be_database(path: Path) -> bool:
    """Tell whether a file begins like one of ours; nobody's locks are lost, because this process has none of them open.

    One that can't be read counts: that a key is due and was not replaced is never passed over.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:  # else a link that leads nowhere, or a file that was removed meanwhile
        return error.errno in _UNREADABLE


def fips(*, as_json: JsonOption = False) -> None:
    """Say whether all cryptography is done by FIPS providers; exit status 1 if not (docs/FIPS.md)."""
    status = fips_mode.status()
    facts = {**asdict(status), "validated_modules": status.validated_modules}
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)
        typer.echo(
            status.explain() or "all cryptography is done by FIPS providers; their certificates say whether they are validated"
        )
    if not status.validated_modules:
        raise typer.Exit(_FOUND_SOMETHING)
