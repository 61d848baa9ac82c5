"""OPTIONS of a database in Django's settings, as arguments of `heliosvfs.dbapi2.connect`.

Settings are printed: by `manage.py diffsettings`, on pages of errors, in logs. A key in them is therefore a source, which says
where the key is and not what.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured

from heliosvfs.config import keys
from heliosvfs.config.applying import config_from
from heliosvfs.defaults import configured_key, default_config, default_key
from heliosvfs.keyring import Key, KeySource
from heliosvfs.keys import Secret
from heliosvfs.keysources import KeyFile

__all__ = ["config_of", "connect_arguments", "key_of", "refuse_passwords"]


def refuse_passwords(settings: dict[str, Any]) -> None:
    """Refuse settings that hold a key.

    Raises:
        ImproperlyConfigured: PASSWORD is set, or the key is no source.
    """
    if settings.get("PASSWORD"):
        msg = 'heliosvfs.django does not use PASSWORD: say where the key is, "OPTIONS": {"key_file": "/etc/clinic.key"}'
        raise ImproperlyConfigured(msg)
    _source(dict(settings.get("OPTIONS") or {}))


def _source(options: dict[str, Any]) -> KeySource | Secret | None:
    """Take the key out of OPTIONS.

    Raises:
        ImproperlyConfigured: It is no source, or there are two.
    """
    key, file = options.pop("key", None), options.pop("key_file", None)
    if key is not None and file is not None:
        msg = 'OPTIONS has both "key" and "key_file": one of them is the key'
        raise ImproperlyConfigured(msg)
    if key is not None and not isinstance(key, (KeySource, Secret)):
        msg = (
            'OPTIONS["key"] is a key source such as heliosvfs.KeyFile("/etc/clinic.key"), not the key itself: settings are '
            "printed by manage.py diffsettings and on pages of errors"
        )
        raise ImproperlyConfigured(msg)
    return key if file is None else KeyFile(file)


def connect_arguments(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters of a connection with the key that they name."""
    arguments = dict(parameters)
    key = _source(arguments)
    return arguments if key is None else {**arguments, "key": key}


def config_of(settings: dict[str, Any]) -> Any:
    """Return the configuration of a database in the settings, or that of the process; None: there is none."""
    given = (settings.get("OPTIONS") or {}).get("config")
    return default_config() if given is None else given


def key_of(settings: dict[str, Any]) -> Key | None:
    """Return the key of a database in the settings: its own, its configuration's, or that of the process."""
    found = _source(dict(settings.get("OPTIONS") or {}))
    if found is not None:
        return found
    config = config_of(settings)
    return default_key() if config is None else configured_key() or keys.key_of(config_from(config))
