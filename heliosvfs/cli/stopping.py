"""How a command stops: on SIGTERM and SIGHUP as on Ctrl-C, within a statement too.

Python handles signals where Python code runs. That is the VFS where SQLite reads and writes pages; what it computes from those
that it has goes on in C for as long as it takes. So SQLite calls back now and then, and rolls back what is ended there.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import apsw

__all__ = ["stopping_in_order"]

_STEPS = 10_000  # of SQLite's virtual machine between two calls: 0.1 ms, of which a call takes 0.3 %


@contextmanager
def stopping_in_order() -> Iterator[None]:
    """Let signals end a command wherever it is; a program that runs one keeps its own handlers."""
    taken = []
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _stop)
            taken.append(number)
    apsw.connection_hooks.append(_call_back)
    try:
        yield
    finally:
        apsw.connection_hooks.remove(_call_back)
        for number in taken:
            if signal.getsignal(number) is _stop:
                signal.signal(number, signal.SIG_DFL)


def _stop(number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that what is half-made, plain text perhaps, is removed."""
    sys.stderr.write("\nstopped\n")
    raise SystemExit(128 + number)


def _call_back(connection: apsw.Connection) -> None:
    connection.set_progress_handler(_go_on, _STEPS, id=_go_on)


def _go_on() -> bool:
    """Tell SQLite to go on; Python has handled signals before this runs."""
    return False
