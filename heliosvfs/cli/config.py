"""`heliosvfs config`: check a configuration, begin one, and show what is in effect and why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from heliosvfs import defaults
from heliosvfs.cli.output import JsonOption, print_json, print_table, write_file
from heliosvfs.config import Config
from heliosvfs.config.applying import without_effect
from heliosvfs.config.presets import PRESETS, preset_name
from heliosvfs.errors import UsageError

__all__ = ["app"]

app = typer.Typer(help="Check, begin and show configurations (heliosdb.toml).", no_args_is_help=True)

FileArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FILE]", help=f"A TOML file; without one, what {defaults.CONFIG_VARIABLE} names.", show_default=False
    ),
]


def _named(file: Path | None) -> Path:
    if file is not None:
        return file
    variable = os.environ.get(defaults.CONFIG_VARIABLE)
    if not variable:
        msg = f"name a configuration, as an argument or by the environment variable {defaults.CONFIG_VARIABLE}"
        raise UsageError(msg)
    return Path(variable)


@app.command()
def check(file: FileArgument = None, *, as_json: JsonOption = False) -> None:
    """Check a configuration against the options that there are, and against its presets; exit status 2: it can't be used."""
    where = _named(file)
    config = Config.from_file(where)
    idle = without_effect(config)
    if as_json:
        print_json({"file": str(where), "presets": list(config.origins.presets), "without_effect": idle})
        return
    presets = ", ".join(PRESETS[name].title for name in config.origins.presets)
    typer.echo(f"{where} can be used{f'; it meets what is asked for by {presets}' if presets else ''}.")
    for option, reason in idle.items():
        typer.echo(f"  without effect: {option}: {reason}")


@app.command()
def show(file: FileArgument = None, *, as_json: JsonOption = False) -> None:
    """Show every option as it is in effect, and where its value comes from: file, preset, environment or default."""
    config = Config.from_file(_named(file))
    rows = [(option, _plain(value), config.origin(option)) for option, value in config.options()]
    rows = [_from_environment(*row) for row in rows]
    if as_json:
        print_json({"options": [{"option": option, "value": value, "from": origin} for option, value, origin in rows]})
        return
    print_table(
        "", ["option", "value", "from"], [[option, "" if value is None else value, origin] for option, value, origin in rows]
    )


def _from_environment(option: str, value: Any, origin: str) -> tuple[str, Any, str]:
    if option == "encryption.key_source" and value is None:
        for variable, kind in ((defaults.KEY_FILE_VARIABLE, "File"), (defaults.KEY_VARIABLE, "Environment")):
            if os.environ.get(variable):
                return option, {kind: os.environ[variable] if kind == "File" else variable}, f"environment variable {variable}"
    return option, value, origin


def _plain(value: Any) -> Any:
    """Return a value as TOML has it; what a section leaves out is left out."""
    made = msgspec.to_builtins(value)
    return {name: inner for name, inner in made.items() if inner is not None} if isinstance(made, dict) else made


@app.command()
def init(
    *,
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = "",
    output: Annotated[Path | None, typer.Option(help="File to write; it must not exist. Without it, standard output.")] = None,
) -> None:
    """Write a configuration to begin with: what a preset asks for, with the clauses, and places for what is yours to say."""
    name = preset_name(preset) if preset else ""
    if name is None:
        msg = f"there is no preset {preset!r}; there are {', '.join(PRESETS)}"
        raise UsageError(msg)
    text = beginning(name)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        write_file(output, text.encode(), replaces=False)
    except OSError as error:
        msg = f"{output} can't be written: {error.strerror}"
        raise UsageError(msg) from None
    typer.echo(f"Wrote {output}. Say where the database and its key are, then: heliosvfs config check {output}")


def beginning(name: str) -> str:
    """Return a configuration with what a preset asks for; "": with no preset."""
    wanted: dict[str, dict[str, tuple[Any, str]]] = {"database": {}, "encryption": {}}
    wanted["database"]["path"] = ("app.db", "where the database is, or shall be")
    wanted["encryption"]["key_source"] = (
        {"File": "app.key"},
        "32 random bytes or 64 hexadecimal digits, for its owner's eyes only",
    )
    if name:
        preset = PRESETS[name]
        wanted.setdefault("compliance", {})["preset"] = (name, preset.title)
        for floor in preset.floors:
            section, _, option = floor.option.partition(".")
            wanted.setdefault(section, {})[option] = (floor.default, f"{floor.least}: {floor.clause}")
        for path, value in preset.defaults.items():
            section, _, option = path.partition(".")
            wanted.setdefault(section, {}).setdefault(option, (value, "a sensible default; the regulation leaves room"))
    lines = [
        "# heliosdb.toml: docs/CONFIG.md has every option. What a preset asks for is in force whether it stands here or not."
    ]
    for section, options in wanted.items():
        lines += ["", f"[{section}]"]
        lines += [f"{option} = {_toml(value)}  # {why}" for option, (value, why) in options.items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, bool):
        return "true" if value else "false"
    return msgspec.json.encode(value).decode()  # numbers and strings are written alike
