"""The examples run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_clinic_reads_what_it_wrote_and_leaves_no_plaintext(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "clinic.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Ada Lovelace: allergic to laudanum" in done.stdout
    assert done.stdout.count("all is well") == 2
    for file in tmp_path.iterdir():
        assert b"laudanum" not in file.read_bytes()


def test_the_ward_reports_who_saw_a_patient_and_who_was_denied(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "ward.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "n.bailey  SELECT" in done.stdout
    assert "INSERT, which failed" in done.stdout
    assert "Denied: [('n.bailey', 'DELETE FROM __audit_log')]" in done.stdout


def test_every_example_is_run() -> None:
    """A new example needs a test here."""
    assert sorted(path.name for path in (ROOT / "examples").glob("*.py")) == ["clinic.py", "ward.py"]
