"""Options of the campaigns: each has a short deterministic form in the suite and a long one behind an option."""

from __future__ import annotations

import sys
from pathlib import Path

import apsw
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--power-cuts", type=int, default=300, metavar="N", help="crash points of the power-cut simulator (20000: the long form)"
    )
    parser.addoption("--soak", action="store_true", help="run the tests marked soak, which take minutes each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--soak"):
        return
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="the long form of a campaign: --soak runs it"))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Return a key file that none but its owner can use; its key is bytes 0 to 31."""
    path = tmp_path / "key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    return path


@pytest.fixture
def freeing() -> None:
    """Skip where APSW itself keeps cursors for ever: 3.54.0, the last for Python 3.10, does (docs/COMPATIBILITY.md)."""
    connection = apsw.Connection("")
    cursor = connection.cursor()
    before = sys.getrefcount(cursor)
    connection.cursor().close()
    after = sys.getrefcount(cursor)
    connection.close()
    if after > before:
        pytest.skip(f"APSW {apsw.apsw_version()} keeps cursors alive on this Python")
