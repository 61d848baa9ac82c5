"""A slice of Django's own suite passes on the backend heliosvfs.django, on files and in memory (--soak: fetches its sdist)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.compat import foreign_suites

LABELS = (
    "basic transactions transaction_hooks backends lookup aggregation queries migrations schema introspection expressions "
    "bulk_create fixtures datatypes constraints"
)
ON_FILES = """
for name in DATABASES:
    DATABASES[name]["TEST"] = {{"NAME": {folder!r} + "/test_" + name + ".sqlite3"}}
"""


@pytest.mark.compat
@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("where", ["files", "memory"])
def test_djangos_suite_passes(where: str, tmp_path: Path) -> None:
    pytest.importorskip("django")
    source = foreign_suites.source_of("django", tmp_path)
    settings = (source / "tests" / "test_sqlite.py").read_text().replace("django.db.backends.sqlite3", "heliosvfs.django")
    assert settings.count("heliosvfs.django") == 2
    settings += ON_FILES.format(folder=str(tmp_path)) if where == "files" else ""
    (tmp_path / "helios_settings.py").write_text(settings)
    command = [sys.executable, str(source / "tests" / "runtests.py"), "--settings=helios_settings", "--noinput", "--parallel=1"]
    output = foreign_suites.run([*command, *LABELS.split()], tmp_path, source / "tests", replaces=False, timeout=1700)
    ran = re.search(r"^Ran (\d+) tests", output, re.MULTILINE)
    assert ran, output[-3000:]
    assert int(ran[1]) > 2000
    assert foreign_suites.failures(output) == set(), output[-5000:]
