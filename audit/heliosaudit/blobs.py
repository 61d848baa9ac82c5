"""Blob handles of an audited connection: SQLite shows what is done through them in no hook but the preupdate's."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import apsw

if TYPE_CHECKING:
    from heliosaudit.auditors import Auditor
    from heliosaudit.captures import Running

__all__ = ["Blob"]


class Blob:
    """An `apsw.Blob` whose reads and writes are recorded when it is closed, or moved to another row."""

    def __init__(self, auditor: Auditor, blob: apsw.Blob, running: Running) -> None:
        self._auditor = auditor
        self._blob = blob
        self._running: Running | None = running

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blob, name)

    def read(self, length: int = -1) -> bytes:
        """See `apsw.Blob.read`."""
        return self._blob.read(length)

    def write(self, data: Any) -> None:
        """See `apsw.Blob.write`."""
        was = self._auditor.enter()
        try:
            self._blob.write(data)
        except BaseException as error:
            self._auditor.leave(was)
            if self._running is not None:
                self._auditor.blob_failed(self._running, error)
            raise
        self._auditor.leave(was)
        if self._running is not None:
            self._running.rows = 1

    def reopen(self, rowid: int) -> None:
        """See `apsw.Blob.reopen`."""
        self._blob.reopen(rowid)
        if self._running is not None:
            self._running = self._auditor.blob_moved(self._running, rowid)

    def close(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - APSW's signature
        """See `apsw.Blob.close`."""
        running, self._running = self._running, None
        if running is None or running.closed:
            self._blob.close(force)
            return
        self._auditor.finish(running)
        self._blob.close(force)

    def __enter__(self) -> Blob:
        """See `apsw.Blob.__enter__`."""
        self._blob.__enter__()
        return self

    def __exit__(self, *exception: object) -> bool | None:
        """See `apsw.Blob.__exit__`."""
        self.close()
        return None

    def __del__(self) -> None:
        """Close it, as APSW does."""
        if self._running is not None:
            with contextlib.suppress(Exception):
                self.close(True)  # noqa: FBT003 - APSW's signature
