"""A module imports only from layers below its own (docs/ARCHITECTURE.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = [
    ("heliosvfs.errors", 0),
    ("heliosvfs.notices", 0),
    ("heliosvfs.locks", 0),
    ("heliosvfs.memory", 0),
    ("heliosvfs.torn", 0),
    ("heliosvfs.layout", 1),
    ("heliosvfs.superblock", 1),
    ("heliosvfs.keys", 1),
    ("heliosvfs.slots", 1),
    ("heliosvfs.recovery_keys", 1),
    ("heliosvfs.pages", 1),
    ("heliosvfs.keyring", 1),
    ("heliosvfs.btrees", 1),
    ("heliosvfs.vfs", 2),
    ("heliosaudit", 3),
    ("heliosvfs.keysources", 4),
    ("heliosvfs.connection", 4),
    ("heliosvfs.audited", 4),
    ("heliosvfs.audit", 4),
    ("heliosvfs.opening", 4),
    ("heliosvfs.partials", 4),
    ("heliosvfs.write_locks", 4),
    ("heliosvfs.reopening", 4),
    ("heliosvfs.config", 4),
    ("heliosvfs.compliance", 4),
    ("heliosvfs.embedded", 4),
    ("heliosvfs.rowid_cursors", 4),
    ("heliosvfs.metrics", 4),
    ("heliosvfs.activity", 4),
    ("heliosvfs.networks", 1),
    ("heliosvfs.shutdowns", 4),
    ("heliosvfs.memory_limits", 4),
    ("heliosvfs.django", 5),
    ("heliosvfs.convert", 4),
    ("heliosvfs.rotation", 4),
    ("heliosvfs.rotation_dates", 4),
    ("heliosvfs.origins", 4),
    ("heliosvfs.backup", 4),
    ("heliosvfs.key_uses", 4),
    ("heliosvfs.fips", 4),
    ("heliosvfs.check", 4),
    ("heliosvfs.salvage", 4),
    ("heliosvfs.dbapi2", 5),
    ("heliosvfs.sqlalchemy", 5),
    ("heliosvfs.defaults", 4),
    ("heliosvfs.run", 6),
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


LOADERS = {
    "import_module",
    "__import__",
    "module_from_spec",
    "exec_module",
    "load_module",
    "run_module",
    "run_path",
    "__builtins__",
}
RUNS_PROGRAMS = {"heliosvfs.run": {"exec"}}  # what it starts is the user's
HIDDEN = LOADERS | {"importlib.*", "runpy.*", "exec", "eval"}


def hidden_imports_in(tree: ast.AST) -> set[str]:
    """Collect what imports a module without an import statement, called or merely mentioned."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found |= {node.attr} & LOADERS
        elif isinstance(node, ast.ImportFrom):
            found.update(name for alias in node.names for name in (alias.name, f"{node.module}.{alias.name}"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} & LOADERS  # getattr(x, "import_module")
    return found & HIDDEN


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


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_imports_by_import_statements_alone(path: Path) -> None:
    """Any other way would pass by the test of the layers."""
    assert hidden_imports_in(ast.parse(path.read_text())) <= RUNS_PROGRAMS.get(name_of(path), set())


@pytest.mark.parametrize(
    "code",
    [
        "import importlib\nimportlib.import_module('heliosvfs.cli')",
        "import importlib as i\ni.import_module('heliosvfs.cli')",
        "from importlib import import_module as load",
        "from importlib import *",
        "from importlib.util import module_from_spec",
        "__import__('heliosvfs.cli')",
        "load = __import__",
        "__builtins__['__import__']('heliosvfs.cli')",
        "import builtins\nbuiltins.__import__('heliosvfs.cli')",
        "getattr(x, 'import_module')('heliosvfs.cli')",
        "import sys\nsys.modules['importlib'].import_module('heliosvfs.cli')",
        "import runpy\nrunpy.run_module('heliosvfs.cli')",
        "exec('import heliosvfs.cli')",
    ],
)
def test_each_hidden_import_is_seen(code: str) -> None:
    assert hidden_imports_in(ast.parse(code))


def test_an_import_of_a_name_is_taken_for_the_module_it_may_be() -> None:
    assert is_module("heliosvfs", "cli")
    assert not is_module("heliosvfs", "connect")
