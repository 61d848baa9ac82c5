"""What the commands print or write: tables, JSON, files of their own, and a progress bar for what takes longer than a second."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

__all__ = [
    "MOST_DAYS",
    "JsonOption",
    "as_json",
    "print_facts",
    "print_json",
    "print_table",
    "progress_bar",
    "visible",
    "write_file",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
MOST_DAYS = 36_500  # that an option takes: a date before the year 1 could not be computed
_WIDE = 1000  # columns of a line that no terminal shows
_PATIENCE = 1.0  # seconds before a progress bar appears


def as_json(document: Any) -> str:
    """Return a document as JSON, its characters escaped where the output's encoding may lack them."""
    return json.dumps(document, indent=2, ensure_ascii=not (sys.stdout.encoding or "").lower().startswith("utf"))


def print_json(document: dict[str, Any]) -> None:
    """Print a JSON document."""
    typer.echo(as_json(document))


def visible(value: object, keep: str = "\n\t") -> str:
    """Return a value as text in which nothing can move a terminal's cursor, reorder a line, or hide.

    Args:
        value: What is shown.
        keep: Control characters that stay as they are.
    """
    return "".join(
        character if character.isprintable() or character in keep else character.encode("unicode_escape").decode()
        for character in str(value)
    )


def write_file(path: Path, content: bytes, *, replaces: bool) -> None:
    """Write a file as a whole: if that fails, what was there is as it was.

    Args:
        path: The file, or a device.
        content: What shall be in it.
        replaces: Whether it may take the place of another.

    Raises:
        FileExistsError: There is a file, and it may not be replaced.
        OSError: It can't be written; the error names it.
    """
    where = Path(os.path.realpath(path)) if replaces else path  # a link that leads nowhere is there, too
    if replaces and where.exists() and not where.is_file():
        path.write_bytes(content)
        return
    written = where.with_name(f".{where.name}.{secrets.token_hex(4)}") if replaces else where
    file = written.open("xb")
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replaces:
            os.replace(written, where)
    except BaseException as error:
        written.unlink()
        if isinstance(error, OSError):
            error.filename = error.filename or os.fspath(path)
        raise


def print_facts(facts: dict[str, Any]) -> None:
    """Print names and values in two columns."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in facts.items():
        table.add_row(Text(visible(name), style="bold"), Text(visible(value)))
    _console().print(table)


def print_table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")  # nothing is cut off
    for row in rows:
        table.add_row(*(Text(visible(value)) for value in row))  # as text: rich takes [x] in a string for markup
    _console().print(table)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function of work done and work in all, which shows a bar on standard error once a second has passed."""
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task: TaskID | None = None

    def report(done: int, total: int) -> None:
        nonlocal task
        if task is None:
            if time.monotonic() - began < _PATIENCE:
                return
            bar.start()
            task = bar.add_task(what, total=total)
        bar.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        if task is not None:
            bar.stop()
