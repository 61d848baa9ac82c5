"""APSW's own test suite, with our VFS as the default one, fails where docs/COMPATIBILITY.md says and nowhere else."""

from __future__ import annotations

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
KNOWN: dict[str, str] = tomllib.loads((HERE / "apsw_known_failures.toml").read_text())["failures"]
RESULT = re.compile(r"^(test\w+) \(.*\)(?:\n.*)? \.\.\. ", re.MULTILINE)
FAILED = re.compile(r"^(?:ERROR|FAIL): (test\w+) \(", re.MULTILINE)
RAN = re.compile(r"^Ran (\d+) tests? in", re.MULTILINE)


@pytest.mark.compat
@pytest.mark.timeout(600)
def test_apsws_suite_fails_only_where_it_must(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "apsw_default_vfs.py"), "-v"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=580,
        check=False,
    )
    ran = RAN.findall(done.stdout)
    assert ran, f"the suite did not end: exit status {done.returncode}\n{done.stdout[-3000:]}"
    assert sum(map(int, ran)) > 150
    failed = set(FAILED.findall(done.stdout))
    assert failed == set(KNOWN), done.stdout[-5000:]


def test_the_documentation_lists_every_known_failure() -> None:
    text = (HERE.parents[1] / "docs" / "COMPATIBILITY.md").read_text()
    for name, reason in KNOWN.items():
        assert f"`{name}`" in text
        assert reason.split(".")[0] in text, name
