"""`manage.py dbshell`: the shell of heliosvfs on the database, with its key through a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from django.db.backends.base.client import BaseDatabaseClient

from heliosvfs.django.options import config_of, key_of
from heliosvfs.keyring import as_secret

__all__ = ["Client"]


class Client(BaseDatabaseClient):  # type: ignore[misc] # Django has no annotations
    """Starts ``heliosvfs shell``."""

    executable_name = sys.executable

    @classmethod
    def settings_to_cmd_args_env(cls, settings_dict: dict[str, Any], parameters: Iterable[str]) -> tuple[list[str], None]:
        """Return the command, without a key."""
        return [cls.executable_name, "-m", "heliosvfs", "shell", os.fspath(settings_dict["NAME"]), *parameters], None

    def runshell(self, parameters: Iterable[str]) -> None:
        """Run the shell. Without a key in the settings or the environment it asks for a passphrase."""
        settings = self.connection.settings_dict
        config = config_of(settings)
        if isinstance(config, (str, os.PathLike)):  # the shell opens the database as it says, audited too
            super().runshell(["--config", os.fspath(config), *parameters])
            return
        key = key_of(settings)
        if key is None:
            super().runshell(parameters)
            return
        secret = as_secret(key)
        command, _ = self.settings_to_cmd_args_env(settings, [])
        reading, writing = os.pipe()  # neither arguments nor the environment show it to others
        try:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(secret.value if secret.kind == "raw" else secret.value + b"\n")
            command += ["--key-file", f"/dev/fd/{reading}", *(["--passphrase"] if secret.kind == "passphrase" else [])]
            subprocess.run([*command, *parameters], check=True, pass_fds=(reading,))  # noqa: S603 - our own shell
        finally:
            os.close(reading)
