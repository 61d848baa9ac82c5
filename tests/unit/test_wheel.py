"""The wheel carries both packages and lives beside an application's own audit.py; the source archive carries what tests read.

Built with the hatchling of the environment that runs the tests, so that no package index is needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a program without the PYTHONPATH and the like of whoever runs the tests, and return what it prints."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=own)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-I", "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", folder)
    return folder


def test_a_wheel_installs_beside_an_applications_own_audit_module(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"heliosvfs/py.typed", "heliosaudit/__init__.py", "heliosaudit/py.typed", "heliosvfs/cli/__init__.py"} <= set(names)
    assert not any(name.startswith(("tests/", "bench/", "audit/")) for name in names)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-I", "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel)
    site = Path(run(python, "-I", "-c", "import site; print(site.getsitepackages()[0])").strip())
    # what it depends on comes from the environment that runs the tests, behind what is installed here
    (site / "zz-dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    application = tmp_path / "application"
    application.mkdir()
    (application / "audit.py").write_text("WHOSE = 'the application'\n")
    (application / "main.py").write_text(
        "import audit, heliosaudit, heliosvfs\n"
        "assert audit.WHOSE == 'the application'\n"
        "print(heliosvfs.__file__, heliosaudit.__file__)\n"
    )
    assert run(python, application / "main.py", cwd=tmp_path).count(str(site)) == 2
    assert "demo" in run(tmp_path / "venv" / "bin" / "heliosvfs", "--help", cwd=tmp_path)


def test_the_source_archive_carries_what_its_tests_read(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    outside = {
        ".ci/run",
        "noxfile.py",
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "LICENSE",
    }
    assert outside <= names
    for folder in ("heliosvfs", "audit", "tests", "docs", "examples", "bench"):
        there = {file.relative_to(ROOT).as_posix() for file in (ROOT / folder).rglob("*") if is_ours(file)}
        assert there <= names


def test_a_wheel_made_from_the_source_archive_is_the_same(built: Path, tmp_path: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    run("tar", "-xzf", archive, "-C", tmp_path)
    (source,) = tmp_path.iterdir()
    run(sys.executable, "-I", "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "again", cwd=source)
    contents = []
    for wheel in (*built.glob("*.whl"), *(tmp_path / "again").glob("*.whl")):
        archived = zipfile.ZipFile(wheel)
        contents.append({name: archived.read(name) for name in archived.namelist()})
    assert len(contents) == 2
    assert contents[0] == contents[1]


def is_ours(file: Path) -> bool:
    return file.is_file() and "__pycache__" not in file.parts and file.suffix not in {".pyc", ".so"}
