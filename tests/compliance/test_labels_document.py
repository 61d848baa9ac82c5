"""docs/ACCESS.md: its examples run and print what they say, and what it names is there."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from tests.compliance import test_labels_attacks as attacks

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "ACCESS.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("number", range(2))
def test_an_example_runs_and_prints_what_it_says(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(EXAMPLES[number], "ACCESS.md", "exec"), {})  # noqa: S102 - the document's own
    lines = printed.getvalue().splitlines()
    if number:
        assert set(lines) == {"a card number is not to be stored or asked for in the clear (PCI DSS 3.5.1)"}
        assert len(lines) == 3
    else:
        assert lines[:2] == ["no such column: ssn", "no such table: agents"]
        assert "patients.ssn is SECRET, the session is cleared for UNCLASSIFIED" in lines[2]
        assert "agents is TOP_SECRET, the session is cleared for SECRET" in lines[3]


def test_the_document_has_no_other_example_and_counts_the_attacks() -> None:
    assert len(EXAMPLES) == 2
    assert len(attacks.SAME) + len(attacks.TOLD) > 200
    for path in re.findall(r"`(tests/[\w/]+\.py)`", TEXT):
        assert (ROOT / path).exists()
