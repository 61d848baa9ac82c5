"""docs/CONFIG.md, COMPLIANCE.md, SIGNATURES.md and GDPR.md are true."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heliosvfs import Config
from heliosvfs.config.presets import PRESETS
from heliosvfs.config.reading import parsed

DOCS = Path(__file__).parents[2] / "docs"
ROW = re.compile(r"^\| `([a-z_0-9.]+)` \| (none|`[^`]*`) \| .+ \|$", re.MULTILINE)


def shown(value: Any) -> str:
    return "none" if value is None else f"`{msgspec.json.encode(value).decode().replace(',', ', ')}`"


def test_every_option_is_documented_with_its_default() -> None:
    documented = dict(ROW.findall((DOCS / "CONFIG.md").read_text()))
    assert documented == {option: shown(value) for option, value in Config().options()}


def test_every_form_of_a_key_source_is_documented() -> None:
    text = (DOCS / "CONFIG.md").read_text()
    for name in ("File", "Environment", "Command", "Keyring", "Passphrase", "Pkcs11", "Vault", "Other"):
        assert f"{{ {name} = " in text


def test_every_preset_has_its_part_of_the_page_on_compliance() -> None:
    text = (DOCS / "COMPLIANCE.md").read_text()
    for name in PRESETS:
        assert f"preset `{name}`" in text


@pytest.mark.parametrize("preset", PRESETS)
def test_a_clause_that_a_preset_refuses_with_is_a_row_there(preset: str) -> None:
    text = (DOCS / "COMPLIANCE.md").read_text()
    for floor in PRESETS[preset].floors:
        clause = re.match(r"(?:Art\. )?([\w.()-]+(?: [\d.]+)?)", floor.clause)
        assert clause is not None
        name = clause[1].split("(")[0]
        assert name in text or floor.clause.split(" (")[0].split(" and ")[0].removeprefix("Art. ") in text, floor.clause


def test_the_configuration_in_the_page_on_personal_data_loads() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", (DOCS / "GDPR.md").read_text(), re.DOTALL)
    config = Config.from_dict(parsed(block, "GDPR.md"))
    assert [path.table for path in config.gdpr.personal_data] == ["customers", "orders", "invoices"]


@pytest.mark.parametrize(
    ("document", "said"), [("SIGNATURES.md", "Signed by Ada Lovelace (ada)"), ("GDPR.md", "deleted={'customers': 1}")]
)
def test_the_programs_in_the_pages_run(
    document: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / document).read_text(), re.DOTALL)
    exec(compile(block, document, "exec"), {})  # noqa: S102 - that is the test
    assert said in capsys.readouterr().out


def test_the_program_in_the_page_on_configurations_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HELIOSVFS_KEY", os.urandom(32).hex())
    monkeypatch.delenv("HELIOSVFS_KEY_FILE", raising=False)
    (tmp_path / "heliosdb.toml").write_text('[database]\npath = "app.db"\n')
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "CONFIG.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "CONFIG.md", "exec"), names)  # noqa: S102 - that is the test
    names["connection"].close()
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".db") == ["app.db", "other.db"]
