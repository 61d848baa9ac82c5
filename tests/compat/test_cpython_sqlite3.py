"""CPython's own tests of sqlite3 fail with heliosvfs.dbapi2 in its place where docs/DBAPI.md says, and nowhere else."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
KNOWN = tomllib.loads((HERE / "cpython_known_failures.toml").read_text())
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
FAILED = re.compile(r"^(?:ERROR|FAIL): (test_\w+) \(", re.MULTILINE)
RAN = re.compile(r"^Ran (\d+) tests? in", re.MULTILINE)
LEAST_SHARE = 0.97


def suite() -> list[str]:
    """Return the names of the files, none where the installation has no tests (Debian's python3, for one)."""
    found = importlib.util.find_spec("test") and importlib.util.find_spec("test.test_sqlite3")
    places = list(found.submodule_search_locations or ()) if found else []
    return sorted(file.stem for place in places for file in Path(place).glob("test_*.py"))


NAMES = suite()
needs_the_suite = pytest.mark.skipif(not NAMES, reason="this Python comes without test.test_sqlite3 (it has it from 3.11 on)")


# a plain exception in sitecustomize would only be printed, and the suite would run on Python's own sqlite3 unnoticed
CUSTOM = """
import atexit, os, sys
try:
    from heliosvfs.run import replace_sqlite3
    replace_sqlite3()
except BaseException as error:
    print(error, file=sys.stderr, flush=True)
    os._exit(97)
used = []
def watch(event, args):
    if event == "sqlite3.connect/handle" and isinstance(args[0], getattr(sys.modules.get("_sqlite3"), "Connection", ())):
        used.append(event)
sys.addaudithook(watch)
atexit.register(lambda: used and os._exit(98))
"""


def run(folder: Path, name: str) -> tuple[int, set[str], str]:
    """Run one file of the suite, its child processes likewise on our module; return how many ran, which failed, the output."""
    custom = folder / "custom"
    custom.mkdir(exist_ok=True)
    (custom / "sitecustomize.py").write_text(CUSTOM)
    places = [str(custom), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(places),
        "TMPDIR": str(folder),
        "HELIOSVFS_KEY": os.urandom(32).hex(),
    }
    done = subprocess.run(
        [sys.executable, "-m", "unittest", "-v", f"test.test_sqlite3.{name}"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=280,
        check=False,
    )
    ran = RAN.findall(done.stdout)
    assert ran, f"the suite did not end: exit status {done.returncode}\n{done.stdout[-3000:]}"
    assert done.returncode in (0, 1, 5), f"exit status {done.returncode}: 98 means that something used Python's own sqlite3"
    return int(ran[-1]), set(FAILED.findall(done.stdout)), done.stdout


@pytest.mark.compat
@needs_the_suite
def test_cpythons_suite_fails_only_where_it_must(tmp_path: Path) -> None:
    count, failed, reports = 0, set(), ""
    for name in NAMES:
        ran, failures, output = run(tmp_path, name)
        count += ran
        failed |= failures
        reports += output.partition("=" * 70)[2] if failures else ""
    known = {name for name, entry in KNOWN.items() if VERSION in entry.get("python", [VERSION])}
    assert count > 400
    assert failed == known, reports[-5000:]
    assert len(failed) <= (1 - LEAST_SHARE) * count


def test_the_documentation_lists_every_known_failure() -> None:
    text = (HERE.parents[1] / "docs" / "DBAPI.md").read_text()
    for name, entry in KNOWN.items():
        assert f"`{name}`" in text
        assert entry["reason"] in text, name
