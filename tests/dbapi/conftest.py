from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import heliosvfs
import heliosvfs.dbapi2 as sqlite3

VARIABLES = ("HELIOSDB_CONFIG", "HELIOSVFS_KEY_FILE", "HELIOSVFS_KEY")


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No key comes from where the tests run."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    heliosvfs.configure()
    yield
    heliosvfs.configure()


@pytest.fixture
def key() -> bytes:
    return os.urandom(32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def connection(path: Path, key: bytes) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, key=key)
    yield connection
    connection.close()
