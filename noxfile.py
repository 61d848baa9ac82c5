"""The one list of what can be run: `nox -l` shows it. `.ci/run` runs README's test command, then lint and types from here."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def lint(session: nox.Session) -> None:
    """Lint and check the format."""
    session.install("ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of both packages."""
    session.install("-e", ".[dev]")
    session.run("mypy", "heliosvfs", "audit/heliosaudit")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the whole suite in its short form."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Run what README and docs show."""
    session.install("-e", ".[test]")
    session.run("pytest", "tests/docs", *session.posargs)


@nox.session
def crash(session: nox.Session) -> None:
    """Run the power-cut campaign in its long form."""
    session.install("-e", ".[test]")
    session.run("pytest", "tests/crash", "--timeout=0", "--power-cuts", *(session.posargs or ["20000"]))


@nox.session
def bench(session: nox.Session) -> None:
    """Compare with plain SQLite and the peers."""
    session.install("-e", ".")
    session.run("python", "bench/pages.py", *session.posargs)
