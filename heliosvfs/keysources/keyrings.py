"""A key in the operating system's keyring (macOS Keychain, Windows Credential Locker, Secret Service)."""

from __future__ import annotations

from dataclasses import dataclass

from heliosvfs.errors import KeyUnavailableError
from heliosvfs.keys import Secret
from heliosvfs.keysources.forms import raw_or_passphrase

__all__ = ["KeyFromKeyring"]


@dataclass(frozen=True)
class KeyFromKeyring:
    """A key in the operating system's keyring; ``keyring set SERVICE USERNAME`` puts one there.

    Args:
        service: Name of the service that it is kept for.
        username: Name of the user that it is kept for.
        passphrase: It is a passphrase and not 64 hexadecimal digits.
    """

    service: str
    username: str
    passphrase: bool = False

    def secret(self) -> Secret:
        """Ask the keyring; it may ask its user to unlock it.

        Raises:
            KeyUnavailableError: The library is missing, there is no keyring, it stays locked, or holds no such key.
        """
        try:
            import keyring  # noqa: PLC0415 - an optional dependency
            import keyring.errors  # noqa: PLC0415 - the same
        except ImportError:
            msg = "a key in the system's keyring needs the library keyring: pip install 'heliosvfs[keyring]'"
            raise KeyUnavailableError(msg) from None
        where = f"the keyring's entry {self.service!r} of {self.username!r}"
        try:
            value = keyring.get_password(self.service, self.username)
        except keyring.errors.NoKeyringError:
            msg = f"{where} can't be read: this system has no keyring that the library keyring knows (`keyring diagnose`)"
        except keyring.errors.KeyringLocked:
            msg = f"{where} can't be read: the keyring is locked and was not unlocked"
        except keyring.errors.InitError:
            msg = f"{where} can't be read: the keyring can't be opened"
        except keyring.errors.KeyringError as error:
            msg = f"{where} can't be read: the keyring reports {type(error).__name__}"
        else:
            if value is not None:
                return raw_or_passphrase(value.encode(), where, passphrase=self.passphrase)
            msg = f"{where} does not exist: `keyring set {self.service} {self.username}` makes it"
        raise KeyUnavailableError(msg)
