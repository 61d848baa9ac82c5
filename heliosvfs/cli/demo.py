"""`heliosvfs demo`: what the product does, shown on a real database in a few seconds.

Each step says what it does in plain words, does it, and says what came of it. If anything does not hold the command exits with 1.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from heliosvfs.check import check
from heliosvfs.cli import configured_demo
from heliosvfs.connection import Connection
from heliosvfs.convert import VIRTUAL, encrypt, quoted
from heliosvfs.errors import HeliosError, TamperedError, UsageError, WrongKeyError
from heliosvfs.opening import connect

__all__ = ["demo"]

_PATIENTS = [
    ("Ada Lovelace", "1815-12-10", "allergic to laudanum"),
    ("Florence Nightingale", "1820-05-12", "brucellosis, chronic"),
    ("Ignaz Semmelweis", "1818-07-01", "healthy, washes his hands"),
    ("Marie Curie", "1867-11-07", "aplastic anaemia"),
    ("Rosalind Franklin", "1920-07-25", "under observation"),
]
_ENCOUNTERS = 2000
_SUPERBLOCK = 32768  # bytes before the first page (docs/FORMAT.md)
_WAL_HEADER = 32  # bytes before the first frame, of SQLite's own
_SHORTEST = 8  # bytes of a text value that can't turn up in random bytes by chance
_LONGEST = 64  # bytes of it that are looked for
_SEARCHED = 10_000_000_000  # bytes: some seconds
_WRITTEN = "written a moment ago, and still in the WAL"


class _StepFailedError(Exception):
    """Something that the demonstration claims did not hold."""


def _require(condition: object, what: str) -> None:
    if not condition:
        raise _StepFailedError(what)


def demo(
    *,
    source: Annotated[Path | None, typer.Option("--from", metavar="FILE.db", help="Use a copy of this plain database.")] = None,
    keep: Annotated[Path | None, typer.Option("--keep", metavar="DIR", help="Leave the files in this new folder.")] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="TOML", help="Make a database as this configuration says."),
    ] = None,
) -> None:
    """Show what it does: encrypt a small clinic's database, look for plaintext on disk, tamper with it, crash it, recover it."""
    began = time.monotonic()
    if config is not None:
        if source is not None:
            msg = "--from and --config show different things: name one of them"
            raise UsageError(msg)
        with _folder(keep) as folder:
            if not configured_demo.run(config, folder):
                raise typer.Exit(1)
        typer.echo(f"\nAll of that held, in {time.monotonic() - began:.1f} seconds.")
        return
    passphrase = secrets.token_urlsafe(24)
    with _folder(keep) as folder:
        path = folder / "clinic.db"
        try:
            connection = _make(path, passphrase, source)
            with contextlib.closing(connection):
                table = _show_no_plaintext(connection, folder)
                _show_crash(path, passphrase, table)
            _show_wrong_key(path)
            _show_tampering(path, passphrase)
        except _StepFailedError as error:
            typer.echo(f"   FAILED: {error}")
            raise typer.Exit(1) from None
        typer.echo(f"\nAll of that held, in {time.monotonic() - began:.1f} seconds.")
        if keep is None:
            typer.echo("The files are gone again; --keep DIR leaves them for you to look at.")
        else:
            (folder / "passphrase.txt").touch(mode=0o600)
            (folder / "passphrase.txt").write_text(passphrase)
            typer.echo(
                f"Files: {folder}. Look around with: heliosvfs shell {path} --key-file {folder / 'passphrase.txt'} --passphrase"
            )


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="heliosvfs-demo-") as folder:
            yield Path(folder)
    else:
        if os.path.lexists(keep):
            msg = f"{keep} exists already: --keep takes the name of a new folder"
            raise UsageError(msg)
        keep.mkdir(parents=True)
        try:
            yield keep
        except BaseException:
            with contextlib.suppress(OSError):  # it is not empty: what there is to look at stays
                keep.rmdir()
            raise


def _make(path: Path, passphrase: str, source: Path | None) -> Connection:
    began = time.monotonic()
    if source is not None:
        typer.echo(f"1. Encrypting a copy of {source} under a passphrase made up for this run ...")
        report = encrypt(source, path, key=passphrase)
        typer.echo(f"   {sum(report.tables.values())} rows in {len(report.tables)} tables, each proven equal to the original.")
        connection = connect(path, key=passphrase, journal_mode="wal")
    else:
        typer.echo("1. Making a clinic's database under a passphrase made up for this run ...")
        connection = connect(path, key=passphrase)
        connection.execute(
            "CREATE TABLE patient(id INTEGER PRIMARY KEY, name TEXT, born TEXT, note TEXT);"
            "CREATE TABLE encounter(id INTEGER PRIMARY KEY, patient REFERENCES patient, day TEXT, finding TEXT)"
        )
        with connection:
            connection.executemany("INSERT INTO patient(name, born, note) VALUES(?, ?, ?)", _PATIENTS)
            connection.executemany(
                "INSERT INTO encounter(patient, day, finding) VALUES(?, ?, ?)",
                (
                    (
                        n % len(_PATIENTS) + 1,
                        f"2026-{n % 12 + 1:02}-{n % 28 + 1:02}",
                        f"blood pressure {110 + n % 40} over {70 + n % 20}",
                    )
                    for n in range(_ENCOUNTERS)
                ),
            )
        typer.echo(f"   {len(_PATIENTS)} patients and {_ENCOUNTERS} encounters, in {time.monotonic() - began:.1f} seconds.")
    info = connection.get_storage_info()
    size, cipher = info["page_size"], info["encryption_algorithm"]
    typer.echo(f"   Each page of {size} bytes is sealed with {cipher}; the passphrase went through Argon2id.")
    return connection


def _texts(connection: Connection) -> list[bytes]:
    """Return how the text values of every table begin, each once, as the bytes that are stored, be they valid or not."""
    found: set[bytes] = set()
    tables = connection.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0").fetchall()
    for table in (quoted(str(name)) for (name,) in tables):
        described = connection.execute(f"PRAGMA main.table_xinfo({table})").fetchall()
        values = (
            f"CASE typeof({name}) WHEN 'text' THEN substr(CAST({name} AS BLOB), 1, {_LONGEST}) END"
            for name in (quoted(str(column)) for _, column, *_, hidden in described if hidden != VIRTUAL)
        )
        for row in connection.execute(f"SELECT {', '.join(values)} FROM main.{table} NOT INDEXED"):  # noqa: S608 - quoted names
            found.update(text for text in row if text is not None and len(text) >= _SHORTEST)
    return sorted(found)


def _forms(text: bytes, encoding: str) -> Iterator[bytes]:
    """Give what to look for: a text in its database's encoding, and in UTF-8."""
    yield text
    if encoding != "UTF-8":
        other = text.decode(encoding, "ignore").encode()
        if len(other) >= _SHORTEST:
            yield other


def _new_table(connection: Connection) -> str:
    """Return a name that nothing in the database has."""
    for name in itertools.chain(["heliosvfs_demo"], (f"heliosvfs_demo_{number}" for number in itertools.count(2))):
        if not connection.execute("SELECT count(*) FROM main.sqlite_schema WHERE name = ? COLLATE NOCASE", (name,)).get:
            return name
    raise AssertionError  # pragma: no cover - there are as many names as numbers


def _show_no_plaintext(connection: Connection, folder: Path) -> str:
    """Look for text in the files; return the table that was made for it."""
    typer.echo("\n2. Looking for plaintext on disk while the database is open, the WAL included ...")
    table = _new_table(connection)
    connection.execute(f"CREATE TABLE {table}(text)")
    connection.execute(f"INSERT INTO {table} VALUES(?)", (_WRITTEN,))
    texts = _texts(connection)
    files = [path for path in folder.iterdir() if not path.name.endswith("-shm")]
    # the headers hold no page content, and a date and numbers of their own that may be in the data too
    content = {path.name: path.read_bytes()[_SUPERBLOCK if path.name == "clinic.db" else _WAL_HEADER :] for path in files}
    every = len(texts) * sum(map(len, content.values())) // _SEARCHED + 1
    encoding = str(connection.pragma("encoding"))
    wanted = [b"SQLite format 3", *(form for text in texts[::every] for form in _forms(text, encoding))]
    leaked = {name for name, data in content.items() if any(form in data for form in wanted)}
    _require(not leaked, f"plaintext in {', '.join(sorted(leaked))}")
    _require(any(name.endswith("-wal") and data for name, data in content.items()), "the WAL is empty")
    sizes = ", ".join(f"{path.name} ({path.stat().st_size} bytes)" for path in sorted(files))
    of = f" (one in {every})" if every > 1 else ""
    typer.echo(f"   None of {len(texts[::every])} text values{of} is in any file: {sizes}.")
    return table


def _show_crash(path: Path, passphrase: str, table: str) -> None:
    typer.echo("\n3. Copying the files as they are now, as a crash would leave them, and opening the copy ...")
    crashed = path.with_name("crashed.db")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")
    with contextlib.closing(connect(crashed, key=passphrase, create=False)) as recovered:
        texts = recovered.execute(f"SELECT text FROM {table}").fetchall()  # noqa: S608 - a name of ours
    _require(texts == [(_WRITTEN,)], "the last commit is lost")
    _require(check(crashed, key=passphrase).ok, "the copy is damaged")
    typer.echo("   Recovered from the sealed WAL: the last commit is there, integrity_check says ok.")


def _show_wrong_key(path: Path) -> None:
    typer.echo("\n4. Opening it with another passphrase ...")
    _require_error(WrongKeyError, lambda: connect(path, key="not the passphrase", create=False).close())


def _show_tampering(path: Path, passphrase: str) -> None:
    typer.echo("\n5. Flipping one bit in the middle of a copy, and reading everything ...")
    tampered = path.with_name("tampered.db")
    data = bytearray(path.read_bytes())
    place = (_SUPERBLOCK + len(data)) // 2
    data[place] ^= 1
    tampered.write_bytes(data)

    def read() -> None:
        with contextlib.closing(connect(tampered, key=passphrase, create=False)) as connection:
            connection.pragma("ignore_check_constraints", True)  # noqa: FBT003 - a PRAGMA's value; they may need the application
            connection.pragma("quick_check")  # it reads all that is in use

    _require_error(TamperedError, read)
    report = check(tampered, key=passphrase)
    _require(not report.ok and len(report.bad_pages) == 1, "the check did not find exactly the one page")
    bad = report.bad_pages[0]
    typer.echo(f"   `heliosvfs check` names it: page {bad.page} at offset {bad.offset}, of {bad.owner}.")
    os.unlink(tampered)


def _require_error(kind: type[HeliosError], action: Callable[[], None]) -> None:
    try:
        action()
    except kind as error:
        typer.echo(f"   {kind.__name__}: {error}")
        return
    msg = f"there was no {kind.__name__}"
    raise _StepFailedError(msg)
