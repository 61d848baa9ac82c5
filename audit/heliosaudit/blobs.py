"""Blob handles of an audited connection: SQLite shows what is done through them in no hook but the preupdate's."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import apsw

from heliosaudit import captures
from heliosaudit.beginnings import record_first
from heliosaudit.captures import Running
from heliosaudit.cursors import raise_instead
from heliosaudit.failures import record_failure
from heliosaudit.literals import Template
from heliosaudit.rules import Refusal
from heliosaudit.statements import judge_blob

if TYPE_CHECKING:
    from heliosaudit.auditors import Auditor

__all__ = ["Blob", "open_blob"]

_base = apsw.Connection
_AROUND = 64  # bytes beside those written that rules see, too


def open_blob(  # noqa: PLR0913 - APSW's parameters
    auditor: Auditor, database: str, table: str, column: str, rowid: int, *, writeable: bool
) -> Blob:
    """Open a blob handle; one that writes keeps an autocommit transaction open itself.

    Args:
        auditor: Of the connection.
        database: Schema name.
        table: Table.
        column: Column.
        rowid: Row.
        writeable: Whether it may write.
    """
    connection, commits = auditor.connection, auditor.commits
    verdict = judge_blob(database, table, column, rowid, auditor.policy, writes=writeable)
    running = Running(None, verdict, "", None, _base.total_changes(connection))
    refusal = auditor.gate.refusal_of_blob(database, table, column, writes=writeable)
    if refusal is not None:
        raise _refused(auditor, running, refusal)
    if not writeable and verdict.is_logged and auditor.policy.read_durability == "strict":
        record_first(auditor, running)
    blob = None
    try:
        with commits.allowed():  # one that fails ends a transaction, too
            blob = _open(auditor, running, database, table, column, rowid, writeable)
        wanted = verdict.is_logged and captures.who(auditor.policy).wanted
        if verdict.is_work and wanted and not connection.in_transaction:
            commits.hold(running, blob)
        elif writeable:
            commits.allow(running)
        return Blob(auditor, blob, running, (database, table, column))
    except BaseException as error:
        if blob is not None and running.holder is None:
            with commits.allowed():  # KeyboardInterrupt came, and it has written nothing
                blob.close(True)  # noqa: FBT003 - APSW's signature
        auditor.abandon(running, error)
        raise


def _open(auditor: Auditor, running: Running, *place: Any) -> apsw.Blob:
    """Open a handle, and record its failure; raise another error in its place where there is one."""
    was = auditor.enter()
    try:
        return _base.blob_open(auditor.connection, *place)
    except apsw.Error as error:
        record_failure(auditor, running, error)
        instead = auditor.gate.told(error, "", None, ran=False)
        try:
            if instead is error:
                raise
            raise_instead(instead, error)
        finally:
            del instead  # or it is part of a cycle with this frame
    finally:
        auditor.leave(was)


def _refused(auditor: Auditor, running: Running, refusal: Refusal) -> Exception:
    """Record what a rule refuses; returns what is to be raised."""
    error = refusal.raised("")
    record_failure(auditor, running, error, refusal)
    return error


class Blob:
    """An `apsw.Blob` whose reads and writes are recorded when it is closed, or moved to another row."""

    _running: Running | None = None  # also where __init__ fails, for __del__

    def __init__(self, auditor: Auditor, blob: apsw.Blob, running: Running, place: tuple[str, str, str]) -> None:
        self._place = place
        self._verdict = running.verdict
        self._auditor = auditor
        self._blob = blob
        self._running = running

    def __getattr__(self, name: str) -> Any:
        """Hand on what is not recorded: seek, tell, length, ..."""
        return getattr(self._blob, name)

    def read(self, length: int = -1) -> bytes:
        """See `apsw.Blob.read`."""
        return self._blob.read(length)

    def write(self, data: Any) -> None:
        """See `apsw.Blob.write`."""
        self._ask_rules(data)
        running = self._running
        rows = 0 if running is None else running.rows
        was = self._auditor.enter()
        try:
            self._write(data, running)
        except BaseException as error:
            self._auditor.leave(was)
            if running is not None and isinstance(error, (apsw.Error, TypeError, ValueError)):
                running.rows = rows  # APSW's own: after any other, which came later, it may have written
            self._failed(error)
            raise
        self._auditor.leave(was)

    def _write(self, data: Any, running: Running | None) -> None:
        images = self._auditor.images
        if running is None:
            self._blob.write(data)
        elif images is None:
            running.rows = 1
            self._blob.write(data)
        else:
            with images.during(running):
                running.rows = 1
                self._blob.write(data)

    def _ask_rules(self, data: Any) -> None:
        """Let the rules see what is to be written, with what will stand before and after it.

        Raises:
            AccessDeniedError: A rule refuses it; or that rule's own error.
        """
        auditor = self._auditor
        for rule in auditor.gate.rules:
            start = self._blob.tell()
            data = bytes(data)
            self._blob.seek(max(0, start - _AROUND))
            before = self._blob.read(min(start, _AROUND))
            self._blob.seek(min(start + len(data), self._blob.length()))
            after = self._blob.read(_AROUND)
            self._blob.seek(start)
            refusal = rule.inspect_blob(*self._place, before + data + after)
            if refusal is not None:
                running = Running(None, self._verdict, "", None, _base.total_changes(auditor.connection))
                raise _refused(auditor, running, refusal)

    def reopen(self, rowid: int) -> None:
        """See `apsw.Blob.reopen`."""
        running, auditor = self._running, self._auditor
        if running is not None and running.recorded:
            self._moved(rowid)
            record_first(auditor, running)
        self._blob.reopen(rowid)
        if running is None or running.recorded or not running.verdict.is_logged:
            return
        event = captures.event_for(running, auditor.policy, affected=running.rows)
        if event is not None and event.is_work and auditor.connection.in_transaction:
            auditor.nested.add_work(running, event)
        elif event is not None and event.is_work:
            auditor.commits.add_to_group(event)
        elif event is not None:
            auditor.ledger.note(event)
        running.rows = 0
        self._moved(rowid)

    def _moved(self, rowid: int) -> None:
        running = self._running
        assert running is not None  # noqa: S101 - the handle is open
        template = Template(f"blob.reopen({rowid}) on {running.verdict.target}", self._auditor.policy.max_query_length)
        running.verdict = replace(running.verdict, template=template)

    def _failed(self, error: BaseException) -> None:
        """Record a write that failed; the handle stays."""
        running, policy = self._running, self._auditor.policy
        if running is not None and running.verdict.is_logged:
            event = captures.event_for(running, policy, success=False, error=captures.said(error), affected=0)
            if event is not None:
                self._auditor.ledger.note(event)

    def close(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - APSW's signature
        """See `apsw.Blob.close`."""
        running = self._running
        if running is None or running.closed:
            self._running = None
            self._blob.close(force)
            return
        was = self._auditor.enter()
        try:
            self._running = None
            self._auditor.finish(running)
        except BaseException as error:
            self._auditor.abandon(running, error)  # if the exception came before it had begun
            raise
        finally:
            self._auditor.leave(was)
        self._blob.close(force)

    def __enter__(self) -> Blob:  # noqa: PYI034 - Python 3.10 has no Self
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
