"""The options of a configuration: one struct a section, one field an option (docs/CONFIG.md lists them)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from heliosvfs.compliance.declarations import DataPath, Expiry
from heliosvfs.layout import is_page_size

__all__ = [
    "Audit",
    "Backup",
    "CaptureMetadata",
    "Compliance",
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
    "OtherKey",
    "Pkcs11Key",
    "Security",
    "Server",
    "VaultKey",
]

Days = Annotated[int, Meta(ge=1, le=36_500)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Megabytes = Annotated[int, Meta(ge=1, le=1_048_576)]
_NAMES = ("File", "Environment", "Command", "Keyring", "Passphrase", "Pkcs11", "Vault", "Other")
_ALGORITHMS = ("Aes256Gcm", "AES-256-GCM", "aes-256-gcm", "AES256GCM")


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section; it takes no option that it does not know."""


class Database(_Section, frozen=True):
    """[database]."""

    path: str = ""
    page_size: int = 4096
    enable_wal: bool = True
    memory_limit_mb: Megabytes | None = None
    cache_mb: Megabytes | None = None

    def __post_init__(self) -> None:
        """Check what types don't say."""
        if not is_page_size(self.page_size):
            msg = "page_size: expected a power of two from 512 to 65536"
            raise ValueError(msg)


class FileKey(_Section, frozen=True):
    """A key in a file."""

    path: str
    passphrase: bool = False
    allow_shared: bool = False


class KeyringKey(_Section, frozen=True):
    """A key in the operating system's keyring."""

    service: str
    username: str
    passphrase: bool = False


class Pkcs11Key(_Section, frozen=True):
    """A key that a PKCS#11 token derives; the PIN comes from a file or a variable."""

    module: str
    token: str
    key: str
    pin_file: str | None = None
    pin_environment: str | None = None
    name: str = "database"


class VaultKey(_Section, frozen=True):
    """A key that Vault's transit engine unwraps; the token comes from a file or a variable."""

    url: str
    key: str
    ciphertext: str
    token_file: str | None = None
    token_environment: str | None = None
    mount: str = "transit"
    namespace: str = ""
    ca_file: str | None = None


class OtherKey(_Section, frozen=True):
    """A key source that another package declares (heliosvfs.keysources.registry)."""

    name: str
    options: dict[str, str | int | float | bool] = {}


class KeySourceOption(_Section, frozen=True, rename="pascal"):
    """encryption.key_source: exactly one of its fields."""

    file: str | FileKey | None = None
    environment: str | None = None
    command: Annotated[list[str], Meta(min_length=1)] | None = None
    keyring: KeyringKey | None = None
    passphrase: Literal["prompt"] | None = None
    pkcs11: Pkcs11Key | None = None
    vault: VaultKey | None = None
    other: OtherKey | None = None

    def __post_init__(self) -> None:
        """See that one source is named."""
        given = [name for name in _NAMES if getattr(self, name.lower()) is not None]
        if len(given) != 1:
            msg = f"expected exactly one of {', '.join(_NAMES)}, found {', '.join(given) or 'none'}"
            raise ValueError(msg)


class Encryption(_Section, frozen=True):
    """[encryption]."""

    enabled: bool = True
    algorithm: str = "Aes256Gcm"
    key_source: KeySourceOption | None = None
    rotation_interval_days: Days | None = None
    auto_rotate: bool = False
    fips_mode: bool | Literal["algorithms-only"] = False

    def __post_init__(self) -> None:
        """Check what types don't say."""
        if self.algorithm not in _ALGORITHMS:
            msg = 'algorithm: expected "Aes256Gcm" (also "AES-256-GCM"), which is the only one there is'
            raise ValueError(msg)
        if self.auto_rotate and self.rotation_interval_days is None:
            msg = "auto_rotate: expected rotation_interval_days beside it, or nothing is ever due"
            raise ValueError(msg)


class CaptureMetadata(_Section, frozen=True):
    """[audit.capture_metadata]."""

    capture_client_ip: bool = True
    capture_application_name: bool = True
    capture_database_name: bool = True
    capture_execution_time: bool = True
    capture_custom_fields: bool = True


class Audit(_Section, frozen=True):
    """[audit]; for the meaning of each option see `heliosaudit.Policy`."""

    enabled: bool = False
    log_ddl: bool = True
    log_dml: bool = True
    log_select: bool = False
    log_transactions: bool = False
    log_auth: bool = True
    log_admin: bool = True
    retention_days: Days | None = None
    async_buffer_size: Count = 500
    enable_checksums: bool = True
    max_query_length: Count = 5000
    max_value_length: Count = 256
    read_durability: Literal["buffered", "strict"] = "buffered"
    capture_parameters: Literal["expanded", "redactable", "hashed", "none"] = "expanded"
    hash_key_source: KeySourceOption | None = None
    capture_rows: Literal["none", "keys", "values"] = "none"
    include_tables: tuple[str, ...] = ()
    exclude_tables: tuple[str, ...] = ()
    include_users: tuple[str, ...] = ()
    exclude_users: tuple[str, ...] = ()
    redacted_columns: tuple[str, ...] = ()
    capture_metadata: CaptureMetadata = CaptureMetadata()

    def __post_init__(self) -> None:
        """Refuse what is not to be had."""
        if not self.enable_checksums:
            msg = "enable_checksums: expected true; there is no log without its chain"
            raise ValueError(msg)


class Logging(_Section, frozen=True):
    """[logging]."""

    audit_log_enabled: bool = False
    audit_log_path: str | None = None
    log_encryption_operations: bool = False
    verbose_logging: bool = False


class Monitoring(_Section, frozen=True):
    """[monitoring]."""

    metrics_enabled: bool = False
    metrics_path: str | None = None
    verbose_logging: bool = False


class Compliance(_Section, frozen=True):
    """[compliance]."""

    preset: str | tuple[str, ...] = ()
    framework: str | None = None
    regulatory_standard: str | None = None
    pci_dss_mode: bool = False
    fda_21_cfr_part_11: bool = False
    require_electronic_signatures: bool = False
    signed_tables: tuple[str, ...] = ()
    audit_trail_lockdown: bool = False
    log_card_data_access: bool = False
    prohibit_plaintext_card: bool = False


class Gdpr(_Section, frozen=True):
    """[gdpr]."""

    data_residency: str | None = None
    anonymization_enabled: bool = False
    audit_retention_days: Days | None = None
    data_retention_days: Days | None = None
    enable_right_to_access: bool = False
    enable_right_to_erasure: bool = False
    enable_consent_tracking: bool = False
    personal_data: tuple[DataPath, ...] = ()
    expiring: tuple[Expiry, ...] = ()


class Security(_Section, frozen=True):
    """[security]."""

    classification_level: str | None = None
    access_control: Literal["none", "mandatory"] = "none"
    audit_all_operations: bool = False
    levels: tuple[str, ...] = ("UNCLASSIFIED", "CONFIDENTIAL", "SECRET", "TOP_SECRET")
    labels: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Check that levels are levels."""
        if len(self.levels) != len(set(self.levels)) or not self.levels:
            msg = "levels: expected different names, the lowest first"
            raise ValueError(msg)
        for name, level in [("classification_level", self.classification_level), *self.labels.items()]:
            if level is not None and level not in self.levels:
                msg = f"{name}: expected one of {', '.join(self.levels)}"
                raise ValueError(msg)


class Backup(_Section, frozen=True):
    """[backup]."""

    backup_enabled: bool = False
    backup_encryption: bool = True
    backup_retention_days: Days | None = None
    directory: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is not to be had."""
        if not self.backup_encryption:
            msg = "backup_encryption: expected true; a backup is encrypted (`heliosvfs decrypt` makes plain copies)"
            raise ValueError(msg)


class Iot(_Section, frozen=True):
    """[iot]."""

    power_loss_protection: bool = False
    flash_optimization: bool = False
    edge_mode: bool = False


class Edge(_Section, frozen=True):
    """[edge]: sending audit events to an endpoint, which a later release does."""

    offline_mode: bool = False
    sync_on_connect: bool = False
    sync_endpoint: str | None = None
    compression_enabled: bool = False


class Offline(_Section, frozen=True):
    """[offline]."""

    network_disabled: bool = False
    external_sync_disabled: bool = False
    usb_transfer_only: bool = False


class Container(_Section, frozen=True):
    """[container]."""

    enable_shutdown_on_signal: bool = False
    graceful_shutdown_timeout_secs: Annotated[float, Meta(gt=0, le=3600)] = 30.0


class Server(_Section, frozen=True):
    """[server]; host and port are for a server that a later release has."""

    host: str | None = None
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    service_name: str | None = None
