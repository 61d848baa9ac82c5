"""`python -m heliosvfs`: the command line."""

from __future__ import annotations

from heliosvfs.cli import main

if __name__ == "__main__":
    main()
