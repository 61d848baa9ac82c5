"""The day of a slot's last use, noted if asked for; and what FIPS mode says of the modules in use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs import fips
from heliosvfs.key_uses import note_use
from heliosvfs.rotation import rotate
from tests.keylife.examining import KEY, copies, database

DAY = datetime(2030, 5, 17, 12, tzinfo=timezone.utc)
NEXT = datetime(2030, 5, 18, 1, tzinfo=timezone.utc)


def test_nothing_is_noted_unless_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "db"
    database(path).close()
    before = copies(path)
    heliosvfs.connect(path, key=KEY).close()
    assert copies(path) == before
    assert b"last_used" not in path.read_bytes()[:32768]


def test_the_slot_that_was_used_tells_the_day_and_is_written_once_a_day(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(database(path)) as connection:
        sequence = copies(path)[0].sequence
        assert note_use(connection, at=DAY)
        assert not note_use(connection, at=DAY)
        assert copies(path)[0].sequence == sequence + 1
        with closing(heliosvfs.connect(path, key=b"2" * 32)) as other:
            assert note_use(other, at=NEXT)
        assert [slot.last_used for slot in connection.list_keys()] == ["2030-05-17", "2030-05-18"]
        assert not note_use(connection, at=datetime(2030, 5, 16, tzinfo=timezone.utc)), "a clock that went back changes nothing"
        rotate(connection, master=True)
        assert [slot.last_used for slot in connection.list_keys()] == ["2030-05-17"]
    one, two = copies(path)
    assert one == two


def test_opening_never_fails_because_a_use_can_not_be_noted(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(database(path)) as connection, closing(heliosvfs.connect(path, key=KEY, busy_timeout=0)) as other:
        connection.execute("BEGIN IMMEDIATE")
        assert not note_use(other, at=DAY)
        assert not note_use(connection, at=DAY)
        connection.execute("COMMIT")
    with closing(heliosvfs.connect(path, key=KEY, readonly=True)) as connection:
        assert not note_use(connection, at=DAY)


def test_what_is_not_computed_by_fips_providers_is_refused_unless_algorithms_are_enough() -> None:
    found = fips.status()
    if found.validated_modules:
        assert fips.require() == found
        assert found.explain() == ""
    else:
        with pytest.raises(heliosvfs.PolicyViolationError, match="validated module") as caught:
            fips.require()
        for module, provided in ((found.cipher_module, found.cipher_provider), (found.hash_module, found.hash_provider)):
            assert (module in str(caught.value)) == (not provided)
    assert fips.require(algorithms_only=True) == found


def test_in_fips_mode_nothing_but_approved_algorithms_is_written(tmp_path: Path) -> None:
    settings = heliosvfs.KdfSettings(fips_mode=True)
    with closing(heliosvfs.connect(tmp_path / "db", key="a passphrase", settings=settings)) as connection:
        connection.add_key("another", label="second", settings=settings)
        rotate(connection)
        names = {slot.kdf.name for slot in copies(tmp_path / "db")[0].slots}
        assert names == {"pbkdf2-hmac-sha256"}
        assert {epoch.cipher for epoch in copies(tmp_path / "db")[0].epochs} == {"AES-256-GCM"}


CONFIGURATION = """
openssl_conf = openssl_init
[openssl_init]
providers = provider_sect
alg_section = algorithm_sect
[provider_sect]
fips = fips_sect
base = base_sect
[base_sect]
activate = 1
[fips_sect]
activate = 1
[algorithm_sect]
default_properties = fips=yes
"""

LOOK = "import json; from heliosvfs import fips; s = fips.status(); print(json.dumps([s.hash_provider, s.cipher_provider]))"


def test_a_provider_that_is_configured_and_not_there_is_never_taken_for_one(tmp_path: Path) -> None:
    """Python's OpenSSL is told to use a FIPS provider; where none is installed, nothing may claim that one is in use."""
    (tmp_path / "openssl.cnf").write_text(CONFIGURATION)
    listed = subprocess.run(["openssl", "list", "-providers", "-provider", "fips"], capture_output=True, check=False)
    if listed.returncode == 0:
        pytest.skip("a FIPS provider is installed here")
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env={**os.environ, "OPENSSL_CONF": str(tmp_path / "openssl.cnf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 or json.loads(done.stdout) == [False, False], "Python may refuse to hash at all, but not claim"
