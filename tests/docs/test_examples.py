"""The examples run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


def run(name: str, folder: Path) -> str:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_till_refuses_a_card_number_and_records_the_attempt_without_it(tmp_path: Path) -> None:
    said = run("point_of_sale", tmp_path)
    assert "Refused: a card number is not to be stored" in said
    assert "[(320, '1111', 'A00417'), (320, '1111', 'A00418')]" in said
    assert "till-7's attempt: INSERT INTO sale(cents, last4, approval) VALUES(?, ?, ?)" in said
    assert "4111" not in said


def test_tenants_are_apart_and_one_person_is_forgotten(tmp_path: Path) -> None:
    said = run("tenants", tmp_path)
    assert "acme's key does not open globex's database" in said
    assert "Erased {'member': 1}, overwritten {'task': 1}" in said
    assert "What is left: [('ship it', None, None)]" in said


def test_the_laptop_shows_what_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    said = run("field_laptop", tmp_path)
    assert "colonel reads the ferryman and the bridge is open" in said
    assert "major reads the bridge is open" in said
    assert "'SELECT name FROM source': no such table: source" in said
    assert "'SELECT name FROM archive': no such table: archive" in said
    assert "needs a network" in said
    assert "major: " in said.partition("the log knows better")[2]


def test_the_gateway_loses_nothing_and_its_recipe_is_signed(tmp_path: Path) -> None:
    said = run("factory_gateway", tmp_path)
    assert "Refused: changes to recipe have to be signed" in said
    assert "After the power cut: 200 readings" in said
    assert "Signed by Emmy Noether (e.noether) - approved for line 3" in said
    assert "Everything signed that has to be: True" in said


def test_the_report_verifies_each_service_and_counts(tmp_path: Path) -> None:
    said = run("reporting", tmp_path)
    assert said.count("consistent, unanchored") == 3
    assert "ada: orders-service SELECT x1" in said


def test_the_investigation_finds_who_it_was_and_what_was_cut_off(tmp_path: Path) -> None:
    said = run("forensics", tmp_path)
    assert "UPDATE account (39 rows)" in said
    assert "('t.ripley', 'account', 39)" in said
    assert "Against the checkpoint: verified" in said
    assert "alone 'consistent, unanchored', against the checkpoint 'broken'" in said


@pytest.mark.parametrize("name", ["point_of_sale", "tenants", "field_laptop", "factory_gateway", "reporting", "forensics"])
def test_without_a_folder_an_example_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert not done.returncode, done.stderr
    assert done.stdout
    assert not list(tmp_path.iterdir())


def test_every_example_is_run() -> None:
    """A new example needs a test here."""
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert names == {
        "clinic",
        "factory_gateway",
        "field_laptop",
        "forensics",
        "point_of_sale",
        "reporting",
        "tenants",
        "ward",
    }
