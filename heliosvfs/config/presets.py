"""Presets: what a regulation asks for at least, and what is sensible where it leaves room (docs/COMPLIANCE.md).

Each floor names the clause that asks for it. A configuration that says less is refused; one that says nothing gets the default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["PRESETS", "Floor", "Preset", "preset_name"]


@dataclass(frozen=True)
class Floor:
    """The least that a preset accepts of one option.

    Attributes:
        option: Its key path, "audit.retention_days".
        holds: Whether a value is enough.
        least: What is enough, in words.
        clause: The clause that asks for it.
        default: What it is where the file says nothing.
    """

    option: str
    holds: Callable[[Any], bool]
    least: str
    clause: str
    default: Any


@dataclass(frozen=True)
class Preset:
    """A documented set of minimum settings.

    Attributes:
        name: What a configuration calls it.
        title: The regulation.
        floors: What it asks for at least.
        defaults: What else is set where the file says nothing.
    """

    name: str
    title: str
    floors: tuple[Floor, ...]
    defaults: Mapping[str, Any]


def _on(option: str, clause: str) -> Floor:
    return Floor(option, bool, "true", clause, default=True)


def _days(least: int, default: int, clause: str) -> Floor:
    option = "audit.retention_days"
    return Floor(option, lambda days: days is None or days >= least, f"at least {least} days", clause, default)


def _changes(clause: str) -> tuple[Floor, ...]:
    return tuple(_on(option, clause) for option in ("audit.enabled", "audit.log_ddl", "audit.log_dml", "audit.log_auth"))


_SOC2 = Preset(
    "soc2",
    "SOC 2, Trust Services Criteria",
    (
        _on("encryption.enabled", "CC6.1 (logical access: encryption of data at rest is how this product serves it)"),
        *_changes("CC7.2 (monitoring of system components for anomalies)"),
        _days(90, 90, "CC7.2 names no number; an auditor of a Type 2 report wants proof over the period"),
    ),
    {},
)
_HIPAA = Preset(
    "hipaa",
    "HIPAA Security Rule, 45 CFR Part 164",
    (
        _on("encryption.enabled", "164.312(a)(2)(iv) (encryption and decryption, addressable)"),
        *_changes("164.312(b) (audit controls: record and examine activity)"),
        _on("audit.log_select", "164.312(b) (audit controls: reads of ePHI are activity)"),
        _days(2192, 2555, "164.316(b)(2)(i) (six years, which are 2,192 days with leap days)"),
    ),
    {},
)
_GDPR = Preset(
    "gdpr",
    "GDPR, Regulation (EU) 2016/679",
    (
        _on("encryption.enabled", "Art. 32(1)(a) (pseudonymisation and encryption)"),
        *_changes("Art. 5(2) and 32(1)(d) (accountability; regular testing)"),
        Floor(
            "audit.capture_parameters",
            lambda kind: kind in ("redactable", "none"),
            '"redactable" or "none"',
            "Art. 17(1) (erasure has to reach the values in the log)",
            default="redactable",
        ),
    ),
    {"audit.log_select": True, "audit.retention_days": 1095},
)
_PCI = Preset(
    "pci_dss",
    "PCI DSS 4.0.1",
    (
        _on("encryption.enabled", "3.5.1 (stored account data is unreadable)"),
        *_changes("10.2.1 (audit logs are enabled and active)"),
        _on("audit.log_select", "10.2.1.1 (all individual access to cardholder data)"),
        _on("audit.log_admin", "10.2.1.2 (all actions with administrative access)"),
        _days(366, 366, "10.5.1 (twelve months, the last three immediately available)"),
        _on("compliance.log_card_data_access", "10.2.1.1 (all individual access to cardholder data)"),
        _on("compliance.prohibit_plaintext_card", "3.3.1 and 3.5.1 (no card number where none is meant to be)"),
    ),
    {},
)
_FDA = Preset(
    "fda_21_cfr_part_11",
    "21 CFR Part 11",
    (
        _on("encryption.enabled", "11.30 (open systems: encryption)"),
        *_changes("11.10(e) (audit trail of actions that create, modify or delete records)"),
        Floor(
            "audit.capture_rows",
            lambda kind: kind == "values",
            '"values"',
            "11.10(e) (changes do not obscure what was recorded before)",
            default="values",
        ),
        Floor(
            "audit.capture_parameters",
            lambda kind: kind == "expanded",
            '"expanded"',
            "11.10(e) (row images need values that are recorded)",
            default="expanded",
        ),
        _on("compliance.audit_trail_lockdown", "11.10(e) (the trail is kept as long as the record)"),
    ),
    {"audit.retention_days": 2555, "audit.log_transactions": True, "audit.log_select": True},
)
_IEC = Preset(
    "iec_62443",
    "IEC 62443-4-2, component requirements",
    (
        _on("encryption.enabled", "CR 4.1 (confidentiality of information at rest)"),
        *_changes("CR 2.8 (auditable events)"),
        _on("audit.log_admin", "CR 2.8 (configuration changes, backup and restore)"),
    ),
    {"audit.retention_days": 366},
)
_FIPS = Preset(
    "fips",
    "FIPS 140-3 (certificates of FIPS 140-2 are historical since 2026-09-21)",
    (
        _on("encryption.enabled", "FIPS 140-3 (a module encrypts)"),
        _on("encryption.fips_mode", "FIPS 140-3 (approved algorithms, and a validated module or no claim)"),
    ),
    {},
)
PRESETS: Mapping[str, Preset] = {one.name: one for one in (_SOC2, _HIPAA, _GDPR, _PCI, _FDA, _IEC, _FIPS)}
_SPELLINGS = {
    "soc_2": "soc2",
    "pci": "pci_dss",
    "pcidss": "pci_dss",
    "fda": "fda_21_cfr_part_11",
    "21_cfr_part_11": "fda_21_cfr_part_11",
    "iec62443": "iec_62443",
    "fips_140_3": "fips",
    "fips_140_2": "fips",
}


def preset_name(spelling: str) -> str | None:
    """Return the name of a preset, however it is spelled ("FDA_21_CFR_Part_11"); None: there is none."""
    name = spelling.strip().lower().replace("-", "_").replace(" ", "_")
    name = _SPELLINGS.get(name, name)
    return name if name in PRESETS else None


def floors_of(names: Iterable[str]) -> list[tuple[Preset, Floor]]:
    """Return the floors of several presets."""
    return [(PRESETS[name], floor) for name in names for floor in PRESETS[name].floors]
