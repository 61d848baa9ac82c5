"""The command `heliosvfs`: a thin skin over the library.

Exit status: 0 all is well, 1 something is wrong with a database or its key, 2 the command was used wrongly.
"""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; say what to install where its dependencies are missing."""
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(f"the command line needs {' and '.join(missing)}: pip install 'heliosvfs[cli]'\n")
        raise SystemExit(2)
    from heliosvfs.cli.app import run  # noqa: PLC0415 - its imports are optional dependencies

    run()
