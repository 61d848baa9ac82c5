"""Presets: what each asks for, with its clause; and that a configuration below one is refused."""

from __future__ import annotations

from typing import Any

import pytest

import heliosaudit
from heliosvfs import Config, ConfigError
from heliosvfs.config.policies import policy_of
from heliosvfs.config.presets import PRESETS, Floor, Preset, preset_name

FLOORS = [(preset, floor) for preset in PRESETS.values() for floor in preset.floors]
BELOW: dict[str, Any] = {
    "audit.retention_days": 1,
    "audit.capture_parameters": {"gdpr": "expanded", "fda_21_cfr_part_11": "none"},
    "audit.capture_rows": "keys",
}


def document(preset: str, option: str, value: Any) -> dict[str, Any]:
    section, _, name = option.partition(".")
    made: dict[str, Any] = {"compliance": {"preset": preset}}
    made.setdefault(section, {})[name] = value
    return made


@pytest.mark.parametrize(("preset", "floor"), FLOORS, ids=[f"{preset.name} {floor.option}" for preset, floor in FLOORS])
def test_a_configuration_below_a_floor_is_refused_with_the_clause(preset: Preset, floor: Floor) -> None:
    below = BELOW.get(floor.option, False)
    below = below[preset.name] if isinstance(below, dict) else below
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(document(preset.name, floor.option, below))
    assert floor.clause in str(caught.value)
    assert floor.option in str(caught.value)


@pytest.mark.parametrize(("preset", "floor"), FLOORS, ids=[f"{preset.name} {floor.option}" for preset, floor in FLOORS])
def test_what_is_left_open_is_filled_in(preset: Preset, floor: Floor) -> None:
    config = Config.from_dict({"compliance": {"preset": preset.name}})
    assert config.get(floor.option) == floor.default
    assert floor.holds(floor.default)
    Config.from_dict(document(preset.name, floor.option, floor.default))


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "fips"])
def test_a_policy_of_the_same_name_records_no_less(name: str) -> None:
    """`heliosvfs.connect(audit="hipaa")` and ``preset = "hipaa"`` are two doors to one set of settings."""
    config = Config.from_dict({"compliance": {"preset": name}})
    ours, theirs = policy_of(config), heliosaudit.Policy.preset(name)
    assert ours is not None
    for option in (
        "log_ddl",
        "log_dml",
        "log_select",
        "log_auth",
        "log_admin",
        "capture_parameters",
        "capture_rows",
        "retention_days",
    ):
        assert getattr(ours, option) == getattr(theirs, option), option


def test_hipaa_keeps_six_years_at_least_and_seven_unless_told() -> None:
    assert 6 * 365 + 2 == 2192
    assert Config.from_dict({"compliance": {"preset": "hipaa"}}).audit.retention_days == 2555
    assert Config.from_dict({"compliance": {"preset": "hipaa"}, "audit": {"retention_days": 2192}}).audit.retention_days == 2192


def test_several_presets_combine_to_the_strictest() -> None:
    config = Config.from_dict({"compliance": {"preset": ["soc2", "hipaa", "pci_dss"]}})
    assert config.audit.retention_days == 2555
    assert config.audit.log_select
    assert config.compliance.prohibit_plaintext_card
    assert config.origins.presets == ("soc2", "hipaa", "pci_dss")


def test_presets_that_contradict_each_other_are_refused_with_both_names() -> None:
    with pytest.raises(ConfigError, match=r"fda_21_cfr_part_11.*gdpr"):
        Config.from_dict({"compliance": {"preset": ["gdpr", "fda_21_cfr_part_11"]}})


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("HIPAA", "hipaa"),
        ("IEC_62443", "iec_62443"),
        ("IEC 62443", "iec_62443"),
        ("FDA_21_CFR_Part_11", "fda_21_cfr_part_11"),
        ("PCI-DSS", "pci_dss"),
        ("SOC 2", "soc2"),
        ("FIPS 140-3", None),
        ("fips-140-3", "fips"),
        ("", None),
    ],
)
def test_presets_are_found_however_they_are_spelled(spelling: str, name: str | None) -> None:
    assert preset_name(spelling) == (name or ("fips" if spelling == "FIPS 140-3" else None))
