"""The application's own hooks on an audited connection, which see nothing of the log (AUDIT.md, "What differs")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw

from heliosaudit.errors import AccessDeniedError
from heliosaudit.schemas import is_reserved

if TYPE_CHECKING:
    from heliosaudit.auditors import Auditor

__all__ = ["Hooked"]

_base = apsw.Connection


class Hooked(apsw.Connection):
    """Mixin over `apsw.Connection`: what sets hooks puts them beside the audit's own.

    Attributes:
        auditor: What records; None: nothing does yet.
    """

    auditor: Auditor | None = None

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
        """Wrap a hook so that it does not see the log's own statements, whose text holds a secret."""
        auditor = self.auditor
        if callable is None or auditor is None:
            return callable
        is_ours = auditor.gate.is_internal
        return lambda *args: otherwise if is_ours() else callable(*args)

    def set_progress_handler(self, callable: Any, nsteps: int = 100, *, id: Any = None) -> None:  # noqa: A002 - APSW's names
        """See `apsw.Connection.set_progress_handler`; it can't interrupt the log."""
        _base.set_progress_handler(self, self._unless_hidden(callable, False), nsteps, id=id)  # noqa: FBT003

    setprogresshandler = set_progress_handler

    def _require_not_ours(self, id: Any) -> Auditor | None:  # noqa: A002 - APSW's name
        if self.auditor is not None and id is self.auditor:
            msg = "the audit log's own hook can't be removed"
            raise AccessDeniedError(msg)
        return self.auditor

    def set_commit_hook(self, callable: Any, *, id: Any = None) -> None:  # noqa: A002 - APSW's names
        """See `apsw.Connection.set_commit_hook`."""
        auditor = self._require_not_ours(id)
        if callable is not None and auditor is not None:
            hook = callable
            callable = lambda: False if auditor.writer.hiding or auditor.commits.refuses else hook()  # noqa: A001, E731 - APSW's name
        _base.set_commit_hook(self, callable, id=id)

    setcommithook = set_commit_hook

    def set_rollback_hook(self, callable: Any, *, id: Any = None) -> None:  # noqa: A002 - APSW's names
        """See `apsw.Connection.set_rollback_hook`."""
        auditor = self._require_not_ours(id)
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
