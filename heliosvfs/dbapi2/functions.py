"""The half of a connection that takes functions of the program: user functions, aggregates, collations, hooks, extensions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import apsw

from heliosvfs.dbapi2 import callbacks
from heliosvfs.dbapi2.deprecations import positional_only
from heliosvfs.dbapi2.errors import OperationalError, ProgrammingError
from heliosvfs.dbapi2.guards import guarded
from heliosvfs.dbapi2.sessions import NO_CONNECTION, Session

__all__ = ["Functions"]


class Functions:
    """Registers functions of the program with SQLite."""

    _session: Session = NO_CONNECTION

    @positional_only("name", "narg", "func")
    @guarded
    def create_function(self, name: str, narg: int, func: Callable[..., Any] | None, *, deterministic: bool = False) -> None:
        """Create or, with None, remove a function of SQL."""
        function = None if func is None else callbacks.scalar(func)
        try:
            self._session.db.create_scalar_function(name, function, narg, deterministic=deterministic)
        except apsw.MisuseError:
            msg = "Error creating function"
            raise OperationalError(msg) from None

    @positional_only("name", "n_arg", "aggregate_class")
    @guarded
    def create_aggregate(self, name: str, n_arg: int, aggregate_class: Callable[[], Any] | None) -> None:
        """Create or, with None, remove an aggregate function: a class with step() and finalize()."""
        factory = None if aggregate_class is None else callbacks.aggregate_factory(aggregate_class)
        try:
            self._session.db.create_aggregate_function(name, factory, n_arg)
        except apsw.MisuseError:
            msg = "Error creating aggregate"
            raise OperationalError(msg) from None

    @guarded
    def create_window_function(self, name: str, num_params: int, aggregate_class: Callable[[], Any] | None, /) -> None:
        """Create or, with None, remove a window function: a class with step(), inverse(), value() and finalize()."""
        factory = None if aggregate_class is None else callbacks.window_factory(aggregate_class)
        try:
            self._session.db.create_window_function(name, factory, num_params)
        except apsw.MisuseError:
            msg = "Error creating window function"
            raise ProgrammingError(msg) from None

    @guarded
    def create_collation(self, name: str, callback: Callable[[str, str], int] | None, /) -> None:
        """Create or, with None, remove a collation."""
        if not isinstance(name, str):
            msg = f"create_collation() argument 1 must be str, not {type(name).__name__}"
            raise TypeError(msg)
        _require_callable(callback)
        self._session.db.create_collation(str(name), None if callback is None else callbacks.collation(callback))

    @positional_only("authorizer_callback")
    @guarded
    def set_authorizer(self, authorizer_callback: Callable[..., Any] | None) -> None:
        """Have a function decide what statements may do; None: all may."""
        self._session.db.set_authorizer(None if authorizer_callback is None else callbacks.authorizer(authorizer_callback))

    @positional_only("progress_handler")
    @guarded
    def set_progress_handler(self, progress_handler: Callable[[], Any] | None, n: int) -> None:
        """Have a function called every ``n`` steps of SQLite's machine; it interrupts by returning what is true."""
        handler = None if progress_handler is None or n <= 0 else callbacks.progress_handler(progress_handler)
        self._session.db.set_progress_handler(handler, max(n, 1))

    @positional_only("trace_callback")
    @guarded
    def set_trace_callback(self, trace_callback: Callable[[str], Any] | None) -> None:
        """Have a function told each statement that is executed."""
        self._session.db.exec_trace = None if trace_callback is None else callbacks.tracer(trace_callback)

    @guarded
    def enable_load_extension(self, enable: bool, /) -> None:  # noqa: FBT001 - sqlite3's signature
        """Allow extensions to be loaded, or do not."""
        sys.audit("sqlite3.enable_load_extension", self, enable)
        self._session.db.enable_load_extension(bool(enable))

    @guarded
    def load_extension(self, name: str, /, *, entrypoint: str | None = None) -> None:
        """Load an extension from a shared library."""
        sys.audit("sqlite3.load_extension", self, name)
        self._session.db.load_extension(name, entrypoint)


def _require_callable(callback: Any) -> None:
    if callback is not None and not callable(callback):
        msg = "parameter must be callable"
        raise TypeError(msg)
