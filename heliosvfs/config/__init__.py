"""Configurations: ``heliosdb.toml``, its presets, and what each option does (docs/CONFIG.md).

from heliosvfs.config import Config

config = Config.from_file("heliosdb.toml")
connection = heliosvfs.connect(config=config)
"""

from __future__ import annotations

from heliosvfs.config.configs import Config, Origins
from heliosvfs.config.sections import (
    Audit,
    Backup,
    CaptureMetadata,
    Compliance,
    Container,
    Database,
    Edge,
    Encryption,
    FileKey,
    Gdpr,
    Iot,
    KeyringKey,
    KeySourceOption,
    Logging,
    Monitoring,
    Offline,
    OtherKey,
    Pkcs11Key,
    Security,
    Server,
    VaultKey,
)

__all__ = [
    "Audit",
    "Backup",
    "CaptureMetadata",
    "Compliance",
    "Config",
    "Container",
    "Database",
    "Edge",
    "Encryption",
    "FileKey",
    "Gdpr",
    "Iot",
    "KeySourceOption",
    "KeyringKey",
    "Logging",
    "Monitoring",
    "Offline",
    "Origins",
    "OtherKey",
    "Pkcs11Key",
    "Security",
    "Server",
    "VaultKey",
]
