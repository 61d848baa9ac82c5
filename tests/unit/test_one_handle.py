"""No code of ours opens a database, WAL or journal a second time: POSIX locks of a process die with any close of the file.

Under BEGIN EXCLUSIVE an `open(path).read()` of the same process would hand the lock to another one. So whatever could open a file
is forbidden, but for the places here, each with its reason.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "heliosvfs"
ALLOWED = {
    ("keysources.py", "open"): "reads key files",
    ("partials.py", "os.open"): "syncs a file that no connection has open yet, and its folder",
    ("cli/demo.py", "read_bytes"): "looks for plaintext in files that nobody else uses",
    ("cli/demo.py", "write_bytes"): "damages its own copy",
    ("cli/demo.py", "write_text"): "writes the passphrase file that --keep asks for",
    ("cli/demo.py", "shutil.copy"): "copies its own files as a crash would leave them",
}
OPENERS = {
    "open",
    "fdopen",
    "read_bytes",
    "read_text",
    "write_bytes",
    "write_text",
    "mmap",
    "copy",
    "copyfile",
    "copy2",
    "copytree",
}
FILES = sorted(ROOT.rglob("*.py"))


def calls_that_open(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id in OPENERS:
            found.add(function.id)
        elif isinstance(function, ast.Attribute) and function.attr in OPENERS:
            owner = function.value.id if isinstance(function.value, ast.Name) else ""
            if owner in ("os", "io", "shutil", "mmap"):
                found.add(f"{owner}.{function.attr}")
            elif function.attr in ("open", "read_bytes", "read_text", "write_bytes", "write_text") and not is_opener_of_units(
                function
            ):
                found.add(function.attr)
    return found


def is_opener_of_units(function: ast.Attribute) -> bool:
    """Tell whether it is `Opener.open` of the pages module, which opens sealed bytes and no file."""
    return isinstance(function.value, ast.Attribute) and function.value.attr == "_opener"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_no_file_but_through_the_base_vfs(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    found = {(name, call) for call in calls_that_open(ast.parse(path.read_text()))}
    assert found <= set(ALLOWED)


def test_every_exception_is_still_needed() -> None:
    used = {(str(p.relative_to(ROOT)), call) for p in FILES for call in calls_that_open(ast.parse(p.read_text()))}
    assert set(ALLOWED) <= used
