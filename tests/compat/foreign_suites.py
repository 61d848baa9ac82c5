"""Test suites that come with an sdist: fetched from the package index, unpacked, and run with or without our sqlite3."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

from tests.compat.test_cpython_sqlite3 import CUSTOM


def source_of(name: str, folder: Path) -> Path:
    """Return the unpacked sdist of a package, of the version that is installed."""
    wanted = f"{name}=={version(name)}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", name, "-d", str(folder)]
    subprocess.run([*command, wanted], check=True)
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:
            tar.extractall(folder)  # noqa: S202 - Python 3.10 has no filter, and the index is trusted as it is for installing
    [source] = (path for path in folder.iterdir() if path.is_dir())
    return source


def run(command: list[str], folder: Path, source: Path, *, replaces: bool, timeout: float) -> str:
    """Run a suite; return what it printed. ``replaces``: our module takes the place of sqlite3."""
    custom = folder / "heliosvfs_sitecustomize"
    custom.mkdir(exist_ok=True)
    (custom / "sitecustomize.py").write_text(CUSTOM if replaces else "")
    places = [str(custom), str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(places),
        "TMPDIR": str(folder / "tmp"),
        "HELIOSVFS_KEY": os.urandom(32).hex(),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(
        command,
        cwd=source,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    assert done.returncode in (0, 1), (
        f"exit status {done.returncode}: 98 means that something used Python's own sqlite3\n{done.stdout[-3000:]}"
    )
    return done.stdout


def failures(output: str) -> set[str]:
    """Return the tests that failed, of unittest's or pytest's output."""
    return {f"{found[1]}" for found in re.finditer(r"^(?:FAIL|ERROR): \w+ \(([\w.]+)\)", output, re.MULTILINE)} | {
        found[1] for found in re.finditer(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE) if "::" in found[1]
    }
