"""The audited cursor: it sees where each statement ends, which no hook of SQLite's tells in time."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import apsw

from heliosaudit import repeats

if TYPE_CHECKING:
    from heliosaudit.auditors import Auditor
    from heliosaudit.captures import Running

__all__ = ["Cursor", "is_done", "raise_instead"]

_execute = apsw.Cursor.execute
_executemany = apsw.Cursor.executemany
_next = apsw.Cursor.__next__
_close = apsw.Cursor.close
_get: Any = apsw.Cursor.get
_END = object()


def is_done(cursor: apsw.Cursor) -> bool:
    """Tell whether a cursor's statements have all ended."""
    try:
        cursor.is_explain  # noqa: B018 - APSW raises where there is no statement any more
    except apsw.ExecutionCompleteError:
        return True
    except apsw.CursorClosedError:
        return True
    return False


def raise_instead(instead: BaseException, error: BaseException) -> NoReturn:
    """Raise one error in place of another, which it names as its cause unless nobody is to learn of that."""
    try:
        if not instead.__suppress_context__:
            raise instead from error
        try:
            raise instead from None  # noqa: TRY301 - Python sets what is taken away below only now
        except BaseException:
            instead.__context__ = None
            raise
    finally:
        del instead, error  # a cycle with this frame would keep the cursor for the garbage collector, in any thread


class Cursor(apsw.Cursor):
    """An `apsw.Cursor` whose statements are audited; `Connection.cursor` and `Connection.execute` make them.

    Attributes:
        running: The statement that has not ended yet.
        repeat: What executemany has done for one row, and may do for the next.
        is_repeating: Whether executemany is under way.
        outer: The cursor within whose call it is executing.
        is_executing: Whether APSW is within a call of it, which may have led to a function of the application's.
        is_fresh: Whether none of its statements has run yet.
        is_control: Whether it runs what ``with connection:`` does.
        rows: Rows of a statement that had to be ended before the application had read them.
        error: What went wrong then.
        text: What was last executed.
        trace: The exec tracer that the application set on this cursor.
    """

    running: Running | None = None  # also where __init__ fails, for __del__
    repeat: repeats.Repeat | None = None
    is_repeating = False
    is_executing = False
    outer: Cursor | None = None

    def __init__(self, connection: apsw.Connection) -> None:
        self.auditor: Auditor = connection.auditor  # type: ignore[attr-defined]
        try:
            super().__init__(connection)
        except apsw.ThreadingViolationError:  # another thread is within a call: wait for it
            was = self.auditor.enter()
            try:
                super().__init__(connection)
            finally:
                self.auditor.leave(was)
        self.rows: deque[Any] = deque()
        self.error: Exception | None = None
        self.text = ""
        self.is_fresh = False
        self.is_control = False
        self.trace: Any = None

    def execute(self, statements: str, *args: Any, **kwargs: Any) -> Cursor:
        """See `apsw.Cursor.execute`."""
        self._run(_execute, statements, args, kwargs)
        return self

    def executemany(self, statements: str, sequenceofbindings: Iterable[Any], *args: Any, **kwargs: Any) -> Cursor:
        """See `apsw.Cursor.executemany`."""
        try:
            self._run(_executemany, statements, (self._rows(iter(sequenceofbindings)), *args), kwargs)
        finally:
            self.is_repeating, self.repeat = False, None
        return self

    def _run(self, method: Any, statements: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.is_executing:  # by what it executes itself: APSW refuses that, and the outer statement's state is to stay
            method(self, statements, *args, **kwargs)
        auditor, nested = self.auditor, self.auditor.nested
        was = auditor.enter()
        try:
            if self.running is not None:
                auditor.reset(self)
            if self.rows or self.error is not None:
                self.rows.clear()
                self.error = None
            self.text = statements
            self.is_fresh = True
            if auditor.gate.must_prepare:
                kwargs["can_cache"] = False
            auditor.start()
            nested.enter(self, is_inner=was)
            self.is_executing = True
            try:
                method(self, statements, *args, **kwargs)
            except BaseException as error:
                self.is_executing = False
                if self.running is not None:
                    self.running.has_failed = True
                self._failed(error)
                raise
            self.is_executing = False
            running = self.running
            if running is not None and (running.verdict.never_returns_rows or is_done(self)):
                try:
                    auditor.finish(running)
                except BaseException as error:
                    auditor.abandon(running, error)  # if the exception came before it had begun
                    raise
        finally:
            nested.leave(self)
            auditor.leave(was)

    def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        """Call one of APSW's, and record its failure."""
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:
            if self.running is not None:
                self.running.has_failed = True
            self._failed(error)
            raise

    def _failed(self, error: BaseException) -> None:
        """Record a failure; raise another error in its place where there is one."""
        running = self.running
        if running is not None and not (running.is_prevented or isinstance(error, apsw.Error) or is_done(self)):
            running.has_failed = False  # it is half-read, as a row tracer's exception leaves it, or KeyboardInterrupt after a row
            return
        try:
            instead = self.auditor.failed(self, error)
        except BaseException as other:
            if running is not None:
                running.followed = True
                self.auditor.abandon(running, other)
            raise
        if instead is not error:
            try:
                raise_instead(instead, error)
            finally:
                del instead, error  # a cycle with this frame would keep the cursor for the garbage collector, in any thread

    def _rows(self, bindings: Iterator[Any]) -> Iterator[Any]:
        """Hand out bindings; a row's statement has ended, and commits, before the application is asked for the next."""
        auditor, self.is_repeating = self.auditor, True
        for row in bindings:
            yield row
            if self.repeat is not None:
                if repeats.finish(auditor, self, self.repeat):
                    continue
                self.repeat = None  # what has come between may have made another statement of it
            running = self.running
            if running is not None:
                auditor.finish(running)

    def drain(self) -> None:
        """Read the rows that are left, and end; they are handed out from here, and then what went wrong."""
        try:
            while True:
                self.rows.append(self._step())
        except StopIteration:
            pass
        except Exception as error:  # noqa: BLE001 - raised where the application reads on
            self.error = error

    def __next__(self) -> Any:
        """See `apsw.Cursor.__next__`."""
        if self.rows:
            return self.rows.popleft()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self._step()

    def _step(self) -> Any:
        if self.is_executing:  # by what it executes itself: APSW refuses that
            return _next(self)
        auditor = self.auditor
        was = auditor.enter()
        running = self.running
        is_last = running is not None and len(running.sql) == len(self.text)
        if not is_last:  # the next statement may change something
            auditor.nested.enter(self, is_inner=was)
        self.is_executing = True
        try:
            row = _next(self)
        except StopIteration:
            self.is_executing = False
            self._finish()
            raise
        except BaseException as error:
            self.is_executing = False
            if self.running is not None:
                self.running.has_failed = True
            self._failed(error)
            raise
        finally:
            self.is_executing = False
            if not is_last:
                auditor.nested.leave(self)
            auditor.leave(was)
        if self.running is not None:
            self.running.rows += 1
        return row

    def _finish(self) -> None:
        running = self.running
        if running is not None:
            self.auditor.finish(running)

    def fetchone(self) -> Any:
        """See `apsw.Cursor.fetchone`."""
        return next(self, None)

    def fetchall(self) -> list[Any]:
        """See `apsw.Cursor.fetchall`."""
        running = self.running
        if running is None or self.rows or self.is_executing or len(running.sql) != len(self.text):
            return list(self)  # several statements, whose rows are counted one by one
        auditor = self.auditor
        rows: list[Any] = []
        was = auditor.enter()
        try:
            try:
                rows.extend(iter(functools.partial(_next, self), _END))
            except BaseException as error:
                running.rows += len(rows)
                if self.running is not None:
                    self.running.has_failed = True
                self._failed(error)
                raise
            running.rows += len(rows)
            self._finish()
        finally:
            auditor.leave(was)
        return rows

    @property
    def get(self) -> Any:
        """See `apsw.Cursor.get`."""
        if self.is_executing:
            return _get.__get__(self)
        if self.rows:
            rows = [row[0] if len(row) == 1 else row for row in self]
            return rows[0] if len(rows) == 1 else rows
        auditor = self.auditor
        was = auditor.enter()
        try:
            found = self._call(_get.__get__)
            if self.running is not None:
                self.running.rows += len(found) if isinstance(found, list) else found is not None
                self._finish()
        finally:
            auditor.leave(was)
        return found

    def close(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - APSW's signature
        """See `apsw.Cursor.close`."""
        if not self.__dict__:  # APSW was freeing it while another thread was within a call, and the connection closes it now
            _close(self, force)
            return
        if self.is_executing:
            _close(self, force)  # APSW refuses it
        was = self.auditor.enter()
        try:
            self._call(_close, force)
            self._finish()
        finally:
            self.auditor.leave(was)

    def __del__(self) -> None:
        """End what was left half-read, as APSW does, errors and all.

        It is closed here in any case, while no other thread is within a call: APSW would put off freeing it until then, and the
        connection may close first what is half-freed, which no Python class survives (APSW 3.54.1, APSWCursor_dealloc_mutex).
        """
        try:
            if self.running is None and not self.auditor.gate.lock.owner:
                _close(self, True)  # noqa: FBT003 - APSW's signature
                return
            was = self.auditor.enter()
            try:
                if self.running is not None:
                    self.close(True)  # noqa: FBT003 - APSW's signature
                else:
                    _close(self, True)  # noqa: FBT003 - APSW's signature
            finally:
                self.auditor.leave(was)
        except Exception:  # noqa: BLE001, S110 - nobody is there to be told
            pass

    @property
    def exec_trace(self) -> Any:
        """See `apsw.Cursor.exec_trace`."""
        return self.trace

    @exec_trace.setter
    def exec_trace(self, trace: Any) -> None:
        if trace is not None and not callable(trace):
            msg = "exec_trace is a callable or None"
            raise TypeError(msg)
        self.trace = trace

    exectrace = exec_trace

    def set_exec_trace(self, callable: Any) -> None:  # noqa: A002 - APSW's name
        """See `apsw.Cursor.set_exec_trace`."""
        self.exec_trace = callable

    def get_exec_trace(self) -> Any:
        """See `apsw.Cursor.get_exec_trace`."""
        return self.trace

    setexectrace = set_exec_trace
    getexectrace = get_exec_trace
