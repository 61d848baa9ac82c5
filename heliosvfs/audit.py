"""The audit log, `heliosaudit`, under the name by which the rest of heliosvfs speaks of it."""

from __future__ import annotations

from heliosaudit import *  # noqa: F403 - the same public names
from heliosaudit import __all__ as __all__  # noqa: PLC0414 - and no others
