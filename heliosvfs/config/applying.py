"""Opening a database as a configuration says: each option does here what docs/CONFIG.md says of it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import apsw

import heliosaudit
from heliosvfs import activity, fips, memory_limits, metrics, networks, opening, shutdowns
from heliosvfs.audited import AuditedConnection
from heliosvfs.compliance import cards, labels, signatures
from heliosvfs.config import reading
from heliosvfs.config.configs import Config
from heliosvfs.config.keys import key_of, no_key
from heliosvfs.config.policies import policy_of, require_floors
from heliosvfs.connection import Connection, is_in_memory
from heliosvfs.errors import FormatError, KeyUnavailableError, UsageError
from heliosvfs.keyring import Key
from heliosvfs.keys import KdfSettings
from heliosvfs.rowid_cursors import give_rowids

__all__ = ["OptionNotInEffectWarning", "config_from", "connect", "without_effect"]

_EDGE_CACHE_MB = 2.0
_FLASH_CHECKPOINT = 4000  # pages of WAL before a checkpoint: a page that changes often is written into the database less often
_warned: set[tuple[str, ...]] = set()


class OptionNotInEffectWarning(UserWarning):
    """A configuration has options whose feature is in a later release, or that lack what they are about."""


def config_from(config: Any) -> Config:
    """Take what callers give as a configuration: a Config, a dict of sections, or the path of a TOML file.

    Raises:
        ConfigError: It can't be used.
    """
    if isinstance(config, Config):
        return config.completed()
    if isinstance(config, Mapping):
        return Config.from_dict(config)
    if isinstance(config, (str, os.PathLike)):
        return Config.from_file(config)
    kind = type(config).__name__
    raise reading.problem("config", "", f"expected a heliosvfs.Config, a dict or the path of a TOML file, found {kind}")


def without_effect(config: Config) -> dict[str, str]:
    """Return the options that are set and do nothing here, with the reason."""
    later = "sending events to an endpoint is in a later release"
    server = "`heliosvfs serve` is in a later release"
    reasons = {
        "edge.offline_mode": (config.edge.offline_mode, later),
        "edge.sync_on_connect": (config.edge.sync_on_connect, later),
        "edge.sync_endpoint": (config.edge.sync_endpoint is not None, later),
        "edge.compression_enabled": (config.edge.compression_enabled, later),
        "server.host": (config.server.host is not None, server),
        "server.port": (config.server.port is not None, server),
        "gdpr.data_retention_days": (
            config.gdpr.data_retention_days is not None and not config.gdpr.expiring,
            "gdpr.expiring names no table whose rows expire",
        ),
        "compliance.require_electronic_signatures": (
            config.compliance.require_electronic_signatures and not config.compliance.signed_tables,
            "compliance.signed_tables names no table whose changes have to be signed",
        ),
    }
    return {option: reason for option, (is_set, reason) in reasons.items() if is_set}


def warn_once(config: Config) -> None:
    """Name the options without effect, once for each configuration."""
    found = without_effect(config)
    which = (config.origins.source, *found)
    if found and which not in _warned:
        _warned.add(which)
        said = "; ".join(f"{option}: {reason}" for option, reason in found.items())
        warnings.warn(f"{config.origins.source}: without effect: {said}", OptionNotInEffectWarning, stacklevel=4)


def connect(
    config: Any,
    path: str | os.PathLike[str] | None,
    *,
    key: Key | None = None,
    audit: heliosaudit.Policy | str | None = None,
    opener: Callable[..., Connection],
    **options: Any,
) -> Connection:
    """Open a database as a configuration says.

    Args:
        config: See `config_from`.
        path: The file; None: that of the configuration.
        key: Its key; None: that of the configuration.
        audit: Its audit policy; None: that of the configuration. It may not record less than a preset asks for.
        opener: Opens an encrypted database: `heliosvfs.opening.connect`.
        **options: What the caller says of the opener's options; it goes before the configuration.

    Raises:
        ConfigError: The configuration can't be used.
        KeyUnavailableError, WrongKeyError, FormatError, UsageError: As `heliosvfs.connect`.
        PolicyViolationError: FIPS mode, and no validated module.
    """
    config = config_from(config)
    where = os.fspath(path) if path is not None else os.path.expanduser(config.database.path)
    if path is None and not where:
        raise reading.problem(config.origins.source, "database.path", "expected the path of the database")
    warn_once(config)
    _prepare_process(config)
    policy = heliosaudit.Policy.preset(audit) if isinstance(audit, str) else audit
    if policy is None:
        policy = policy_of(config)
    else:
        require_floors(config, policy)
    options = _options(config) | {name: value for name, value in options.items() if value is not None}
    if config.encryption.enabled:
        if config.encryption.fips_mode:
            fips.require(algorithms_only=config.encryption.fips_mode == "algorithms-only")
            options["settings"] = _fips_settings(options.get("settings"))
        if key is None and not is_in_memory(where):
            key = key_of(config)
        try:
            connection = opener(where, key=key, audit=policy, **options)
        except KeyUnavailableError as error:
            if key is None:
                raise no_key(config, error) from error
            raise
    else:
        connection = _open_plain(where, policy, options)
    try:
        _enforce(connection, config)
    except BaseException:
        connection.close(True)  # noqa: FBT003 - APSW's signature
        raise
    give_rowids(connection)
    connection.configuration = config
    connection.configured = {"presets": list(config.origins.presets), "audit_enabled": policy is not None}
    if config.gdpr.data_residency is not None:
        connection.configured["data_residency"] = config.gdpr.data_residency
    return connection


def _prepare_process(config: Config) -> None:
    """Do what an option asks for of the whole process."""
    if config.database.memory_limit_mb is not None:
        memory_limits.limit(config.database.memory_limit_mb)
    if config.offline.network_disabled or config.offline.usb_transfer_only:
        networks.disable(f"[offline] of {config.origins.source}")
    log = config.logging
    if log.audit_log_enabled and log.audit_log_path is not None:
        verbose = log.verbose_logging or config.monitoring.verbose_logging
        activity.open_log(
            os.path.expanduser(log.audit_log_path), encryption_operations=log.log_encryption_operations, verbose=verbose
        )
    if config.container.enable_shutdown_on_signal:
        shutdowns.install(config.container.graceful_shutdown_timeout_secs)


def _fips_settings(settings: KdfSettings | None) -> KdfSettings:
    given = settings or KdfSettings()
    return KdfSettings(fips_mode=True, iterations=given.iterations)


def _options(config: Config) -> dict[str, Any]:
    """Return what a configuration says of `heliosvfs.connect`'s options."""
    database, iot = config.database, config.iot
    cache = _EDGE_CACHE_MB if iot.edge_mode else 16.0
    if database.memory_limit_mb is not None:
        cache = min(cache, memory_limits.cache_share(database.memory_limit_mb))
    pragmas: dict[str, Any] = {}
    if iot.power_loss_protection:
        # EXTRA also syncs the folder once a rollback journal is gone; in WAL mode it syncs each commit, as FULL does
        pragmas["synchronous"] = "EXTRA"
    if iot.flash_optimization:
        pragmas["wal_autocheckpoint"] = _FLASH_CHECKPOINT
        pragmas["temp_store"] = "MEMORY"
    return {
        "page_size": database.page_size,
        "journal_mode": "wal" if database.enable_wal else "delete",
        "cache_mb": database.cache_mb if database.cache_mb is not None else cache,
        "rotation_interval_days": config.encryption.rotation_interval_days,
        "auto_rotate": config.encryption.auto_rotate,
        "pragmas": pragmas,
    }


def _open_plain(where: str, policy: heliosaudit.Policy | None, options: dict[str, Any]) -> Connection:
    """Open a database that is not encrypted, by SQLite's own VFS.

    Raises:
        FormatError: It is encrypted, or no database.
        UsageError: It can't be opened.
    """
    vfs = apsw.vfs_names()[0]
    kind = Connection if policy is None else AuditedConnection
    flags = apsw.SQLITE_OPEN_URI | (apsw.SQLITE_OPEN_READONLY if options.get("readonly") else apsw.SQLITE_OPEN_READWRITE)
    if options.get("create", True) and not options.get("readonly"):
        flags |= apsw.SQLITE_OPEN_CREATE
    try:
        connection = kind(where, flags=flags, vfs=vfs)
    except apsw.CantOpenError as error:
        msg = f"{where} can't be opened: {error}"
        raise UsageError(msg) from error
    try:
        connection.set_busy_timeout(int(options.get("busy_timeout", 5.0) * 1000))
        connection.pragma("page_size", options["page_size"])
        if not options.get("readonly"):
            connection.pragma("journal_mode", options["journal_mode"])
        connection.pragma("cache_size", -int(options["cache_mb"] * 1024))
        opening.set_pragmas(connection, options["pragmas"])
        if policy is not None and isinstance(connection, AuditedConnection):
            connection.audit(policy, vfs, None)
    except apsw.NotADBError as error:
        connection.close()
        msg = f"{where} is no plain SQLite database, and encryption.enabled = false says that it is one: is it encrypted?"
        raise FormatError(msg) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _enforce(connection: Connection, config: Config) -> None:
    """Put the rules of a configuration in force on a connection."""
    security, compliance = config.security, config.compliance
    if isinstance(connection, AuditedConnection):
        if compliance.prohibit_plaintext_card:
            cards.forbid_card_numbers(connection)
        if compliance.require_electronic_signatures and compliance.signed_tables:
            signatures.require_signatures(connection, compliance.signed_tables)
        if security.access_control == "mandatory":
            labels.enforce(
                connection,
                security.labels,
                levels=security.levels,
                classification_level=security.classification_level or security.levels[0],
            )
    if config.monitoring.metrics_enabled:
        metrics.watch(connection)
        if config.monitoring.metrics_path is not None:
            metrics.write_regularly(os.path.expanduser(config.monitoring.metrics_path))
