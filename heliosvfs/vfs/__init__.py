"""The virtual file system: the only code that speaks SQLite's xRead and xWrite.

`filesystem` routes names to files; `database`, `wal`, `journal` and `temporary` are the four kinds of file.
"""

from __future__ import annotations

from heliosvfs.vfs.creation import now
from heliosvfs.vfs.credentials import Credential, presenting
from heliosvfs.vfs.database import DatabaseFile
from heliosvfs.vfs.filesystem import HeliosVFS, refuse_to_create
from heliosvfs.vfs.inspection import PageView, view_of
from heliosvfs.vfs.open_files import files_of
from heliosvfs.vfs.rekeying import change_secret

__all__ = [
    "Credential",
    "DatabaseFile",
    "HeliosVFS",
    "PageView",
    "change_secret",
    "files_of",
    "now",
    "presenting",
    "refuse_to_create",
    "view_of",
]
