"""APSW's suite takes a minute of the processor that the other tests leave idle, so it begins when they do."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_SUITE = pytest.StashKey["Suite"]()
_LONGEST = 580  # seconds


class Suite:
    """A run of `apsw_default_vfs.py` in a folder of its own."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="apsws-suite-"))
        self._output = self._folder / "output"
        (self._folder / "work").mkdir()
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "apsw_default_vfs.py"), "-v"],
                cwd=self._folder / "work",
                env={**os.environ, "TMPDIR": str(self._folder / "work")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def ended(self) -> tuple[int, str]:
        """Wait for its end; return its exit status and what it wrote."""
        status = self._process.wait(_LONGEST)
        return status, self._output.read_text(errors="replace")

    def close(self) -> None:
        """End it, and leave nothing behind."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin, if its test was selected."""
    if (
        any("apsws_suite" in getattr(item, "fixturenames", ()) for item in session.items)
        and not session.config.option.collectonly
    ):
        session.config.stash[_SUITE] = Suite()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End it, if the tests ended before it."""
    suite = config.stash.get(_SUITE, None)
    if suite is not None:
        suite.close()


@pytest.fixture
def apsws_suite(request: pytest.FixtureRequest) -> Iterator[Suite]:
    """Give the run that was begun."""
    yield request.config.stash[_SUITE]
    request.config.stash[_SUITE].close()
