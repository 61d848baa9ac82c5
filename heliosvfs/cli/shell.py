"""`heliosvfs shell`: APSW's shell on an encrypted database."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import apsw.shell
import typer

from heliosaudit.schemas import is_reserved
from heliosvfs.cli.keys import KeyOptions, takes_keys
from heliosvfs.cli.recording import recorded

__all__ = ["shell"]


_KEYS = re.compile(r"key\b", re.IGNORECASE)  # PRAGMA key, rekey, hexkey, ATTACH ... KEY
_PAGE_SIZE = re.compile(r"\s*PRAGMA\s+page_size\s*=\s*([0-9]{1,9})\s*;?\s*", re.IGNORECASE)  # as `.dump` writes it


class _Shell(apsw.shell.Shell):
    """APSW's shell, which can't leave the encrypted database for a plain one by mistake.

    Attributes:
        failed: Whether something that it was to do has failed.
    """

    failed = False

    def handle_exception(self) -> None:
        """Show what failed, and note it."""
        self.failed = True
        super().handle_exception()  # type: ignore[no-untyped-call] # APSW's shell has no annotations

    def _raw_input(self, prompt: str) -> str:  # type: ignore[override] # in APSW it is the function itself
        """Read a line from the terminal; one that may hold a key is kept out of the history file."""
        line = input(prompt)
        readline = sys.modules.get("readline")
        if readline is not None and _KEYS.search(line):
            last: int = readline.get_current_history_length()
            if last and readline.get_history_item(last) == line:
                readline.remove_history_item(last - 1)
        return line

    def process_sql(self, sql: str, *arguments: Any, **options: Any) -> None:
        """Run SQL; say what an interrupt has ended, and pass over the page size that begins a dump."""
        size = _PAGE_SIZE.fullmatch(sql)
        if size is not None and not options and self._is_passed_over(int(size[1])):
            return
        was_open = self.db.in_transaction
        try:
            super().process_sql(sql, *arguments, **options)
        except KeyboardInterrupt:
            if self.interactive:
                undone = ": its transaction is rolled back" if was_open and not self.db.in_transaction else ""
                self.stderr.write(f"interrupted{undone}\n")
            raise

    def _is_passed_over(self, page_size: int) -> bool:
        """Tell whether a size can't be had, and nothing is lost by that: nothing is in the database yet."""
        names = [str(name) for (name,) in self.db.execute("SELECT DISTINCT tbl_name FROM main.sqlite_schema")]
        present = self.db.pragma("page_size")
        if page_size in (0, present) or not all(map(is_reserved, names)):
            return False
        self.stderr.write(f"-- pages of {page_size} bytes are not made: this database has pages of {present} bytes\n")
        return True

    def command_backup(self, cmd: list[str]) -> None:  # noqa: ARG002 - APSW's signature
        """.backup is refused: it would write a plain copy."""
        msg = "this would write a copy that is not encrypted: use `heliosvfs backup`, or `heliosvfs decrypt` where that is meant"
        raise self.Error(msg)

    def command_restore(self, cmd: list[str]) -> None:  # noqa: ARG002 - APSW's signature
        """.restore is refused: it would read a plain file."""
        msg = "this reads plain databases only: use `heliosvfs restore` for a backup, or `heliosvfs encrypt` for a plain file"
        raise self.Error(msg)

    def command_open(self, cmd: list[str]) -> None:  # noqa: ARG002 - APSW's signature
        """.open is refused: the database it would open has another key, or none."""
        msg = "heliosvfs shell stays with its database: start another shell for another file"
        raise self.Error(msg)


@takes_keys
def shell(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An encrypted database.", show_default=False)],
    sql: Annotated[list[str] | None, typer.Argument(metavar="[SQL]...", help="Run these and exit.", show_default=False)] = None,
    *,
    create: Annotated[bool, typer.Option("--create", help="Create the database if it does not exist.")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="Open it as this says.", show_default=False)] = None,
    key: KeyOptions,
) -> None:
    """Work on a database with SQL and dot commands (`.help` lists them); without a terminal, from standard input.

    In a database with an audit log all of it is recorded.
    """
    chosen = key.source(new=create and not file.exists()) if config is None or key.is_given else None
    with recorded(file, chosen, create=create, config=config) as connection:
        session = _Shell(db=connection, stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr)
        try:
            if not sql:
                session.cmdloop()  # type: ignore[no-untyped-call] # APSW's shell has no annotations
                if session.failed and not sys.stdin.isatty():
                    raise typer.Exit(1)
                return
            for statement in sql:
                if statement.startswith("."):
                    session.process_command(statement)  # type: ignore[no-untyped-call] # the same
                else:
                    session.process_sql(statement if apsw.complete(statement) else f"{statement};")
        except session.Error as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None
