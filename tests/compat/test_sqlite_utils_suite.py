"""sqlite-utils' own tests fail with heliosvfs.dbapi2 where docs/COMPATIBILITY.md says, and nowhere else (--soak)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.compat import foreign_suites

KNOWN = {"tests/test_cli.py::test_create_database[False]", "tests/test_cli.py::test_create_database[True]"}


@pytest.mark.compat
@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_sqlite_utils_suite_fails_only_where_it_must(tmp_path: Path) -> None:
    pytest.importorskip("sqlite_utils")
    source = foreign_suites.source_of("sqlite-utils", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "-o", "addopts=", "--tb=short", "tests"]
    outputs = {
        replaces: foreign_suites.run(command, tmp_path, source, replaces=replaces, timeout=800) for replaces in (False, True)
    }
    passed = re.search(r"(\d+) passed", outputs[True])
    assert passed, outputs[True][-3000:]
    assert int(passed[1]) > 1000
    assert foreign_suites.failures(outputs[True]) - foreign_suites.failures(outputs[False]) == KNOWN, outputs[True][-5000:]


def test_the_documentation_lists_every_known_failure() -> None:
    text = (Path(__file__).parents[2] / "docs" / "COMPATIBILITY.md").read_text()
    for name in KNOWN:
        assert name.partition("::")[2].partition("[")[0] in text
