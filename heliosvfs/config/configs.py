"""Config: all options of a database, whole and effective (docs/CONFIG.md)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from heliosvfs.config import completions, reading, sections

__all__ = ["Config", "Origins"]

_MADE = "Config(...)"


class Origins(msgspec.Struct, frozen=True):
    """Where the values of a configuration come from.

    Attributes:
        source: The file, or what the configuration was made from.
        given: Key paths of the options that it says itself.
        filled: Key path and preset of those that a preset has set.
        presets: Names of the presets in force.
        is_complete: Whether presets were looked at.
    """

    source: str = _MADE
    given: frozenset[str] = frozenset()
    filled: dict[str, str] = {}
    presets: tuple[str, ...] = ()
    is_complete: bool = False


class Sections(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a file says."""

    database: sections.Database = sections.Database()
    encryption: sections.Encryption = sections.Encryption()
    audit: sections.Audit = sections.Audit()
    logging: sections.Logging = sections.Logging()
    monitoring: sections.Monitoring = sections.Monitoring()
    compliance: sections.Compliance = sections.Compliance()
    gdpr: sections.Gdpr = sections.Gdpr()
    security: sections.Security = sections.Security()
    backup: sections.Backup = sections.Backup()
    iot: sections.Iot = sections.Iot()
    edge: sections.Edge = sections.Edge()
    offline: sections.Offline = sections.Offline()
    container: sections.Container = sections.Container()
    server: sections.Server = sections.Server()


class Config(Sections, frozen=True, kw_only=True):
    """The options of a database; `from_file`, `from_dict`, or ``Config(encryption=Encryption(...))``.

    What a preset asks for is filled in, and a configuration below it refused, when it is read, or else when it is used.

    Attributes:
        origins: Where its values come from.
    """

    origins: Origins = Origins()

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Config:
        """Read a TOML file.

        Raises:
            ConfigError: It can't be read, says something that is no option, or falls below its preset.
        """
        return cls.from_dict(reading.read(path), source=os.fspath(path))

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, source: str = "configuration") -> Config:
        """Make a configuration from a dict of sections.

        Args:
            document: As a TOML file would have it.
            source: What errors call it.

        Raises:
            ConfigError: It says something that is no option, or falls below its preset.
        """
        if not isinstance(document, Mapping):
            raise reading.problem(source, "", f"expected a table of sections, found {type(document).__name__}")
        read = reading.checked(dict(document), Sections, source)
        config = cls(**{name: getattr(read, name) for name in Sections.__struct_fields__})
        return completions.completed(config, frozenset(_leaves(document)), source)

    def completed(self) -> Config:
        """Return the configuration as it takes effect: with what its presets ask for, and checked.

        One that was made in Python can't tell a default from the same value on purpose: a preset fills it in.

        Raises:
            ConfigError: It falls below its preset, or contradicts itself.
        """
        if self.origins.is_complete:
            return self
        given = frozenset(option for option, value in self.options() if value != _default(option))
        return completions.completed(self, given, _MADE)

    def get(self, option: str) -> Any:
        """Return the value of an option by its key path, "audit.retention_days"."""
        value: Any = self
        for name in option.split("."):
            value = getattr(value, name)
        return value

    def options(self) -> list[tuple[str, Any]]:
        """Return key path and value of every option, in the order of the documentation."""
        return [pair for name in Sections.__struct_fields__ for pair in _options(getattr(self, name), f"{name}.")]

    def origin(self, option: str) -> str:
        """Say where an option's value comes from: the file, a preset, the environment, or the default."""
        origins = self.origins
        if option in origins.given:
            return origins.source
        if option in origins.filled:
            by = origins.filled[option]
            return by if "." in by else f"preset {by}"
        return "default"


def _options(section: msgspec.Struct, where: str) -> Iterator[tuple[str, Any]]:
    for name in section.__struct_fields__:
        value = getattr(section, name)
        here = f"{where}{name}"
        if name == "capture_metadata":
            yield from _options(value, f"{here}.")
        else:
            yield here, value


def _default(option: str) -> Any:
    return Config().get(option)


def _leaves(document: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield the key paths that a document says; one that is a table of names is an option as a whole."""
    for name, value in document.items():
        here = f"{where}{name}"
        if isinstance(value, Mapping) and (not where or name == "capture_metadata"):
            yield from _leaves(value, f"{here}.")
        else:
            yield here
