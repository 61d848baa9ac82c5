"""`python -m heliosvfs.run` starts a program as Python itself does, and leaves it in the place of `__main__`."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SHOWN = """
import sys, __main__
print(__name__, sys.argv, sys.path[0], __package__, getattr(__spec__, "name", None), type(__loader__).__name__)
print(globals().get("__file__"), __main__.__dict__ is globals(), sys.modules["__main__"] is __main__, "main" in globals())
x: int = 1
print(__main__.__annotations__, locals() is globals(), __builtins__, [x for _ in range(2)])
"""
LATER = """
import atexit, pickle, threading, time

class Kept:
    pass

def later():
    threading.main_thread().join()
    print(pickle.loads(pickle.dumps(Kept())).__class__.__name__)

@atexit.register
def at_the_end():
    import __main__
    print(__main__.Kept is Kept, type(pickle.loads(pickle.dumps(Kept()))).__name__)

threading.Thread(target=later).start()
"""


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "programs"
    (folder / "package").mkdir(parents=True)
    for name in ("script.py", "package/__init__.py", "package/__main__.py", "package/module.py"):
        (folder / name).write_text(SHOWN if name != "package/__init__.py" else "")
    (folder / "link.py").symlink_to(folder / "package" / "module.py")
    (folder / "failing.py").write_text("raise SystemExit('no')\n")
    with zipfile.ZipFile(folder / "program.zip", "w") as archive:
        archive.writestr("__main__.py", SHOWN)
    return folder


PROGRAMS = [
    ("script.py", "--its", "own"),
    ("--", "script.py", "-x"),
    ("./package/../script.py",),
    ("link.py",),
    ("package", "1"),
    ("package/",),
    ("program.zip", "1"),
    ("failing.py",),
    ("-m", "script", "-m"),
    ("-m", "package", "1"),
    ("-mpackage", "1"),
    ("-mpackage.module",),
    ("-m", "nosuch"),
    ("-m", "package.nosuch"),
    ("-m", "nosuch.module"),
    ("-c", SHOWN, "1"),
    (f"-c{SHOWN}",),
    ("-c", "import sys; sys.exit(4)"),
    ("-c", "def f(x: int): pass\nprint(f.__annotations__)"),
]


@pytest.mark.parametrize("arguments", PROGRAMS, ids=lambda arguments: " ".join(arguments).replace(SHOWN, "CODE"))
def test_a_program_sees_what_it_sees_when_python_starts_it(folder: Path, arguments: tuple[str, ...]) -> None:
    expected = python(folder, *arguments)
    done = python(folder, "-m", "heliosvfs.run", *arguments)
    assert done.stdout == expected.stdout
    assert done.stderr == expected.stderr
    assert done.returncode == expected.returncode
    assert expected.stdout or expected.returncode


def test_a_compiled_program_runs_too(folder: Path) -> None:
    assert python(folder, "-m", "compileall", "-q", "-b", "script.py").returncode == 0
    assert python(folder, "-m", "heliosvfs.run", "script.pyc").stdout == python(folder, "script.pyc").stdout


def test_the_file_of_a_script_is_found_from_another_folder(folder: Path) -> None:
    (folder / "script.py").write_text("import os\nos.chdir('/')\nprint(os.path.exists(__file__))\n")
    assert python(folder, "-m", "heliosvfs.run", "script.py").stdout == "True\n"


@pytest.mark.parametrize("arguments", [("later.py",), ("-m", "later"), ("-c", LATER)], ids=["script", "module", "code"])
def test_the_program_stays_main_when_its_last_line_is_done(folder: Path, arguments: tuple[str, ...]) -> None:
    (folder / "later.py").write_text(LATER)
    done = python(folder, "-m", "heliosvfs.run", *arguments)
    assert done.stdout.splitlines() == ["Kept", "True Kept"], done.stderr


def test_a_folder_that_python_is_told_not_to_look_in_is_not_looked_in(folder: Path) -> None:
    (folder / "neighbour.py").write_text("")
    (folder / "script.py").write_text("import neighbour\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if sys.version_info < (3, 11):
        pytest.skip("-P is there from Python 3.11 on")
    for arguments in (("script.py",), ("-m", "heliosvfs.run", "script.py")):
        command = [sys.executable, "-P", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert "No module named 'neighbour'" in done.stderr
