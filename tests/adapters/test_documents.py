"""What the pages for SQLAlchemy, peewee, pandas, sqlite-utils, Datasette and Django show runs as it stands there."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters import projects

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {
    "SQLALCHEMY": ("sqlalchemy", [["Ada Lovelace", "[('d.smith', 'INSERT'), ('d.smith', 'SELECT')]", "['patient']"]]),
    "PEEWEE": (
        "peewee",
        [
            ["refused: UNIQUE constraint failed: patient.name", "Ada Lovelace 1815 12.5"],
            ["['the passphrase opens it']", "not with this one"],
        ],
    ),
    "PANDAS": ("pandas", [["Grace Hopper 1906", "(2, 2)"], ["[{'name': 'Ada Lovelace', 'pulse': 62}]"]]),
    "SQLITE_UTILS": (
        "sqlite_utils",
        [['[{"name": "Ada Lovelace"}]', '"full_name" TEXT'], ["['Rear Admiral Hopper']", "[<Table patient (id, name)>]"]],
    ),
    "DATASETTE": ("datasette", [['[{"id": 1, "name": "Ada Lovelace"}]']]),
}


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:  # not imported: Datasette, for one, changes settings of sqlite3 itself
        pytest.skip(f"{package} is not installed")


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((DOCS / f"{page}.md").read_text())


@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page, (_, shown) in PAGES.items() for number in range(len(shown))]
)
def test_an_example_runs_and_leaves_nothing_readable(page: str, number: int, tmp_path: Path) -> None:
    package, expected = PAGES[page]
    needs(package)
    found = blocks(page)
    assert len(found) == len(expected)
    language, text = found[number]
    key = tmp_path / "clinic.key"
    key.write_text(os.urandom(32).hex())
    key.chmod(0o600)
    hidden = (*projects.KEY_VARIABLES, "PYTHONWARNINGS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), environment.get("PATH", "")])
    environment["TMPDIR"] = str(tmp_path)
    command = [sys.executable, "-W", "error::UserWarning", "-"] if language == "python" else ["bash", "-euo", "pipefail", "-s"]
    done = subprocess.run(
        command, input=text, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    for line in expected[number]:
        assert line in done.stdout
    databases = list(tmp_path.glob("*.db*"))
    assert databases
    for file in databases:
        assert b"Lovelace" not in file.read_bytes()
        assert b"CREATE TABLE" not in file.read_bytes()
    assert not list(tmp_path.glob("heliosvfs-*"))


def test_the_settings_of_djangos_page_make_a_project_run(tmp_path: Path) -> None:
    needs("django")
    project = projects.make(tmp_path)
    [(_, settings)] = blocks("DJANGO")
    with (tmp_path / "settings.py").open("a") as file:
        file.write("\nfrom pathlib import Path\nBASE_DIR = Path(__file__).parent\n" + settings)
    project.manage("makemigrations", "clinic")
    project.manage("migrate")
    project.program("from clinic.models import Patient; Patient.objects.create(name='Ada Lovelace')")
    asked = "SELECT operation FROM __audit_log WHERE target = 'clinic_patient' AND class = 'DML'"
    assert project.manage("dbshell", "--", asked).strip() == "INSERT"
    assert project.database.read_bytes()[:9] == b"heliosvfs"
