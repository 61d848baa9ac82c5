"""``python -m heliosvfs.dbapi2``: what ``python -m sqlite3`` is, for encrypted databases."""

from __future__ import annotations

import argparse
import code
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

from heliosvfs import dbapi2

__all__ = ["main"]

_FAILED = 1


def _execute(cursor: Any, sql: str) -> bool:
    """Execute one statement and print its rows, or the error; tell whether it went well."""
    try:
        for row in cursor.execute(sql):
            print(row)  # noqa: T201 - a command line talks
    except dbapi2.Error as error:
        name = getattr(error, "sqlite_errorname", None)
        print(f"{type(error).__name__}{f' ({name})' if name else ''}: {error}", file=sys.stderr)  # noqa: T201
        return False
    return True


class _Console(code.InteractiveConsole):
    """Reads statements, and a few commands that begin with a dot."""

    def __init__(self, connection: dbapi2.Connection) -> None:
        super().__init__()
        self._cursor = connection.cursor()

    def runsource(self, source: str, filename: str = "<input>", symbol: str = "single") -> bool:  # noqa: ARG002 - its signature
        """Run what was read so far, and tell whether more is needed."""
        if source == ".quit":
            sys.exit(0)
        if source == ".version":
            print(dbapi2.sqlite_version)  # noqa: T201
        elif source == ".help":
            print("Type SQL, ended by a semicolon, and press enter.")  # noqa: T201
        elif not dbapi2.complete_statement(source):
            return True
        else:
            _execute(self._cursor, source)
        return False


def main(arguments: Sequence[str] | None = None) -> None:
    """Execute a statement, or read statements from the terminal; exit status 1 if the statement fails."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {'sqlite3' if 'sqlite3' in sys.modules else __package__}", description=__doc__
    )
    parser.add_argument("filename", nargs="?", default=":memory:", help="database; made if there is none (default: in memory)")
    parser.add_argument("sql", nargs="?", help="a statement whose rows are printed")
    parser.add_argument("-v", "--version", action="version", version=f"SQLite version {dbapi2.sqlite_version}")
    options = parser.parse_args(arguments)
    name = "a transient in-memory database" if options.filename == ":memory:" else repr(options.filename)
    banner = f"sqlite3 shell of heliosvfs, SQLite version {dbapi2.sqlite_version}\nConnected to {name}\n"
    with closing(dbapi2.connect(options.filename, isolation_level=None)) as connection:
        if options.sql:
            sys.exit(0 if _execute(connection, options.sql) else _FAILED)
        sys.ps1, sys.ps2 = "sqlite> ", "    ... "
        with suppress(ImportError):
            import readline  # noqa: F401, PLC0415 - edits lines where it is there
        _Console(connection).interact(f'{banner}Type ".help" for help, ".quit" to end.', exitmsg="")
    sys.exit(0)


if __name__ == "__main__":
    main()
