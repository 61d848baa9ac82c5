"""The virtual environments of the peers: made on first use, kept, and made anew when one no longer works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagebench.subjects import Subject

BENCH = Path(__file__).resolve().parent.parent


class UnavailableError(Exception):
    """A subject can't be measured here; the message says why."""


def default_directory() -> Path:
    """Return where environments are kept unless told otherwise: below the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "heliosvfs-bench"


def python_for(subject: Subject, directory: Path) -> Path:
    """Return the interpreter that a subject runs in, its environment made if need be.

    Raises:
        UnavailableError: the environment can't be made, or the subject can't be imported.
    """
    if not subject.package:
        problem = _problem(subject, Path(sys.executable))
        if problem:
            raise UnavailableError(problem)
        return Path(sys.executable)
    home = directory / f"{subject.package}-py{sys.version_info.major}.{sys.version_info.minor}"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists() or _problem(subject, python):
        _make(subject, home, python)
        problem = _problem(subject, python)
        if problem:
            raise UnavailableError(problem)
    return python


def variables(subject: Subject) -> dict[str, str]:
    """Return the environment variables of a worker: only our own columns see this source tree."""
    paths = [BENCH, BENCH.parent] if subject.kind == "heliosvfs" else [BENCH]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def _problem(subject: Subject, python: Path) -> str:
    # `connect` is asked for by name: a folder without a package in it would import too.
    statement = "from heliosvfs import connect" if subject.kind == "heliosvfs" else f"import {subject.module}"
    done = subprocess.run(
        [python, "-c", statement], env=variables(subject), capture_output=True, text=True, check=False, cwd=BENCH
    )
    return "" if done.returncode == 0 else f"`{statement}` fails: {(done.stderr.strip().splitlines() or ['?'])[-1]}"


def _make(subject: Subject, home: Path, python: Path) -> None:
    print(f"making an environment with {subject.package} in {home}", file=sys.stderr, flush=True)
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    steps: tuple[list[str | Path], ...] = (
        [sys.executable, "-m", "venv", home],
        [python, "-m", "pip", "install", "--quiet", subject.package],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(home, ignore_errors=True)
            raise UnavailableError((done.stderr or done.stdout).strip().splitlines()[-1])
