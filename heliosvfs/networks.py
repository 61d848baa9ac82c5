"""Whether this process may use a network at all: ``offline.network_disabled`` of a configuration forbids it.

It is for the whole process and for good: what one database's configuration forbids, no other part of it can bring back.
"""

from __future__ import annotations

from heliosvfs.errors import PolicyViolationError

__all__ = ["disable", "is_disabled", "require_network"]

_disabled: list[str] = []


def disable(by: str = "heliosvfs.networks.disable()") -> None:
    """Refuse every feature that uses a network from now on.

    Args:
        by: What asks for it; errors name it.
    """
    _disabled.append(by)


def is_disabled() -> bool:
    """Tell whether networks may not be used."""
    return bool(_disabled)


def require_network(what: str) -> None:
    """Refuse to go on where networks may not be used.

    Raises:
        PolicyViolationError: They may not.
    """
    if _disabled:
        msg = f"{what} needs a network, and {_disabled[0]} forbids that in this process"
        raise PolicyViolationError(msg)
