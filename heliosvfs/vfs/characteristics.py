"""What a file reports of its device: POWERSAFE_OVERWRITE as the base has it; no other promise of it holds for pages."""

from __future__ import annotations

import functools
from collections.abc import Callable

import apsw

__all__ = ["reporting"]


def reporting(base: int) -> Callable[[], int]:
    """Return an xDeviceCharacteristics for a file whose base reports ``base``, SQLITE_IOCAP_* added up.

    It is not Python code, which an interrupt could stop: APSW can't hand on an exception from there, so it would be printed and
    forgotten, and the program go on.
    """
    return functools.partial(int, base & apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE)
