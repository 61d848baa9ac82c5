"""Run a program that uses sqlite3, unchanged, on encrypted databases: ``python -m heliosvfs.run [-m] PROGRAM [ARGUMENT ...]``.

The program finds `heliosvfs.dbapi2` wherever it imports sqlite3. The key comes from the environment (`heliosvfs.defaults`):
HELIOSVFS_KEY_FILE, a file with a raw key, or HELIOSVFS_KEY, 64 hexadecimal digits. Processes that the program starts are not
concerned: start them in the same way.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from heliosvfs import dbapi2

__all__ = ["main", "replace_sqlite3"]

_USED_WRONGLY = 2


def replace_sqlite3() -> None:
    """Put `heliosvfs.dbapi2` in the place of sqlite3 for whatever imports it from now on."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("sqlite3", "_sqlite3", "pysqlite3")]:
        del sys.modules[name]  # whoever has imported it keeps what it has
    for name in ("sqlite3", "pysqlite3"):  # peewee, Datasette and sqlite-utils prefer the second, where it is installed
        sys.modules[name] = sys.modules[f"{name}.dbapi2"] = dbapi2


def main(arguments: list[str] | None = None) -> int:
    """Run the program that the command line names; 2 if it names none."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_module = arguments[:1] == ["-m"]
    program = arguments[as_module : as_module + 1]
    if not program or program[0].startswith("-"):
        sys.stderr.write("usage: python -m heliosvfs.run [-m] PROGRAM [ARGUMENT ...]\n")
        sys.stderr.write(f"{(__doc__ or '').partition(chr(10))[0]}\n")
        return 0 if program in (["-h"], ["--help"]) else _USED_WRONGLY
    replace_sqlite3()
    sys.argv = [*program, *arguments[as_module + 1 :]]
    if as_module:
        sys.path[0] = str(Path.cwd())
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
    elif Path(program[0]).exists():
        sys.path[0] = str(Path(program[0]).resolve().parent)
        runpy.run_path(program[0], run_name="__main__")
    else:
        sys.stderr.write(f"{program[0]}: there is no such program\n")
        return _USED_WRONGLY
    return 0


if __name__ == "__main__":
    sys.exit(main())
