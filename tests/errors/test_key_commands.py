"""Commands for a key that print without end, or end without ending."""

from __future__ import annotations

import sys

import pytest

from heliosvfs import KeyFromCommand, KeyUnavailableError

KEY = bytes(range(200, 232))


@pytest.mark.parametrize("passphrase", [False, True])
def test_a_command_that_prints_without_end_is_ended(passphrase: bool) -> None:
    """Everything that it printed in its 30 seconds was kept in memory."""
    command = [sys.executable, "-c", "while True: print('much ' * 1000)"]
    with pytest.raises(KeyUnavailableError, match="prints more than 4096 bytes: that is no key") as caught:
        KeyFromCommand(command, passphrase=passphrase).secret()
    assert "much" not in str(caught.value)


def test_a_command_that_has_printed_the_key_and_does_not_end_is_told() -> None:
    code = f"import os, time; os.write(1, {KEY!r}); os.close(1); time.sleep(60)"
    with pytest.raises(KeyUnavailableError, match=r"gave no key within 1.5 seconds"):
        KeyFromCommand([sys.executable, "-c", code], timeout=1.5).secret()
