"""The audited connection: an `apsw.Connection` whose every door leads past the log (AUDIT.md, "Doors")."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable
from typing import Any

import apsw

from heliosaudit import captures, sessions, stores, turns
from heliosaudit.auditors import Auditor
from heliosaudit.contexts import Context
from heliosaudit.cursors import Cursor
from heliosaudit.doors import Doors
from heliosaudit.errors import AuditPolicyError, AuditWriteError
from heliosaudit.policies import Policy
from heliosaudit.recorders import Recorder

__all__ = ["Audited", "AuditedConnection", "connect"]

_base = apsw.Connection
_JOURNALS = ("off", "memory")


class Audited(Doors):
    """Mixin over `apsw.Connection`; `start_audit` turns auditing on."""

    def start_audit(
        self, policy: Policy, *, opener: Callable[[], apsw.Connection] | None = None, details: dict[str, str] | None = None
    ) -> None:
        """Audit this connection from now on; make the log if there is none.

        Args:
            policy: What is recorded.
            opener: Opens a further connection to the same database, for what belongs to no transaction of this one; None: this
                connection writes these events in between.
            details: What else a new log's genesis record says.

        Raises:
            AuditPolicyError: The connection can't be audited as the policy asks.
        """
        if self.auditor is not None:
            msg = "this connection is audited already"
            raise AuditPolicyError(msg)
        self._check_fitness(opener)
        who, before = sessions.current().user, _base.total_changes(self)
        changes, rowid = self.changes(), _base.last_insert_rowid(self)
        if not stores.has_log(self):
            with stores.transaction(apsw.Cursor(self)):
                if not stores.has_log(self):
                    stores.create(self, who, details)
        recorder = None if opener is None else Recorder(opener, policy)
        auditor = Auditor(self, policy, recorder)
        auditor.writer.offset = _base.total_changes(self) - before
        auditor.writer.restore(changes, rowid)
        auditor.trace, auditor.gate.authorizer = _base.get_exec_trace(self), self.authorizer
        self.auditor = auditor
        self._context = Context()
        _base.set_exec_trace(self, auditor.on_statement)
        _base.set_authorizer(self, auditor.gate.authorize)
        _base.set_commit_hook(self, auditor.commits.on_commit, id=auditor)
        _base.set_rollback_hook(self, auditor.on_rollback, id=auditor)
        weak: weakref.ref[Audited] = weakref.ref(self)  # SQLite's reference to the function is seen by no garbage collector
        self.create_scalar_function("total_changes", lambda *_: _total_changes(weak()), 0, flags=apsw.SQLITE_INNOCUOUS)
        if auditor.images is not None:
            _base.preupdate_hook(self, auditor.images.see, id=auditor)
        self.cursor_factory = Cursor
        auditor.record("OPEN", event_class="AUTH", target=os.path.basename(self.db_filename("main") or ":memory:"))
        if recorder is not None:
            recorder.arrive(auditor.ledger)

    def _check_fitness(self, opener: Callable[[], apsw.Connection] | None) -> None:
        if self.is_async:
            msg = "an asynchronous connection can't be audited yet: audit the connection in a thread of its own"
            raise AuditPolicyError(msg)
        if self.in_transaction:
            msg = "auditing can't begin inside a transaction"
            raise AuditPolicyError(msg)
        if self.readonly("main") and opener is None:
            msg = "a read-only connection can't write its own audit trail: open it for writing, or without audit"
            raise AuditPolicyError(msg)
        mode = str(self.pragma("journal_mode")).lower()
        if mode in _JOURNALS and self.db_filename("main"):
            msg = f"journal_mode={mode} can't keep changes and their events together over a crash: use WAL, DELETE or TRUNCATE"
            raise AuditPolicyError(msg)

    # -- what is put back --------------------------------------------------------------------------------------------

    def total_changes(self) -> int:
        """See `apsw.Connection.total_changes`; rows of the log do not count."""
        total: int = _base.total_changes(self)
        return total if self.auditor is None else total - self.auditor.writer.offset

    totalchanges = total_changes

    def __enter__(self) -> Any:
        """See `apsw.Connection.__enter__`."""
        if self.auditor is None:
            return _base.__enter__(self)
        self._context.enter(self)
        return self

    def __exit__(self, *exception: object) -> Any:
        """See `apsw.Connection.__exit__`."""
        if self.auditor is None:
            return _base.__exit__(self, *exception)  # type: ignore[arg-type]
        self._context.leave(self, failed=exception[0] is not None)
        return False

    def close(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - APSW's signature
        """See `apsw.Connection.close`.

        Raises:
            AuditWriteError: Events of reads or failures were still waiting, and the log stayed locked.
        """
        auditor = self.auditor
        # APSW refuses to close within a call, and then the transaction goes on
        if auditor is not None and not auditor.is_closed and not (auditor.gate.lock.is_mine and turns.closes_within_call()):
            auditor.close()
        try:
            _base.close(self, force)
        except BaseException as error:
            if auditor is not None and self._is_open():  # as where one of its cursors is within a call
                auditor.is_closed = False
                auditor.record("CLOSE", event_class="AUTH", success=False, error=captures.said(error))
            raise
        if auditor is not None:
            auditor.end()
        if auditor is not None and auditor.unwritten() and not force:
            msg = f"the connection is closed, and the last {auditor.unwritten()} events could not be written to the audit log"
            raise AuditWriteError(f"{msg}: {auditor.ledger.problem}" if auditor.ledger.problem else msg)

    def _is_open(self) -> bool:
        with contextlib.suppress(apsw.ConnectionClosedError):
            return self.in_transaction or True
        return False

    def __del__(self) -> None:
        """Close it, so that what waits is written."""
        if self.auditor is not None and not self.auditor.has_ended:
            with contextlib.suppress(Exception):
                self.close(True)  # noqa: FBT003 - APSW's signature


def _total_changes(connection: Audited | None) -> int:
    return 0 if connection is None else connection.total_changes()


class AuditedConnection(Audited):
    """An `apsw.Connection` that is audited; `connect` makes one."""


def connect(
    filename: str | os.PathLike[str],
    policy: Policy | str,
    *,
    vfs: str | None = None,
    flags: int | None = None,
    busy_timeout: float = 5.0,
) -> AuditedConnection:
    """Open a database by APSW alone and audit it.

    Args:
        filename: The database; ":memory:" works too.
        policy: What is recorded, or a preset's name.
        vfs: Name of a registered VFS; None: the default.
        flags: SQLite's flags for opening; None: read, write and create.
        busy_timeout: Seconds to wait for a lock.

    Raises:
        AuditPolicyError: The database can't be audited as the policy asks.
    """
    where = os.fspath(filename)
    how = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE if flags is None else flags
    connection = AuditedConnection(where, flags=how, vfs=vfs)
    try:
        connection.set_busy_timeout(int(busy_timeout * 1000))
        path = connection.db_filename("main")
        # the same VFS object, by name: the connection of the recorder must read what this one does
        opener = (lambda: apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)) if path else None
        connection.start_audit(Policy.preset(policy) if isinstance(policy, str) else policy, opener=opener)
    except BaseException:
        _base.close(connection)
        raise
    return connection
