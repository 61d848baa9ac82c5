"""A key, and a process that the environment says nothing to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heliosvfs import networks, notices
from heliosvfs.config import applying

VARIABLES = ("HELIOSDB_CONFIG", "HELIOSVFS_KEY_FILE", "HELIOSVFS_KEY")


@pytest.fixture(autouse=True)
def _clean_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a configuration asks for of the whole process ends with the test."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(networks, "_disabled", [])
    monkeypatch.setattr(applying, "_warned", set())
    monkeypatch.setattr(notices, "_listeners", notices._listeners)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "app.key"
    file.write_text(os.urandom(32).hex() + "\n")
    file.chmod(0o600)
    return file
