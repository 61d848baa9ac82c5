"""The audited connection: an `apsw.Connection` whose every door leads past the log (AUDIT.md, "Doors")."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable
from typing import Any

import apsw

from heliosaudit import sessions, stores
from heliosaudit.auditors import Auditor
from heliosaudit.blobs import open_blob
from heliosaudit.contexts import Context
from heliosaudit.cursors import Cursor
from heliosaudit.errors import AccessDeniedError, AuditPolicyError, AuditWriteError
from heliosaudit.policies import Policy
from heliosaudit.recorders import Recorder
from heliosaudit.schemas import is_reserved

__all__ = ["Audited", "AuditedConnection", "connect"]

_base = apsw.Connection
_JOURNALS = ("off", "memory")
_DENIED_CONFIGS = {
    apsw.SQLITE_DBCONFIG_RESET_DATABASE: "SQLITE_DBCONFIG_RESET_DATABASE",
    apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA: "SQLITE_DBCONFIG_WRITABLE_SCHEMA",
}
_DENIED_CONTROLS = {apsw.SQLITE_FCNTL_RESET_CACHE, apsw.SQLITE_FCNTL_OVERWRITE}


class Audited(apsw.Connection):
    """Mixin over `apsw.Connection`; `start_audit` turns auditing on.

    Attributes:
        auditor: What records; None before `start_audit`.
    """

    auditor: Auditor | None = None

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
        if not stores.has_log(self):
            _base.execute(self, "BEGIN IMMEDIATE")
            try:
                if not stores.has_log(self):
                    stores.create(self, who, details)
            except BaseException:
                _base.execute(self, "ROLLBACK")
                raise
            _base.execute(self, "COMMIT")
        recorder = None if opener is None else Recorder(opener, policy.flush_interval)
        auditor = Auditor(self, policy, recorder)
        auditor.writer.offset = _base.total_changes(self) - before
        auditor.trace, auditor.gate.authorizer = _base.get_exec_trace(self), self.authorizer
        self.auditor = auditor
        self._context = Context()
        _base.set_exec_trace(self, auditor.on_statement)
        _base.set_authorizer(self, auditor.gate.authorize)
        _base.set_commit_hook(self, auditor.commits.on_commit, id=auditor)
        weak: weakref.ref[Audited] = weakref.ref(self)  # SQLite's reference to the function is seen by no garbage collector
        self.create_scalar_function("total_changes", lambda *_: _total_changes(weak()), 0, flags=apsw.SQLITE_INNOCUOUS)
        if auditor.images is not None:
            _base.preupdate_hook(self, auditor.images.see, id=auditor)
        self.cursor_factory = Cursor
        auditor.record("OPEN", event_class="AUTH", target=os.path.basename(self.db_filename("main") or ":memory:"))

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

    # -- hooks of the application ------------------------------------------------------------------------------------

    def set_exec_trace(self, callable: Any) -> None:  # noqa: A002 - APSW's name
        """See `apsw.Connection.set_exec_trace`."""
        if self.auditor is None:
            _base.set_exec_trace(self, callable)
        else:
            self.auditor.trace = callable

    def get_exec_trace(self) -> Any:
        """See `apsw.Connection.get_exec_trace`."""
        return _base.get_exec_trace(self) if self.auditor is None else self.auditor.trace

    exec_trace = property(get_exec_trace, lambda self, trace: self.set_exec_trace(trace))
    setexectrace, getexectrace, exectrace = set_exec_trace, get_exec_trace, exec_trace

    def set_authorizer(self, callable: Any) -> None:  # noqa: A002 - APSW's name
        """See `apsw.Connection.set_authorizer`."""
        if self.auditor is None:
            _base.set_authorizer(self, callable)
        else:
            self.auditor.gate.authorizer = callable
            self.auditor.forget()

    setauthorizer = set_authorizer

    def _get_authorizer(self) -> Any:
        own: Any = _base.authorizer
        return own.__get__(self) if self.auditor is None else self.auditor.gate.authorizer

    authorizer = property(_get_authorizer, lambda self, authorizer: self.set_authorizer(authorizer))

    def set_update_hook(self, callable: Any) -> None:  # noqa: A002 - APSW's name
        """See `apsw.Connection.set_update_hook`; rows of the log are not reported."""
        if callable is None or self.auditor is None:
            _base.set_update_hook(self, callable)
            return

        def report(kind: int, database: str, table: str, rowid: int) -> None:
            if not is_reserved(table):
                callable(kind, database, table, rowid)

        _base.set_update_hook(self, report)

    setupdatehook = set_update_hook

    def preupdate_hook(self, callback: Any, *, id: Any = None) -> None:  # noqa: A002 - APSW's names
        """See `apsw.Connection.preupdate_hook`; rows of the log are not reported."""
        if callback is None or self.auditor is None:
            _base.preupdate_hook(self, callback, id=id)
            return

        def report(update: apsw.PreUpdate) -> None:
            if not is_reserved(update.table_name):
                callback(update)

        _base.preupdate_hook(self, report, id=id)

    def _unless_hidden(self, callable: Any, otherwise: Any) -> Any:  # noqa: A002 - APSW's name
        """Wrap a hook so that it does not see the log's own statements."""
        auditor = self.auditor
        if callable is None or auditor is None:
            return callable
        return lambda *args: otherwise if auditor.writer.hiding else callable(*args)

    def set_progress_handler(self, callable: Any, nsteps: int = 100, *, id: Any = None) -> None:  # noqa: A002 - APSW's names
        """See `apsw.Connection.set_progress_handler`; it can't interrupt the log."""
        _base.set_progress_handler(self, self._unless_hidden(callable, False), nsteps, id=id)  # noqa: FBT003

    setprogresshandler = set_progress_handler

    def set_commit_hook(self, callable: Any, *, id: Any = None) -> None:  # noqa: A002 - APSW's names
        """See `apsw.Connection.set_commit_hook`."""
        if self.auditor is not None and id is self.auditor:
            msg = "the audit log's own hook can't be removed"
            raise AccessDeniedError(msg)
        auditor = self.auditor
        if callable is not None and auditor is not None:
            hook = callable
            callable = lambda: False if auditor.writer.hiding or auditor.commits.refuses else hook()  # noqa: A001, E731 - APSW's name
        _base.set_commit_hook(self, callable, id=id)

    setcommithook = set_commit_hook

    def set_rollback_hook(self, callable: Any, *, id: Any = None) -> None:  # noqa: A002 - APSW's names
        """See `apsw.Connection.set_rollback_hook`."""
        auditor = self.auditor
        if callable is None or auditor is None:
            _base.set_rollback_hook(self, callable, id=id)
            return

        def tell() -> None:
            if not auditor.writer.hiding and auditor.commits.rollbacks:
                auditor.commits.rollbacks -= auditor.commits.rollbacks > 0
                callable()

        _base.set_rollback_hook(self, tell, id=id)

    setrollbackhook = set_rollback_hook

    def set_profile(self, callable: Any) -> None:  # noqa: A002 - APSW's name
        """See `apsw.Connection.set_profile`."""
        _base.set_profile(self, self._unless_hidden(callable, None))

    setprofile = set_profile

    def trace_v2(self, mask: int, callback: Any = None, *, id: Any = None) -> None:  # noqa: A002 - APSW's names
        """See `apsw.Connection.trace_v2`."""
        _base.trace_v2(self, mask, self._unless_hidden(callback, None), id=id)

    # -- doors that lead past SQL ------------------------------------------------------------------------------------

    def _deny(self, what: str, why: str) -> AccessDeniedError:
        """Record an attempt and return the error."""
        assert self.auditor is not None  # noqa: S101 - asked only while audited
        self.auditor.record(
            "ACCESS DENIED", event_class="AUTH", target=what, query=what, success=False, error=f"AccessDeniedError: {why}"
        )
        self.auditor.ledger.flush_soon()
        return AccessDeniedError(why)

    def blob_open(self, database: str, table: str, column: str, rowid: int, writeable: bool) -> Any:  # noqa: FBT001 - APSW's signature
        """See `apsw.Connection.blob_open`."""
        auditor = self.auditor
        if auditor is None:
            return _base.blob_open(self, database, table, column, rowid, writeable)
        if writeable and is_reserved(table):
            raise self._deny("blob_open", f"{table} belongs to the audit log, which is append-only")
        return open_blob(auditor, database, table, column, rowid, writeable=writeable)

    blobopen = blob_open

    def backup(self, databasename: str, sourceconnection: Any, sourcedatabasename: str) -> apsw.Backup:
        """See `apsw.Connection.backup`: this connection is the destination."""
        if self.auditor is not None and databasename.lower() == "main":
            raise self._deny("backup", "a backup onto an audited database would replace its audit log")
        if isinstance(sourceconnection, Audited) and sourceconnection.auditor is not None:
            sourceconnection.auditor.record("BACKUP", target=sourcedatabasename)
            sourceconnection.auditor.flush()
        return _base.backup(self, databasename, sourceconnection, sourcedatabasename)

    def serialize(self, name: str) -> bytes:
        """See `apsw.Connection.serialize`."""
        if self.auditor is not None:
            self.auditor.record("SERIALIZE", target=name)
        return _base.serialize(self, name)

    def deserialize(self, name: str, contents: Any) -> None:
        """See `apsw.Connection.deserialize`."""
        if self.auditor is not None and name.lower() == "main":
            raise self._deny("deserialize", "deserialize onto an audited database would replace its audit log")
        _base.deserialize(self, name, contents)

    def config(self, op: int, *args: Any) -> Any:
        """See `apsw.Connection.config`."""
        if self.auditor is not None:
            if op in _DENIED_CONFIGS and args and args[0] > 0:
                raise self._deny(_DENIED_CONFIGS[op], f"{_DENIED_CONFIGS[op]} would let the audit log be erased")
            if args and args[0] >= 0:
                self.auditor.record("CONFIG", target=str(apsw.mapping_db_config.get(op, op)), query=f"config({op}, {args[0]})")
        return _base.config(self, op, *args)

    def load_extension(self, filename: str, entrypoint: str | None = None) -> None:
        """See `apsw.Connection.load_extension`."""
        if self.auditor is not None:
            self.auditor.record("LOAD EXTENSION", target=filename)
            self.auditor.ledger.flush_soon()
        _base.load_extension(self, filename, entrypoint)

    loadextension = load_extension

    def refuse_own_file(self) -> None:
        """Detach what is this connection's main file under another name: it could be written past the log.

        Raises:
            AccessDeniedError: There was one.
        """
        main = self.db_filename("main")
        for name in self.db_names():
            path = self.db_filename(name)
            if name in ("main", "temp") or not path or not main:
                continue
            try:
                same = os.path.samefile(path, main)
            except OSError:
                continue
            if same:
                self.auditor.writer.run(f'DETACH "{name.replace(chr(34), chr(34) * 2)}"')  # type: ignore[union-attr]
                raise self._deny(
                    "ATTACH", "the audited database is attached a second time, where it could be written past the audit"
                )

    def close(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - APSW's signature
        """See `apsw.Connection.close`.

        Raises:
            AuditWriteError: Events of reads or failures were still waiting, and the log stayed locked.
        """
        auditor = self.auditor
        if auditor is not None and not auditor.is_closed:
            auditor.record("CLOSE", event_class="AUTH")
            auditor.close()
        try:
            _base.close(self, force)
        finally:
            if auditor is not None:
                auditor.end()
        if auditor is not None and auditor.unwritten() and not force:
            msg = f"the connection is closed, and the last {auditor.unwritten()} events could not be written to the audit log"
            raise AuditWriteError(msg)

    def __del__(self) -> None:
        """Close it, so that what waits is written."""
        if self.auditor is not None and not self.auditor.is_closed:
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
