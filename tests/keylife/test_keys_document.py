"""docs/KEYS.md says what the code says: each message in its table of failures, each command, each name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import heliosvfs.keysources
from heliosvfs.keysources import KeyFromCommand, KeyFromPKCS11, KeyFromVault

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "KEYS.md").read_text()
SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "heliosvfs" / "keysources").glob("*.py")))
# as one text: messages are written over several lines, and values are inserted
MESSAGES = re.sub(r'"\s*\n\s*f?"', "", SOURCES)


def failures() -> list[str]:
    table = TEXT.split("### What each says when it fails")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| source")]
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row.split("|")[3])]


@pytest.mark.parametrize("message", failures())
def test_a_message_in_the_table_of_failures_is_one_of_the_code(message: str) -> None:
    assert message.strip() in MESSAGES


def test_the_table_names_every_reason_that_the_code_has() -> None:
    reasons = set(re.findall(r'^    \d{3}: "([^"]+)"', SOURCES, re.MULTILINE)) - {
        "it does not accept the token",
        "it reports an internal error",
    }
    reasons.discard("what stands before it gets no answer from it")
    told = " ".join(failures())
    assert {reason for reason in reasons if reason.removeprefix("it refuses the request: ") not in told} == set()


def test_every_class_in_the_table_of_sources_exists() -> None:
    names = set(re.findall(r"^\| `(Key\w+)\(", TEXT, re.MULTILINE))
    assert names == {name for name in heliosvfs.keysources.__all__ if name.startswith("Key")}
    assert {"name", "pin"} <= set(KeyFromPKCS11.__dataclass_fields__)
    assert KeyFromCommand(["true"]).timeout == 30
    assert callable(KeyFromVault.wrap_new_key)


def test_every_function_that_is_named_exists() -> None:
    for name in set(re.findall(r"`heliosvfs\.([a-z_]+\.[a-z_]+)(?:\(|`)", TEXT)):
        module, function = name.split(".")
        imported = __import__(f"heliosvfs.{module}", fromlist=[function])
        assert hasattr(imported, function), name
