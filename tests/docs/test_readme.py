"""README's commands and examples are true."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})  # noqa: S102 - that is the test
    assert "Ada" in capsys.readouterr().out
    assert b"Ada" not in (tmp_path / "clinic.db").read_bytes()


def test_the_two_commands_are_one_line_each() -> None:
    commands = re.findall(r"^    (python3 -m venv .*)$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("heliosvfs demo")
    assert "pytest" in commands[1]


def test_ci_runs_readmes_own_test_command() -> None:
    script = re.search(r"test_command=\$\((sed .*?)\)\n", (ROOT / ".ci" / "run").read_text())
    assert script
    found = subprocess.run(["bash", "-c", script[1]], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"    {found.strip()}\n" in README


@pytest.mark.parametrize("path", [ROOT / "README.md", *DOCS], ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", [ROOT / "README.md", *DOCS], ids=lambda path: path.name)
def test_tests_that_documents_name_exist(path: Path) -> None:
    """A claim is backed by a test; a test that was renamed or removed backs nothing."""
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("*.py"))
    cpythons = (ROOT / "tests" / "compat" / "cpython_known_failures.toml").read_text()  # tests of its suite, named with reasons
    for name in re.findall(r"`(?:tests/[\w/.-]+::)?(test_\w+)`", path.read_text()):
        assert f"def {name}(" in tests or name in cpythons, name
    for file in re.findall(r"`((?:tests|bench|docs|heliosvfs|audit|examples)/[\w/.-]*)`", path.read_text()):
        assert (ROOT / file).exists(), file
