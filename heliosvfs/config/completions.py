"""What presets and implications make of a configuration, and what it may not say (docs/CONFIG.md, "Presets")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from heliosvfs.config import presets, reading
from heliosvfs.config.presets import PRESETS

if TYPE_CHECKING:
    from heliosvfs.config.configs import Config

__all__ = ["completed"]

_CLASSES = ("ddl", "dml", "select", "transactions", "auth", "admin")


def completed(config: Config, given: frozenset[str], source: str) -> Config:
    """Return a configuration as it takes effect.

    Args:
        config: What was said.
        given: Key paths of the options that were said; the others are filled in.
        source: What errors call it.

    Raises:
        ConfigError: It falls below its preset, or contradicts itself.
    """
    names = _presets_of(config, source)
    values, filled = _filling(config, names, given)
    for option, value in values.items():
        config = _with(config, option, value)
    for preset, floor in presets.floors_of(names):
        if not floor.holds(config.get(floor.option)):
            what = f"expected {floor.least} under the preset {preset.name}, which {floor.clause} asks for"
            if floor.option in filled:
                what += f"; {filled[floor.option]} wants another value, so the two can't be combined"
            raise reading.problem(source, floor.option, what)
    for option, holds, what in _contradictions(config):
        if holds:
            raise reading.problem(source, option, what)
    origins = msgspec.structs.replace(
        config.origins, source=source, given=given, filled=filled, presets=tuple(names), is_complete=True
    )
    return msgspec.structs.replace(config, origins=origins)


def _filling(config: Config, names: list[str], given: frozenset[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what is filled in, and by what."""
    values: dict[str, Any] = {}
    filled: dict[str, str] = {}
    for option, value, by in (*_wanted(names), *_implied(config)):
        held = values.get(option)
        if option not in given and (held is None or (isinstance(value, int) and isinstance(held, int) and value > held)):
            values[option], filled[option] = value, by
    return values, filled


def _wanted(names: list[str]) -> Iterator[tuple[str, Any, str]]:
    """Yield what presets set: key path, value, preset."""
    for name in names:
        preset = PRESETS[name]
        for option, value in {**{floor.option: floor.default for floor in preset.floors}, **preset.defaults}.items():
            yield option, value, name


def _implied(config: Config) -> Iterator[tuple[str, Any, str]]:
    """Yield what other options set: key path, value, the option that implies it."""
    compliance, security = config.compliance, config.security
    switches = {
        "security.access_control": security.access_control == "mandatory",
        "security.audit_all_operations": security.audit_all_operations,
        "compliance.require_electronic_signatures": compliance.require_electronic_signatures,
        "compliance.audit_trail_lockdown": compliance.audit_trail_lockdown,
        "compliance.log_card_data_access": compliance.log_card_data_access,
        "compliance.prohibit_plaintext_card": compliance.prohibit_plaintext_card,
    }
    for option, is_on in switches.items():
        if is_on:
            yield "audit.enabled", True, option
    if security.audit_all_operations:
        for name in _CLASSES:
            yield f"audit.log_{name}", True, "security.audit_all_operations"
    if compliance.log_card_data_access or config.gdpr.enable_right_to_access:
        by = "compliance.log_card_data_access" if compliance.log_card_data_access else "gdpr.enable_right_to_access"
        yield "audit.log_select", True, by
    if config.gdpr.audit_retention_days is not None:
        yield "audit.retention_days", config.gdpr.audit_retention_days, "gdpr.audit_retention_days"


def _with(config: Config, option: str, value: Any) -> Config:
    section, _, name = option.partition(".")
    return msgspec.structs.replace(config, **{section: msgspec.structs.replace(getattr(config, section), **{name: value})})


def _presets_of(config: Config, source: str) -> list[str]:
    """Return the names of the presets that a configuration names, by whichever option."""
    compliance = config.compliance
    said: list[tuple[str, str | None]] = [
        ("preset", name) for name in ([compliance.preset] if isinstance(compliance.preset, str) else compliance.preset)
    ]
    said += [("framework", compliance.framework), ("regulatory_standard", compliance.regulatory_standard)]
    names = []
    for option, spelling in said:
        if spelling is None:
            continue
        name = presets.preset_name(spelling)
        if name is None:
            raise reading.problem(source, f"compliance.{option}", f"unknown preset{reading.nearest(spelling, PRESETS)}")
        names.append(name)
    names += ["pci_dss"] * compliance.pci_dss_mode + ["fda_21_cfr_part_11"] * compliance.fda_21_cfr_part_11
    return list(dict.fromkeys(names))


def _contradictions(config: Config) -> list[tuple[str, bool, str]]:
    """Return each pair of options that can't both be: where to say it, whether it is so, and what to say."""
    offline, audit, security = config.offline, config.audit, config.security
    is_offline = offline.network_disabled or offline.usb_transfer_only
    source = config.encryption.key_source
    needs_audit = "expected audit.enabled = true, for what is refused has to be recorded"
    labelled = security.labels or security.classification_level
    return [
        ("encryption.key_source.Vault", is_offline and source is not None and source.vault is not None, "expected no network"),
        (
            "edge.sync_endpoint",
            (is_offline or offline.external_sync_disabled) and bool(config.edge.sync_endpoint or config.edge.sync_on_connect),
            "expected none, for [offline] forbids it",
        ),
        (
            "encryption.key_source",
            not config.encryption.enabled and source is not None,
            "expected none, for encryption.enabled is false",
        ),
        ("encryption.fips_mode", not config.encryption.enabled and bool(config.encryption.fips_mode), "expected encryption"),
        ("security.access_control", security.access_control == "mandatory" and not audit.enabled, needs_audit),
        (
            "security.classification_level",
            bool(security.labels) and security.access_control != "mandatory",
            'expected access_control = "mandatory" beside labels, or nobody enforces them',
        ),
        (
            "security.access_control",
            security.access_control == "mandatory" and not labelled,
            "expected a level or labels beside it",
        ),
        ("compliance.prohibit_plaintext_card", config.compliance.prohibit_plaintext_card and not audit.enabled, needs_audit),
        (
            "compliance.require_electronic_signatures",
            config.compliance.require_electronic_signatures and not audit.enabled,
            "expected audit.enabled = true, for a signature is bound to its event",
        ),
        (
            "compliance.audit_trail_lockdown",
            config.compliance.audit_trail_lockdown and not audit.enabled,
            "expected audit.enabled = true, or there is no trail",
        ),
        (
            "compliance.log_card_data_access",
            config.compliance.log_card_data_access and not (audit.enabled and audit.log_select),
            "expected audit.enabled = true and audit.log_select = true",
        ),
        (
            "security.audit_all_operations",
            security.audit_all_operations and not all(getattr(audit, f"log_{name}") for name in _CLASSES),
            "expected no class of events to be switched off under [audit]",
        ),
        (
            "gdpr.enable_right_to_access",
            config.gdpr.enable_right_to_access and audit.enabled and not audit.log_select,
            "expected audit.log_select = true: access to personal data is logged",
        ),
        (
            "audit.capture_rows",
            audit.capture_rows == "values" and audit.capture_parameters != "expanded",
            'expected capture_parameters = "expanded", for row images hold values',
        ),
        (
            "audit.hash_key_source",
            (audit.capture_parameters == "hashed") != (audit.hash_key_source is not None),
            'expected it with capture_parameters = "hashed", and only then: without a key, short values could be guessed',
        ),
        (
            "logging.audit_log_path",
            config.logging.audit_log_enabled and not config.logging.audit_log_path,
            "expected the path of a file",
        ),
        (
            "logging.log_encryption_operations",
            config.logging.log_encryption_operations and not config.logging.audit_log_enabled,
            "expected audit_log_enabled = true beside it, or there is no file to log to",
        ),
        (
            "backup.backup_retention_days",
            config.backup.backup_retention_days is not None and not config.backup.backup_enabled,
            "expected backup_enabled = true",
        ),
    ]
