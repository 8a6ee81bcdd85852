"""The tasks of this workspace, under the names that Exasol's projects use; all run through uv."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["format:check", "lint:code", "lint:typing", "test:unit"]

PACKAGES = ("core", "plugin", "testing")


def _uv_run(session: nox.Session, group: str, *command: str) -> None:
    session.run("uv", "run", "--locked", "--group", group, *command, external=True)


@nox.session(name="format:fix")
def format_fix(session: nox.Session) -> None:
    """Format the code and mend what the linter can mend."""
    _uv_run(session, "lint", "ruff", "format", ".")
    _uv_run(session, "lint", "ruff", "check", "--fix", ".")


@nox.session(name="format:check")
def format_check(session: nox.Session) -> None:
    """Fail if the code is not formatted."""
    _uv_run(session, "lint", "ruff", "format", "--check", ".")


@nox.session(name="lint:code")
def lint_code(session: nox.Session) -> None:
    """Lint Python, the import contracts and the workflows."""
    _uv_run(session, "lint", "ruff", "check", ".")
    _uv_run(session, "lint", "lint-imports")
    _uv_run(session, "lint", "yamllint", "--strict", ".github")


@nox.session(name="lint:typing")
def lint_typing(session: nox.Session) -> None:
    """Check the types, strictly."""
    _uv_run(session, "lint", "mypy")


@nox.session(name="test:unit")
def test_unit(session: nox.Session) -> None:
    """Run the packages' own tests; arguments after ``--`` go to pytest."""
    _uv_run(session, "dev", "pytest", "packages", *session.posargs)


@nox.session(name="test:integration")
def test_integration(session: nox.Session) -> None:
    """Run the whole-system tests with real MLflow servers; arguments after ``--`` go to pytest."""
    _uv_run(session, "dev", "pytest", "integration-tests", *session.posargs)
