"""The tasks of this workspace, under the names that Exasol's projects use; all run through uv."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

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


@nox.session(name="package:check")
def package_check(session: nox.Session) -> None:
    """Build all packages, install each one alone, and run the tests against the wheels.

    The tests run on every Python that is found of those named in ``WHEEL_PYTHONS``, or given
    after ``--``.
    """
    shutil.rmtree("dist", ignore_errors=True)
    for package in PACKAGES:
        name = f"mlflow-bucketfs-{package}"
        session.run("uv", "build", "--quiet", "--no-sources", "--package", name, external=True)
    _uv_run(session, "package", "twine", "check", "--strict", *map(str, Path("dist").glob("*.*")))
    for package, statement in ALONE.items():
        python = _wheel_environment(session, sys.executable, f"mlflow-bucketfs-{package}")
        session.run(python, "-I", "-c", statement, external=True)
    for version in session.posargs or WHEEL_PYTHONS:
        if (interpreter := _find_python(version)) is None:
            session.warn(f"Python {version} is not here: its tests are left out")
            continue
        python = _wheel_environment(session, interpreter, "mlflow-bucketfs-testing[mlflow]", "dev")
        session.run(python, "-m", "pytest", "-q", *WHEEL_TESTS, external=True)


# What each package must be able to do with nothing but its own dependencies.
ALONE = {
    "core": "from mlflow_bucketfs_core import Bucket; Bucket('exa+bfs://h/s/b').as_path('x')",
    "plugin": (
        "import importlib.util as u\n"
        "from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository\n"
        "print(get_artifact_repository('exa+bfs://h/s/b/x'))\n"
        "assert u.find_spec('flask') is None, 'the full mlflow came along'"
    ),
    "testing": (
        "from mlflow_bucketfs_testing.server import BucketFSServer\n"
        "with BucketFSServer() as server: print(server.uri())"
    ),
}
WHEEL_PYTHONS = ("3.10", "3.13")
WHEEL_TESTS = ("packages/mlflow-bucketfs-core", "packages/mlflow-bucketfs-plugin")


def _wheel_environment(session: nox.Session, interpreter: str, *what: str) -> str:
    """Make an empty environment with wheels from ``dist``, all else as locked; return its Python.

    The first of ``what`` is a requirement, the others are dependency groups.
    """
    requirement, *groups = what
    directory = Path(session.create_tmp(), "wheels")
    shutil.rmtree(directory, ignore_errors=True)
    constraints = directory.with_suffix(".txt")
    export = ["uv", "export", "--quiet", "--locked", "--all-packages", "--all-extras"]
    flags = ["--all-groups", "--no-hashes", "--no-emit-workspace", "--output-file"]
    session.run(*export, *flags, str(constraints), external=True, silent=True)
    session.run("uv", "venv", "--quiet", "--python", interpreter, str(directory), external=True)
    install = ["uv", "pip", "install", "--quiet", "--python", str(directory)]
    wheels = ["--find-links", "dist", "--constraint", str(constraints), requirement]
    groups = [argument for group in groups for argument in ("--group", group)]
    session.run(*install, *wheels, *groups, external=True)
    return str(directory / "bin" / "python")


def _find_python(version: str) -> str | None:
    """Find a Python by uv's means, or pyenv's, which uv does not know."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = subprocess.run(
        ["uv", "python", "find", "--no-project", version],
        capture_output=True,
        text=True,
        check=False,
    )
    candidates = [found.stdout.strip(), *map(str, pyenv.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        probe = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(probe, capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return candidate
    return None
