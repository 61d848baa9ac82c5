"""A module imports only from layers below its own (docs/ARCHITECTURE.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = [
    ("heliosvfs.errors", 0),
    ("heliosvfs.layout", 1),
    ("heliosvfs.superblock", 1),
    ("heliosvfs.keys", 1),
    ("heliosvfs.slots", 1),
    ("heliosvfs.pages", 1),
    ("heliosvfs.keyring", 1),
    ("heliosvfs.btrees", 1),
    ("heliosvfs.vfs", 2),
    ("heliosaudit", 3),
    ("heliosvfs.keysources", 4),
    ("heliosvfs.connection", 4),
    ("heliosvfs.partials", 4),
    ("heliosvfs.convert", 4),
    ("heliosvfs.check", 4),
    ("heliosvfs.salvage", 4),
    ("heliosvfs.cli", 6),
    ("heliosvfs.__main__", 6),
    ("heliosvfs", 5),  # the public face: everything below the command line
]
FILES = sorted([*(ROOT / "heliosvfs").rglob("*.py"), *(ROOT / "audit").rglob("*.py")])


def name_of(path: Path) -> str:
    base = ROOT / "audit" if "audit" in path.relative_to(ROOT).parts[0] else ROOT
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(name: str) -> int:
    for prefix, layer in LAYERS:
        if name == prefix or (prefix != "heliosvfs" and name.startswith(prefix + ".")):
            return layer
    raise AssertionError(f"{name} is in no layer: add it to the table here and in docs/ARCHITECTURE.md")


def is_module(package: str, name: str) -> bool:
    folder = ROOT / package.replace(".", "/")
    return (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found.update(f"{module}.{a.name}" if is_module(module, a.name) else module for a in node.names)
    return {name for name in found if name.split(".")[0] in ("heliosvfs", "heliosaudit")}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_imports_only_from_its_layer_and_those_below(path: Path) -> None:
    own = layer_of(name_of(path))
    above = {name for name in imports_of(path) if layer_of(name) > own}
    assert not above


@pytest.mark.parametrize("path", [path for path in FILES if name_of(path).startswith("heliosaudit")], ids=name_of)
def test_the_audit_package_never_imports_the_encryption(path: Path) -> None:
    assert not any(name.startswith("heliosvfs") for name in imports_of(path))
