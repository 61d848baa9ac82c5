"""APSW's own test suite, with our VFS as the default one, fails where docs/COMPATIBILITY.md says and nowhere else."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.compat.conftest import Suite

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
def test_apsws_suite_fails_only_where_it_must(apsws_suite: Suite) -> None:
    status, output = apsws_suite.ended()
    ran = RAN.findall(output)
    assert ran, f"the suite did not end: exit status {status}\n{output[-3000:]}"
    assert sum(map(int, ran)) > 150
    failed = set(FAILED.findall(output))
    assert failed == set(KNOWN), output[-5000:]


def test_the_documentation_lists_every_known_failure() -> None:
    text = (HERE.parents[1] / "docs" / "COMPATIBILITY.md").read_text()
    for name, reason in KNOWN.items():
        assert f"`{name}`" in text
        assert reason.split(".")[0] in text, name
