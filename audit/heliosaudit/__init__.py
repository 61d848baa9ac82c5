"""heliosaudit: a hash-chained audit log inside an SQLite database.

This release carries the package so that its name and its place in the wheel are fixed; it records nothing yet. It will work on
any `apsw.Connection` and never imports heliosvfs: who audits need not be able to decrypt.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
