"""Where encryption and audit meet: a Connection that knows its keys and records what is done with them."""

from __future__ import annotations

from typing import Any

import apsw

import heliosaudit
from heliosaudit.cursors import Cursor
from heliosvfs.connection import Connection, KeySlot
from heliosvfs.keyring import Key, as_secret
from heliosvfs.keys import KdfSettings, Secret
from heliosvfs.metrics import note_closing
from heliosvfs.torn import GuardedCursor
from heliosvfs.vfs import Credential, files_of, presenting

__all__ = ["AuditedConnection", "GuardedAuditedCursor"]


class GuardedAuditedCursor(GuardedCursor, Cursor):
    """A cursor of an audited connection: the ROLLBACK of what was torn is in the log, too."""

    _execute = Cursor.execute
    _executemany = Cursor.executemany


class AuditedConnection(heliosaudit.Audited, Connection):
    """A `heliosvfs.Connection` that is audited; ``heliosvfs.connect(..., audit=...)`` makes one.

    Besides what `heliosaudit` records, key slots that are added, changed and revoked are events of class AUTH.
    """

    _secret: Secret | None = None

    def audit(self, policy: heliosaudit.Policy, vfs: str, secret: Secret | None) -> None:
        """Audit this connection from now on.

        Args:
            policy: What is recorded.
            vfs: The VFS that it was opened with.
            secret: What it was opened with; None: the VFS's keyring has it.

        Raises:
            AuditPolicyError: The connection can't be audited as the policy asks.
        """
        self._secret = secret
        path = self.db_filename("main")
        files = files_of(self)
        details = {"file": files[0].access.superblock.uuid} if files else None
        self.start_audit(policy, opener=(lambda: self._open_again(path, vfs)) if path else None, details=details)
        self.cursor_factory = GuardedAuditedCursor

    def _open_again(self, path: str, vfs: str) -> apsw.Connection:
        """Open a further connection to the same database, which is not audited."""
        credential = None if self._secret is None else Credential(self._secret, create=False)
        with presenting(credential, path):
            return apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)

    def close(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - APSW's signature
        """See `heliosaudit.Audited.close`."""
        note_closing(self)
        super().close(force)

    def _record(self, operation: str, target: str, schema: str) -> None:
        if self.auditor is not None:
            self.auditor.record(operation, event_class="AUTH", target=target, database_name=schema)
            self.auditor.ledger.flush_soon()

    def add_key(self, key: Key, *, label: str, schema: str = "main", settings: KdfSettings | None = None) -> KeySlot:
        """See `Connection.add_key`."""
        slot = super().add_key(key, label=label, schema=schema, settings=settings)
        self._record("ADD KEY", label, schema)
        return slot

    def revoke_key(self, label: str, *, schema: str = "main") -> None:
        """See `Connection.revoke_key`."""
        super().revoke_key(label, schema=schema)
        self._record("REVOKE KEY", label, schema)

    def change_key(self, key: Key, *, schema: str = "main", settings: KdfSettings | None = None) -> None:
        """See `Connection.change_key`."""
        super().change_key(key, schema=schema, settings=settings)
        if schema == "main":
            self._secret = as_secret(key)
        self._record("CHANGE KEY", "", schema)

    def rotate(self, **options: Any) -> Any:
        """See `Connection.rotate`."""
        report = super().rotate(**options)
        self._record("ROTATE", "", "main")
        return report
