"""SQLAlchemy's compliance suite for dialects fails nowhere with sqlite+heliosvfs:// where it passes with sqlite+pysqlite://."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

HERE = Path(__file__).parent
CONFTEST = """
import pytest
pytest.register_assert_rewrite("sqlalchemy.testing.assertions")
from sqlalchemy.testing.plugin.pytestplugin import *
"""
SETTINGS = "[sqla_testing]\nrequirement_cls = sqlalchemy_requirements:Requirements\nprofile_file = profiles.txt\n"


def run(folder: Path, driver: str) -> dict[str, str]:
    """Run the suite on files in a folder; return the outcome of each test."""
    folder.mkdir()
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "setup.cfg").write_text(SETTINGS)
    (folder / "test_suite.py").write_text("from sqlalchemy.testing.suite import *\n")
    shutil.copy(HERE / "sqlalchemy_requirements.py", folder)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "--tb=short",
        "-c",
        "setup.cfg",
    ]
    command += ["--dburi", f"sqlite+{driver}:///clinic.db", "--junitxml", "results.xml", "test_suite.py"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "HELIOSVFS_KEY": os.urandom(32).hex()}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=580, check=False
    )
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
    version = re.search(rf"sqlite\+{driver}_\d+_\d+_\d+", (folder / "results.xml").read_text())
    assert version, f"no test ran on {driver}"
    outcomes = {}
    for case in ET.parse(folder / "results.xml").iter("testcase"):  # noqa: S314 - pytest has written it
        name = f"{case.get('classname')}::{case.get('name')}".replace(f"_{version[0]}", "")
        found = {child.tag for child in case} & {"failure", "error", "skipped"}
        outcomes[name] = "skipped" if found == {"skipped"} else "failed" if found else "passed"
    return outcomes


@pytest.mark.compat
@pytest.mark.timeout(600)
def test_the_compliance_suite_fails_nowhere_where_sqlalchemys_own_dialect_passes(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy", minversion="2")
    ours, theirs = run(tmp_path / "ours", "heliosvfs"), run(tmp_path / "theirs", "pysqlite")
    passes = {name for name, outcome in theirs.items() if outcome == "passed"}
    worse = {name: ours.get(name, "not there") for name in passes if ours.get(name) != "passed"}
    assert len(passes) > 1000
    assert worse == {}
    assert {name for name, outcome in ours.items() if outcome == "failed"} <= {
        name for name, outcome in theirs.items() if outcome == "failed"
    }
