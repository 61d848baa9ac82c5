"""Run a program that uses sqlite3, unchanged, on encrypted databases, given as to Python: a script, a folder, -m or -c.

The program finds `heliosvfs.dbapi2` wherever it imports sqlite3. The key comes from the environment (`heliosvfs.defaults`):
HELIOSVFS_KEY_FILE, a file with a raw key, or HELIOSVFS_KEY, 64 hexadecimal digits. Processes that the program starts are not
concerned: start them in the same way.
"""

from __future__ import annotations

import builtins
import os
import pkgutil
import runpy
import sys
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from heliosvfs import dbapi2

__all__ = ["main", "replace_sqlite3"]

_USED_WRONGLY = 2
_USAGE = "usage: python -m heliosvfs.run [-m MODULE | -c CODE | PROGRAM] [ARGUMENT ...]\n"


def replace_sqlite3() -> None:
    """Put `heliosvfs.dbapi2` in the place of sqlite3 for whatever imports it from now on."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("sqlite3", "_sqlite3", "pysqlite3")]:
        del sys.modules[name]  # whoever has imported it keeps what it has
    for name in ("sqlite3", "pysqlite3"):  # peewee, Datasette and sqlite-utils prefer the second, where it is installed
        sys.modules[name] = sys.modules[f"{name}.dbapi2"] = dbapi2


def main(arguments: list[str] | None = None) -> int:
    """Run the program that the command line names; 2 if it names none."""
    arguments = sys.argv[1:] if arguments is None else arguments
    kind, program, rest = _read(arguments)
    if program is None:
        sys.stderr.write(_USAGE)
        sys.stderr.write(f"{(__doc__ or '').partition(chr(10))[0]}\n")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else _USED_WRONGLY
    if kind == "" and not Path(program).exists():
        sys.stderr.write(f"{program}: there is no such program\n")
        return _USED_WRONGLY
    replace_sqlite3()
    # it stays what it is when the program's last line is done: its threads, what it has left to atexit, and pickle look for it
    sys.modules["__main__"] = own = ModuleType("__main__")
    vars(own).update(__builtins__=builtins)
    sys.argv = [kind or program, *rest]
    if kind == "-m":
        _look_in(str(Path.cwd()))
        _run_module(program)
    elif kind == "-c":
        _look_in("")
        _run(compile(program, "<string>", "exec", dont_inherit=True), __loader__=BuiltinImporter)
    else:
        _run_path(program)
    return 0


def _read(arguments: list[str]) -> tuple[str, str | None, list[str]]:
    """Return how a command line names a program, -m, -c or nothing; the program, None if there is none; and its arguments."""
    first, rest = arguments[:1], arguments[1:]
    kind = first[0][:2] if first and first[0].startswith(("-m", "-c")) else ""
    if kind and first[0] != kind:
        return kind, first[0][2:], rest
    if kind or first == ["--"]:
        first, rest = rest[:1], rest[1:]
    elif first and first[0].startswith("-"):
        first = []
    return kind, first[0] if first else None, rest


def _look_in(folder: str, *, always: bool = False) -> None:
    """Have the program's imports look where they do when Python starts it, which -I and -P may forbid."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = folder
    elif always:
        sys.path.insert(0, folder)


def _run_module(name: str) -> None:
    runpy._run_module_as_main(name, alter_argv=name != "__main__")  # type: ignore[attr-defined]  # noqa: SLF001 - what -m calls


def _run_path(program: str) -> None:
    path = os.path.join(os.getcwd(), program)  # as Python has it: not made any shorter
    if pkgutil.get_importer(path) is not None:  # a folder or a zip file, with a __main__ in it
        _look_in(path, always=True)
        _run_module("__main__")
        return
    _look_in(str(Path(path).resolve().parent))
    if path.endswith(".pyc"):
        bare = SourcelessFileLoader("__main__", path)
        _run(bare.get_code("__main__"), __file__=path, __cached__=None, __loader__=bare)
    else:
        loader = SourceFileLoader("__main__", path)
        _run(loader.source_to_code(loader.get_data(path), path), __file__=path, __cached__=None, __loader__=loader)


def _run(code: CodeType | None, **names: Any) -> None:
    """Run a program's code with the names that Python gives to one."""
    own = vars(sys.modules["__main__"])
    own.update(names)
    if code is not None:
        exec(code, own)  # noqa: S102 - the program that the command line names


if __name__ == "__main__":
    sys.exit(main())
