"""A child process that was forked while other threads were at work in heliosvfs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import heliosvfs  # noqa: F401 - its modules are looked through
from heliosvfs.locks import ProcessLock

LOCKS = sorted(
    (name, attribute)
    for name, module in sys.modules.items()
    if name.startswith("heliosvfs.")
    for attribute, value in vars(module).items()
    if isinstance(value, ProcessLock)
)

# A process of its own, because a fork of pytest's would carry its threads and connections along.
FORK = """
import importlib, os, signal, sys, threading
import heliosvfs

module, attribute, folder = sys.argv[1:]
lock = getattr(importlib.import_module(module), attribute)
held, done = threading.Event(), threading.Event()

def hold():
    with lock:
        held.set()
        done.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if not child:
    signal.alarm(20)  # who waits for the lock waits for ever
    connection = heliosvfs.connect(folder + "/db", key=bytes(range(32)), journal_mode="delete")
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    connection.add_key(bytes(range(1, 33)), label="second")
    connection.close()
    heliosvfs.connect(folder + "/db", key=bytes(range(1, 33))).close()
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
thread.join()
with lock:
    pass
sys.exit(code if code >= 0 else 100 - code)
"""


def test_the_locks_of_the_package_are_found() -> None:
    assert {module for module, _ in LOCKS} >= {"heliosvfs.keyring", "heliosvfs.vfs.open_files", "heliosvfs.vfs.filesystem"}


@pytest.mark.parametrize(("module", "attribute"), LOCKS)
def test_a_child_forked_while_another_thread_holds_a_lock_can_work(tmp_path: Path, module: str, attribute: str) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, module, attribute, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_child_forked_inside_a_lock_can_leave_it() -> None:
    script = """
import os
from heliosvfs.locks import ProcessLock

lock = ProcessLock()
with lock:
    child = os.fork()
with lock:
    pass
if not child:
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
