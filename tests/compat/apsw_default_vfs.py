"""Run APSW's own test suite with an encrypting VFS as the default one.

    python tests/compat/apsw_default_vfs.py -v

The suite knows nothing of it: every database that it opens without naming a VFS is encrypted under one random key. It shuts
SQLite down and starts it again, which makes the operating system's VFS the default; so ours is put back before each test.
"""

from __future__ import annotations

import os
import runpy
import sys
import unittest

import apsw

import heliosvfs

_vfs = heliosvfs.HeliosVFS("heliosvfs-default", keyring=heliosvfs.Keyring(default=os.urandom(32)))
apsw.set_default_vfs(_vfs.name)
_run = unittest.TestCase.run


def _run_with_our_default(self: unittest.TestCase, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
    if apsw.vfs_names()[0] != _vfs.name:
        apsw.set_default_vfs(_vfs.name)
    if self.id().endswith(".testIssue31"):
        return _run_without_changesets(self, result)
    return _run(self, result)


def _run_without_changesets(self: unittest.TestCase, result: unittest.TestResult | None) -> unittest.TestResult | None:
    """Leave sessions out of the test of many threads on the same connections: docs/COMPATIBILITY.md says why."""
    session = apsw.Session
    del apsw.Session
    try:
        return _run(self, result)
    finally:
        apsw.Session = session  # type: ignore[misc]


unittest.TestCase.run = _run_with_our_default  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.argv[0] = "apsw.tests"
    runpy.run_module("apsw.tests", run_name="__main__", alter_sys=True)
