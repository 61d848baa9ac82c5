"""Where networks are forbidden, no socket is made."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from heliosvfs import networks

SCRIPT = """
import json, select, socket, sys
import heliosvfs
from heliosvfs import networks
from heliosvfs.keysources import KeyFromVault

with socket.create_server(("127.0.0.1", 0)) as service:
    made = []
    real = socket.socket
    class Noted(real):
        def __init__(self, *arguments, **options):
            made.append(arguments)
            super().__init__(*arguments, **options)
    socket.socket = Noted
    source = KeyFromVault(f"http://127.0.0.1:{service.getsockname()[1]}", "clinic", ciphertext="vault:v1:abc", timeout=0.2)
    if sys.argv[1] == "forbidden":
        networks.disable("a test")
    refused = []
    for ask in (source.secret, source.wrap_new_key, lambda: heliosvfs.connect(sys.argv[2], key=source)):
        try:
            ask()
        except heliosvfs.HeliosError as error:
            refused.append(f"{type(error).__name__}: {error}")
    came = len(select.select([service], [], [], 0)[0])
    print(json.dumps([refused, len(made), came]))
"""


def run(tmp_path: Path, how: str) -> tuple[list[str], int, int]:
    command = [sys.executable, "-c", SCRIPT, how, str(tmp_path / "x.db")]
    refused, made, came = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    return refused, made, came


def test_a_key_service_is_refused_before_any_socket_is_made(tmp_path: Path) -> None:
    refused, made, came = run(tmp_path, "forbidden")
    assert [error.split(":")[0] for error in refused] == ["PolicyViolationError"] * 3
    assert "a test forbids" in refused[0]
    assert (made, came) == (0, 0)
    assert not (tmp_path / "x.db").exists()


def test_without_it_the_service_sees_a_connection(tmp_path: Path) -> None:
    refused, made, came = run(tmp_path, "allowed")
    assert [error.split(":")[0] for error in refused] == ["KeyUnavailableError"] * 3
    assert made >= 3
    assert came == 1


def test_nothing_is_forbidden_here() -> None:
    assert not networks.is_disabled()
    networks.require_network("a test")


def test_modules_that_speak_to_networks_ask_first() -> None:
    """A new one has to be named here, and to call `require_network`."""
    root = Path(networks.__file__).parent
    speaks = re.compile(
        r"^\s*(?:import|from) (?:http\.client|socket|urllib\.request|smtplib|ftplib|requests|httpx)\b", re.MULTILINE
    )
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if speaks.search(path.read_text())}
    assert found == {"keysources/vault.py"}
    assert "require_network(" in (root / "keysources" / "vault.py").read_text()


@pytest.fixture(autouse=True)
def _unchanged() -> None:
    assert not networks.is_disabled()
