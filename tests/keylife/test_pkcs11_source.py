"""Keys from a PKCS#11 token: SoftHSM2, set up anew in a process of its own for each test (Debian: softhsm2)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heliosvfs import KeyUnavailableError
from heliosvfs.keysources import KeyFromPKCS11

MODULES = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
]
MODULE = next((path for path in MODULES if os.path.exists(path)), "")
PIN, SO_PIN = "4711-pin", "so-pin-12"

pytest.importorskip("pkcs11")
needs_softhsm = pytest.mark.skipif(not MODULE, reason="needs SoftHSM2 (apt-get install softhsm2)")

# The module reads its configuration once per process and keeps its tokens, so each test talks to it in a process of its own.
PRELUDE = """
import json, sys, pkcs11, heliosvfs
from heliosvfs import KeyFromEnvironment, KeyUnavailableError, UsageError
from heliosvfs.keysources import KeyFromPKCS11
MODULE = {module!r}
def source(**changes):
    options = dict(module=MODULE, token="clinic", key="db", pin=KeyFromEnvironment("PIN", passphrase=True))
    options.update(changes)
    return KeyFromPKCS11(**options)
def answer(value): print(json.dumps(value))
def failure(**changes):
    try: source(**changes).secret()
    except (KeyUnavailableError, UsageError) as error: return f"{{type(error).__name__}}: {{error}}"
    return "no failure"
def generate(label, kind=pkcs11.KeyType.GENERIC_SECRET, **options):
    with pkcs11.lib(MODULE).get_token(token_label="clinic").open(user_pin={pin!r}, rw=True) as session:
        options.setdefault("capabilities", pkcs11.MechanismFlag.SIGN)
        session.generate_key(kind, 256, label=label, store=True, **options)
"""


def on_token(folder: Path, code: str, *, pin: str = PIN) -> Any:
    """Run a program beside a fresh token labelled "clinic" with a key "db", and return what it answers."""
    (folder / "tokens").mkdir(exist_ok=True)
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    environment = {**os.environ, "SOFTHSM2_CONF": str(configuration), "PIN": pin}
    if not any((folder / "tokens").iterdir()):
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", "clinic", "--pin", PIN, "--so-pin", SO_PIN],
            env=environment,
            check=True,
            capture_output=True,
        )
        code = f'generate("db")\n{code}'
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE.format(module=MODULE, pin=PIN) + code],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_softhsm
def test_a_database_opens_with_a_key_that_the_token_derives_and_with_no_other(tmp_path: Path) -> None:
    code = """
generate("other")
path = {path!r}
c = heliosvfs.connect(path, key=source()); c.execute("CREATE TABLE t(x); INSERT INTO t VALUES(42)"); c.close()
c = heliosvfs.connect(path, key=source(), create=False); found = c.execute("SELECT x FROM t").get; c.close()
refused = []
for changes in (dict(key="other"), dict(name="another")):
    try: heliosvfs.connect(path, key=source(**changes), create=False)
    except heliosvfs.WrongKeyError: refused.append(True)
answer([found, refused, source().secret() == source().secret(), repr(source())])
"""
    found, refused, same, shown = on_token(tmp_path, code.format(path=str(tmp_path / "db")))
    assert (found, refused, same) == (42, [True, True], True)
    assert "PIN" not in shown


@needs_softhsm
def test_the_key_is_the_hmac_that_the_documentation_says(tmp_path: Path) -> None:
    """So another program can compute it with any PKCS#11 tool."""
    code = """
import hmac
with pkcs11.lib(MODULE).get_token(token_label="clinic").open(user_pin="4711-pin", rw=True) as session:
    session.create_object({
        pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY, pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.GENERIC_SECRET,
        pkcs11.Attribute.LABEL: "known", pkcs11.Attribute.VALUE: bytes(range(32)), pkcs11.Attribute.SIGN: True,
        pkcs11.Attribute.TOKEN: True, pkcs11.Attribute.EXTRACTABLE: False, pkcs11.Attribute.SENSITIVE: True})
expected = hmac.digest(bytes(range(32)), b"heliosvfs 1 pkcs11\\0database", "sha256")
answer(source(key="known").secret().value == expected)
"""
    assert on_token(tmp_path, code) is True


@needs_softhsm
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ('token="missing"', "no such token is present"),
        ('key="missing"', "there is no such key"),
        ("pin=None", "there is no such key, or the PIN that was given may not see it"),
        ('key="twice"', "several keys have that label"),
        ('key="aes"', "takes a generic secret key with CKA_SIGN"),
        ('key="mute"', "takes a generic secret key with CKA_SIGN"),
        ('module="/nowhere/libmissing.so"', "the module /nowhere/libmissing.so can't be loaded"),
        ('pin=KeyFromEnvironment("NO_PIN", passphrase=True)', "the environment variable NO_PIN is not set"),
        ('pin=KeyFromEnvironment("RAW")', "is a passphrase: give its source passphrase=True"),
    ],
)
def test_each_failure_has_its_message(tmp_path: Path, changes: str, says: str) -> None:
    code = f"""
import os
os.environ["RAW"] = "0" * 64
generate("twice"); generate("twice"); generate("aes", pkcs11.KeyType.AES)
generate("mute", capabilities=pkcs11.MechanismFlag.DERIVE)
answer(failure({changes}))
"""
    assert says in on_token(tmp_path, code)


@needs_softhsm
def test_a_wrong_pin_is_told_and_not_tried_again(tmp_path: Path) -> None:
    on_token(tmp_path, "answer(0)")
    message = on_token(tmp_path, "answer(failure())", pin="wrong pin")
    assert "the token refuses the PIN" in message
    assert "wrong pin" not in message


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(KeyUnavailableError, match=r"heliosvfs\[pkcs11\]"):
        KeyFromPKCS11("/module.so", "token", "key").secret()
