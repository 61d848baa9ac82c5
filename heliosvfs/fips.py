"""FIPS mode: which cryptographic modules are in use, and whether they run as validated ones; docs/FIPS.md says what that means.

Two libraries compute here: the OpenSSL behind the package `cryptography` (AES-GCM, HKDF, PBKDF2, Ed25519) and the one behind
Python's own `hashlib` and `hmac` (SHA-256, HMAC). A program can see whether each runs with its FIPS provider only; no program can
see a certificate.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes

from heliosvfs.errors import PolicyViolationError

__all__ = ["FipsStatus", "require", "status"]


@dataclass(frozen=True)
class FipsStatus:
    """What runs here.

    Attributes:
        cipher_module: Version text of the OpenSSL behind `cryptography`.
        cipher_provider: Whether it runs with its FIPS provider only.
        hash_module: Version text of the OpenSSL behind Python's hashlib and hmac.
        hash_provider: Whether it runs with its FIPS provider only.
    """

    cipher_module: str
    cipher_provider: bool
    hash_module: str
    hash_provider: bool

    @property
    def validated_modules(self) -> bool:
        """Whether all cryptography is done by FIPS providers; whether those are validated is for their certificates to say."""
        return self.cipher_provider and self.hash_provider

    def explain(self) -> str:
        """Say in words what is missing, "" if nothing is."""
        missing = []
        if not self.cipher_provider:
            missing.append(f"the package cryptography uses {self.cipher_module} without a FIPS provider")
        if not self.hash_provider:
            missing.append(f"Python's hashlib and hmac use {self.hash_module} without a FIPS provider")
        return " and ".join(missing)


def status() -> FipsStatus:
    """Find out which modules are in use, and how they run."""
    return FipsStatus(
        cipher_module=backend.openssl_version_text(),
        cipher_provider=_cipher_provider(),
        hash_module=ssl.OPENSSL_VERSION,
        hash_provider=_hash_provider(),
    )


def require(*, algorithms_only: bool = False) -> FipsStatus:
    """Refuse to go on unless all cryptography is done by FIPS providers.

    Args:
        algorithms_only: Be content with approved algorithms, whoever computes them.

    Raises:
        PolicyViolationError: It is not; the message names the modules in use.
    """
    found = status()
    if not found.validated_modules and not algorithms_only:
        msg = (
            f"FIPS mode: {found.explain()}, so nothing here is computed by a validated module; install builds that use one "
            "(docs/FIPS.md), or ask for approved algorithms only and claim no more than that"
        )
        raise PolicyViolationError(msg)
    return found


def _cipher_provider() -> bool:
    """Tell whether `cryptography` says that its provider is the FIPS one, and behaves like it: MD5 is not approved."""
    if not backend._fips_enabled:  # noqa: SLF001 - there is no public way to ask
        return False
    try:
        hashes.Hash(hashes.MD5()).finalize()  # noqa: S303 - asked in order to be refused
    except UnsupportedAlgorithm:
        return True
    return False


def _hash_provider() -> bool:
    """Tell the same of Python's own module."""
    try:
        import _hashlib  # noqa: PLC0415 - a Python without OpenSSL has none

        if not _hashlib.get_fips_mode():
            return False
        hashlib.md5(b"", usedforsecurity=True)  # noqa: S324 - asked in order to be refused
    except ImportError:
        return False
    except ValueError:
        return True
    return False
