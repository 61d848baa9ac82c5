"""A key that a hardware security module makes, through PKCS#11 and the library `python-pkcs11`.

The module holds an HMAC key that never leaves it. What unlocks the database is that key's HMAC-SHA-256 of a name
(CKM_SHA256_HMAC), 32 bytes: without the module nobody can compute it, and nothing needs to be stored beside the database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from heliosvfs.errors import KeyUnavailableError, UsageError
from heliosvfs.keys import KEY_BYTES, Secret

if TYPE_CHECKING:
    from heliosvfs.keyring import KeySource

__all__ = ["KeyFromPKCS11"]

_PURPOSE = b"heliosvfs 1 pkcs11\0"

_WRONG_PIN = "the token refuses the PIN; it may lock itself after a few more tries"
_WRONG_KIND = "it can't sign with CKM_SHA256_HMAC, which takes a generic secret key with CKA_SIGN"
_SILENT = "the token does not answer"
_REASONS = {  # by the name of python-pkcs11's exception
    "NoSuchToken": "no such token is present",
    "MultipleTokensReturned": "several tokens have that label",
    "NoSuchKey": "there is no such key, or the PIN that was given may not see it",
    "MultipleObjectsReturned": "several keys have that label",
    "PinIncorrect": _WRONG_PIN,
    "PinInvalid": _WRONG_PIN,
    "PinLenRange": _WRONG_PIN,
    "PinLocked": "too many wrong PINs have locked the token; its security officer can unlock it",
    "MechanismInvalid": _WRONG_KIND,
    "FunctionNotSupported": _WRONG_KIND,
    "KeyTypeInconsistent": _WRONG_KIND,
    "AttributeTypeInvalid": _WRONG_KIND,
    "DeviceRemoved": _SILENT,
    "DeviceError": _SILENT,
    "TokenNotPresent": _SILENT,
}


@dataclass(frozen=True)
class KeyFromPKCS11:
    """A key that a PKCS#11 token derives.

    Args:
        module: Path of the vendor's PKCS#11 library.
        token: Label of the token.
        key: Label of a secret key on it that may sign (CKA_SIGN) with CKM_SHA256_HMAC.
        pin: Source of the user PIN, a passphrase: ``KeyFile(path, passphrase=True)``, say; None: no login.
        name: What the key is for; another name gives an unrelated key.
    """

    module: str
    token: str
    key: str
    pin: KeySource | None = field(default=None, repr=False)
    name: str = "database"

    def secret(self) -> Secret:
        """Have the token compute the key.

        Raises:
            KeyUnavailableError: The library, module, token or key is missing, the PIN is refused, or the token can't do it.
            UsageError: The PIN's source gives a raw key.
        """
        try:
            import pkcs11  # noqa: PLC0415 - an optional dependency
            import pkcs11.exceptions  # noqa: PLC0415 - the same
        except ImportError:
            msg = "a key from a PKCS#11 token needs the library python-pkcs11: pip install 'heliosvfs[pkcs11]'"
            raise KeyUnavailableError(msg) from None
        pin = self._pin()
        try:
            library = pkcs11.lib(self.module)
        except (RuntimeError, OSError, pkcs11.exceptions.PKCS11Error):
            why = f"the module {self.module} can't be loaded"
            raise self._unusable(why) from None
        try:
            found = self._derive(pkcs11, library.get_token(token_label=self.token), pin)
        except pkcs11.exceptions.PKCS11Error as error:
            name = type(error).__name__
            raise self._unusable(_REASONS.get(name, f"the token reports {name}")) from None
        if len(found) != KEY_BYTES:
            why = f"it gave {len(found)} bytes, and an HMAC-SHA-256 has {KEY_BYTES}"
            raise self._unusable(why)
        return Secret.raw(found)

    def _unusable(self, why: str) -> KeyUnavailableError:
        return KeyUnavailableError(f"the key {self.key!r} on the PKCS#11 token {self.token!r} can't be used: {why}")

    def _pin(self) -> str | None:
        if self.pin is None:
            return None
        secret = self.pin.secret()
        if secret.kind != "passphrase":
            msg = "the PIN of a PKCS#11 token is a passphrase: give its source passphrase=True"
            raise UsageError(msg)
        return secret.value.decode()

    def _derive(self, pkcs11: Any, token: Any, pin: str | None) -> bytes:
        with token.open(user_pin=pin) as session:
            key = session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=self.key)
            if not hasattr(key, "sign"):  # the library leaves out what the key's attributes do not permit
                raise self._unusable(_WRONG_KIND)
            return bytes(key.sign(_PURPOSE + self.name.encode(), mechanism=pkcs11.Mechanism.SHA256_HMAC))
