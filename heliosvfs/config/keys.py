"""From encryption.key_source to a key source; without one, what the environment names."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from typing import Any

from heliosvfs import defaults, networks
from heliosvfs.config import reading
from heliosvfs.config.configs import Config
from heliosvfs.config.sections import FileKey, KeySourceOption, Pkcs11Key, VaultKey
from heliosvfs.errors import ConfigError, KeyUnavailableError, UsageError
from heliosvfs.keyring import Key, KeySource
from heliosvfs.keys import Secret
from heliosvfs.keysources import (
    KeyFile,
    KeyFromCommand,
    KeyFromEnvironment,
    KeyFromKeyring,
    KeyFromPKCS11,
    KeyFromVault,
    key_source,
)

__all__ = ["AskedPassphrase", "hash_key_of", "key_of", "no_key"]


class AskedPassphrase:
    """A passphrase that is asked for on the terminal."""

    def secret(self) -> Secret:
        """Ask.

        Raises:
            KeyUnavailableError: There is no terminal to ask on.
        """
        if not sys.stdin.isatty():
            msg = "the configuration says that the passphrase is asked for, and there is no terminal to ask on"
            raise KeyUnavailableError(msg)
        return Secret.passphrase(getpass.getpass("Passphrase: "))


def key_of(config: Config) -> Key | None:
    """Return the key source that a configuration names, or else the environment; None: neither names one.

    Raises:
        ConfigError: The source is named wrongly.
    """
    option = config.encryption.key_source
    if option is not None:
        try:
            return _source(option, config)
        except UsageError as error:
            raise reading.problem(config.origins.source, "encryption.key_source", str(error)) from None
    return defaults.environment_key()


def hash_key_of(config: Config) -> bytes:
    """Return the key of hashed parameters in the audit log, empty if there is none.

    Raises:
        ConfigError: The source is named wrongly, or gives a passphrase.
        KeyUnavailableError: The source has no key.
    """
    option = config.audit.hash_key_source
    if option is None:
        return b""
    try:
        secret = _source(option, config).secret()
    except UsageError as error:
        raise reading.problem(config.origins.source, "audit.hash_key_source", str(error)) from None
    if secret.kind != "raw":
        raise reading.problem(
            config.origins.source, "audit.hash_key_source", "expected a raw key of 32 bytes, found a passphrase"
        )
    return secret.value


def no_key(config: Config, error: KeyUnavailableError) -> KeyUnavailableError:
    """Return the error of a database that no key was found for."""
    msg = (
        f"{error}; {config.origins.source} names none as encryption.key_source, and neither do the environment variables "
        f"{defaults.KEY_FILE_VARIABLE} and {defaults.KEY_VARIABLE}"
    )
    return KeyUnavailableError(msg)


def _source(option: KeySourceOption, config: Config) -> KeySource:
    made: dict[str, Callable[[Any], KeySource]] = {
        "file": _file,
        "environment": KeyFromEnvironment,
        "command": KeyFromCommand,
        "keyring": lambda entry: KeyFromKeyring(entry.service, entry.username, passphrase=entry.passphrase),
        "passphrase": lambda _: AskedPassphrase(),
        "pkcs11": lambda token: _pkcs11(token, config),
        "vault": lambda vault: _vault(vault, config),
        "other": lambda other: key_source(other.name, **other.options),
    }
    (name,) = (name for name in made if getattr(option, name) is not None)  # the option names exactly one
    return made[name](getattr(option, name))


def _file(file: str | FileKey) -> KeySource:
    if isinstance(file, str):
        return KeyFile(os.path.expanduser(file))
    return KeyFile(os.path.expanduser(file.path), passphrase=file.passphrase, allow_shared=file.allow_shared)


def _pkcs11(token: Pkcs11Key, config: Config) -> KeySource:
    pin = _further("Pkcs11", "pin", token.pin_file, token.pin_environment, config)
    return KeyFromPKCS11(token.module, token.token, token.key, pin=pin, name=token.name)


def _vault(vault: VaultKey, config: Config) -> KeySource:
    networks.require_network("encryption.key_source.Vault")
    token = _further("Vault", "token", vault.token_file, vault.token_environment, config)
    places: dict[str, Any] = {"mount": vault.mount, "namespace": vault.namespace, "ca_file": vault.ca_file}
    return KeyFromVault(vault.url, vault.key, vault.ciphertext, token=token, **places)


def _further(kind: str, what: str, file: str | None, variable: str | None, config: Config) -> KeySource | None:
    """Return where a PIN or token comes from."""
    if file is not None and variable is not None:
        where = f"encryption.key_source.{kind}"
        raise ConfigError(f"{config.origins.source}: {where}: expected either {what}_file or {what}_environment")  # noqa: EM102 - short
    if file is not None:
        return KeyFile(os.path.expanduser(file), passphrase=True)
    return None if variable is None else KeyFromEnvironment(variable, passphrase=True)
