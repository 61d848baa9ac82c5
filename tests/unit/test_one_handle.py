"""No code of ours opens a database, WAL or journal a second time: POSIX locks of a process die with any close of the file.

Under BEGIN EXCLUSIVE an `open(path).read()` of the same process would hand the lock to another one. So whatever could open a file
is forbidden, called or merely mentioned, but for the places here, each with its reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "heliosvfs"
ALLOWED = {
    ("keysources/files.py", "open"): "reads key files",
    ("keysources/vault.py", "read_text"): "reads wrapped keys",
    ("memory.py", "mmap.mmap"): "memory for keys, of no file",
    ("memory.py", "ctypes.CDLL"): "mlock and the like, which take no file",
    ("keysources/pkcs11.py", "open"): "opens a session with a token",
    ("partials.py", "os.open"): "syncs a file that no connection has open yet, and its folder",
    ("cli/rotation.py", "open"): "looks at the first bytes of files before any connection has them open",
    ("cli/audit.py", "read_bytes"): "reads a checkpoint, which is a file of its own",
    ("cli/output.py", "open"): "writes checkpoints and configurations, which are files of their own",
    ("cli/output.py", "write_bytes"): "writes them to a device",
    ("cli/app.py", "open"): "opens the null device",
    ("dbapi2/__init__.py", "getattr of a computed name"): "hands on SQLite's constants by name",
    ("dbapi2/adapters.py", "getattr of a computed name"): "asks a protocol, as sqlite3 does",
    ("dbapi2/callbacks.py", "getattr of a computed name"): "calls the methods of an aggregate by name",
    ("activity.py", "os.open"): "writes the activity log, which is no database",
    ("config/reading.py", "open"): "reads configurations",
    ("config/completions.py", "getattr of a computed name"): "asks a section for an option by name",
    ("config/configs.py", "getattr of a computed name"): "the same",
    ("config/keys.py", "getattr of a computed name"): "the same",
    ("config/policies.py", "getattr of a computed name"): "the same, of a policy",
    ("config/sections.py", "getattr of a computed name"): "the same",
    ("embedded.py", "getattr of a computed name"): "the same",
    ("django/clients.py", "os.fdopen"): "a pipe, by which the shell gets the key",
    ("run.py", "runpy._run_module_as_main"): "runs the program that it is asked to run",
    ("run.py", "exec"): "the same",
    ("run.py", "compile"): "compiles the text of its -c",
    ("run.py", "builtins under another name"): "has the program see its __builtins__ as it does when Python starts it",
    ("cli/configured_demo.py", "read_bytes"): "looks for plaintext in files that are closed",
    ("cli/demo.py", "read_bytes"): "looks for plaintext in files that nobody else uses",
    ("cli/demo.py", "write_bytes"): "damages its own copy",
    ("cli/demo.py", "touch"): "makes the passphrase file that --keep asks for",
    ("cli/demo.py", "write_text"): "writes it",
    ("cli/demo.py", "shutil.copy"): "copies its own files as a crash would leave them",
}
BUILTINS = {"open", "eval", "exec", "compile", "__import__", "__builtins__"}
MODULES = {  # what opens a file in them; "*" is everything
    "os": {"open", "fdopen", "popen", "truncate", "mkfifo"},
    "posix": {"*"},
    "nt": {"*"},
    "io": {"open", "open_code", "FileIO"},
    "_io": {"*"},
    "_pyio": {"*"},
    "builtins": {"*"},
    "codecs": {"open", "EncodedFile"},
    "shutil": {"copy", "copy2", "copyfile", "copytree", "move", "make_archive", "unpack_archive"},
    "mmap": {"mmap"},
    "fileinput": {"*"},
    "linecache": {"*"},
    "tokenize": {"open"},
    "gzip": {"*"},
    "bz2": {"*"},
    "lzma": {"*"},
    "zipfile": {"*"},
    "tarfile": {"*"},
    "dbm": {"*"},
    "shelve": {"*"},
    "sqlite3": {"*"},
    "importlib": {"import_module", "__import__"},
    "runpy": {"*"},
    "ctypes": {"CDLL", "PyDLL", "pythonapi", "cdll", "pydll"},
}
METHODS = {"open", "read_bytes", "read_text", "write_bytes", "write_text", "touch"}  # of a Path, whatever its variable is called
ATTRIBUTES = {*METHODS, *(name for names in MODULES.values() for name in names if name != "*")}
UNSEALERS = {"vfs/journal.py", "vfs/page_io.py", "vfs/temporary.py", "vfs/wal.py"}  # `self._opener.open` unseals bytes there
FILES = sorted(ROOT.rglob("*.py"))


def forbids(module: str, name: str) -> bool:
    """Tell whether a name of a module could open a file."""
    return bool(MODULES.get(module, set()) & {name, "*"})


def imports_in(tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Give each import as the name that it binds, the module, and what of the module ("": the module itself)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname or alias.name.split(".")[0], alias.name if alias.asname else alias.name.split(".")[0], "")
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield (alias.asname or alias.name, node.module or "", alias.name)


def openers_in(tree: ast.AST, name: str) -> set[str]:
    """Collect what could open a file, under whatever name it was imported."""
    modules = {}
    found = set()
    for bound, module, what in imports_in(tree):
        if not what or f"{module}.{what}" in MODULES:
            modules[bound] = f"{module}.{what}" if what else module
        elif forbids(module, what) or (what == "*" and module in MODULES):
            found.add(f"{module}.{what}")
    owners = set(owners_in(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if node.id in BUILTINS and isinstance(node.ctx, ast.Load):
                found.add(node.id)
            elif node.id in modules and node not in owners and modules[node.id] in MODULES:
                found.add(f"{modules[node.id]} under another name")
        elif isinstance(node, ast.Attribute):
            module = modules.get(node.value.id, "") if isinstance(node.value, ast.Name) else ""
            if module in MODULES:
                if forbids(module, node.attr) or node.attr.startswith("__"):
                    found.add(f"{module}.{node.attr}")
            elif node.attr in METHODS and not (name in UNSEALERS and unseals(node)):
                found.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "attrgetter"):
            found.update(hidden_in(node))
    return found


def owners_in(tree: ast.AST) -> Iterator[ast.expr]:
    """Give the expressions whose attribute is reached: a module that is used so is not handed on as a whole."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            yield node.args[0]


def hidden_in(call: ast.Call) -> Iterator[str]:
    """Give the attributes that a getattr() could reach: the one that it names, or any where that is computed."""
    names = call.args[1:2] if isinstance(call.func, ast.Name) and call.func.id == "getattr" else call.args
    for argument in names:
        if not isinstance(argument, ast.Constant):
            yield "getattr of a computed name"
        elif argument.value in ATTRIBUTES:
            yield f"getattr {argument.value}"


def unseals(node: ast.Attribute) -> bool:
    """Tell whether it is `Opener.open` of the pages module, which opens sealed bytes and no file."""
    return node.attr == "open" and isinstance(node.value, ast.Attribute) and node.value.attr == "_opener"


def openers_of(path: Path) -> set[tuple[str, str]]:
    name = path.relative_to(ROOT).as_posix()
    return {(name, opener) for opener in openers_in(ast.parse(path.read_text()), name)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_no_file_but_through_the_base_vfs(path: Path) -> None:
    assert openers_of(path) <= set(ALLOWED)


def test_every_exception_is_still_needed() -> None:
    assert set(ALLOWED) <= {found for path in FILES for found in openers_of(path)}


PLANTED = [
    "open(p)",
    "map(open, [p])",
    "o = open",
    "with open(p) as f: pass",
    "__builtins__.open(p)",
    "__builtins__['open'](p)",
    "eval('open')(p)",
    "import builtins\nbuiltins.open(p)",
    "from builtins import open as o\no(p)",
    "import os\nos.open(p, 0)",
    "import os as system\nsystem.open(p, 0)",
    "from os import open as o\no(p, 0)",
    "from os import *\nopen(p, 0)",
    "import os\nos.fdopen(3)",
    "import os\nos.truncate(p, 0)",
    "import os\ngetattr(os, 'open')(p, 0)",
    "import os\ngetattr(os, 'op' + 'en')(p, 0)",
    "import os\nos.__dict__['open'](p, 0)",
    "import os\nvars(os)['open'](p, 0)",
    "import os\nsystem = os\nsystem.open(p, 0)",
    "import os.path\nos.open(p, 0)",
    "import posix\nposix.open(p, 0)",
    "import io\nio.open(p)",
    "import io\nio.FileIO(p)",
    "from io import FileIO\nFileIO(p)",
    "import io\nio.open_code(p)",
    "import _io\n_io.FileIO(p)",
    "import codecs\ncodecs.open(p)",
    "from codecs import open as o\no(p)",
    "import mmap\nmmap.mmap(3, 0)",
    "from mmap import mmap\nmmap(3, 0)",
    "import shutil\nshutil.copyfile(p, q)",
    "import shutil as s\ns.copy2(p, q)",
    "from shutil import move\nmove(p, q)",
    "import gzip\ngzip.open(p)",
    "import zipfile\nzipfile.ZipFile(p)",
    "import linecache\nlinecache.getlines(p)",
    "import sqlite3\nsqlite3.connect(p)",
    "from sqlite3 import dbapi2\ndbapi2.connect(p)",
    "import importlib\nimportlib.import_module('io').open(p)",
    "__import__('io').open(p)",
    "import ctypes\nctypes.CDLL(None).open(p, 0)",
    "from operator import attrgetter\nattrgetter('open')(os)(p, 0)",
    "Path(p).open()",
    "from pathlib import Path\nPath.open(p)",
    "p.read_bytes()",
    "p.read_text()",
    "p.write_bytes(b'')",
    "p.write_text('')",
    "p.touch()",
    "getattr(p, 'read_bytes')()",
    "self._opener.open(p)",
]


@pytest.mark.parametrize("code", PLANTED)
def test_each_way_to_open_a_file_is_seen(code: str) -> None:
    assert openers_in(ast.parse(code), "connection.py")


HARMLESS = [
    "import os\nos.path.exists(p)\nos.stat(p)\nos.unlink(p)",
    "import io\nio.StringIO()",
    "import os\nhasattr(os, 'register_at_fork')",
    "import shutil\nshutil.which('x')",
    "getattr(x, 'extendedresult', 0)",
    "apsw.VFSFile(base, name, flags)",
    "x.xOpen(name, flags)",
    "is_open = x.opened",
]


@pytest.mark.parametrize("code", HARMLESS)
def test_what_opens_no_file_is_let_pass(code: str) -> None:
    assert not openers_in(ast.parse(code), "connection.py")


def test_unsealing_bytes_is_let_pass_where_it_is_done() -> None:
    assert not openers_in(ast.parse("self._opener.open(sealed, bound)"), "vfs/wal.py")
