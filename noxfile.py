"""The tasks of this workspace, under the names that Exasol's projects use; all run through uv."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["format:check", "lint:code", "lint:typing", "test:unit"]

PACKAGES = ("core", "plugin", "testing")
SITE = Path("docs", "_build", "html")


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


@nox.session(name="test:backends")
def test_backends(session: nox.Session) -> None:
    """Run them as on an existing Exasol: with its pytest plugins, on a BucketFS that we start.

    Arguments after ``--`` go to pytest and win: ``--bucketfs-url https://HOST:2581`` and the like
    name a real one.
    """
    serve = ["uv", "run", "--locked", "mlflow-bucketfs-testing", "serve", "--port", "0"]
    backend = ["--backend=onprem", "--itde-db-version=external", "--skip-slc"]
    # an environment of its own: these plugins would slow down every other run of pytest
    environment = {"UV_PROJECT_ENVIRONMENT": str(Path(session.create_tmp(), "exasol").absolute())}
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            lines = iter(server.stdout or ())
            endpoint = next(line for line in lines if "exa+bfs://" in line).split("/")[2]
            url = ["--bucketfs-url", f"http://{endpoint}", "--bucketfs-password", "write"]
            tests = ["integration-tests", "packages/mlflow-bucketfs-testing/tests"]
            pytest = ["uv", "run", "--locked", "--group", "exasol", "pytest", *backend, *url]
            session.run(*pytest, *(session.posargs or tests), env=environment, external=True)
        finally:
            server.terminate()


@nox.session(name="docs:build")
def docs_build(session: nox.Session) -> None:
    """Build the documentation into ``docs/_build/html``; every warning is an error."""
    # -E: a warning of the last build must not go unseen in this one
    strict = ["-n", "-W", "-E", "--keep-going", "-d", str(SITE.parent / "doctrees")]
    _uv_run(session, "docs", "sphinx-build", *strict, *session.posargs, "docs", str(SITE))
    session.log(f"Open {SITE.absolute() / 'index.html'}, or: nox -s docs:open")


@nox.session(name="docs:open")
def docs_open(session: nox.Session) -> None:
    """Show the documentation, as it was built last, in the web browser."""
    index = SITE.absolute() / "index.html"
    if not index.is_file():
        session.error("There is no site yet: nox -s docs:build")
    webbrowser.open(index.as_uri())


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
    built = map(str, Path("dist").glob("mlflow_*"))
    _uv_run(session, "package", "twine", "check", "--strict", *built)
    for package, statement in ALONE.items():
        python = _wheel_environment(session, sys.executable, f"mlflow-bucketfs-{package}")
        session.run(python, "-I", "-c", statement, external=True)
    for version in session.posargs or WHEEL_PYTHONS:
        if (interpreter := _find_python(version)) is None:
            session.warn(f"Python {version} is not here: its tests are left out")
            continue
        python = _wheel_environment(session, interpreter, "mlflow-bucketfs-testing[mlflow]", "dev")
        # nox's directory for temporary files is closed to the users that some tests become
        pytest = [python, "-m", "pytest", "-q", *WHEEL_TESTS]
        session.run(*pytest, env={"TMPDIR": ""}, external=True)
    _check_reuse(session)


def _check_reuse(session: nox.Session) -> None:
    """Run the tests of a project that knows of this workspace nothing but the wheels."""
    example = Path("integration-tests", "reuse-example").absolute()
    groups = f"{example / 'pyproject.toml'}:test"
    python = Path(_wheel_environment(session, sys.executable, str(example), groups)).absolute()
    with session.chdir(example):
        session.run(str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", external=True)


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


@nox.session(name="bench")
def bench(session: nox.Session) -> None:
    """Measure against the counterpart and curl; ``--quick``, ``--only`` etc. go after ``--``."""
    command = ["uv", "run", "--locked", "python", "-m", "benchmarks", *session.posargs]
    # time to remove what it has written when Ctrl-C is pressed
    patience = {"interrupt_timeout": 60, "terminate_timeout": 60}
    session.run(*command, env={"PYTHONPATH": "integration-tests"}, external=True, **patience)


@nox.session(name="slc:engine")
def slc_engine(session: nox.Session) -> None:
    """Start a private Docker engine where none runs; or, after ``--``: stop, status, remove."""
    _slc_build(session, "engine", *(session.posargs or ["start"]))


@nox.session(name="slc:base")
def slc_base(session: nox.Session) -> None:
    """Make a stand-in for Exasol's base image, where it cannot be pulled."""
    _slc_build(session, "base", *session.posargs)


@nox.session(name="slc:export")
def slc_export(session: nox.Session) -> None:
    """Build the container into ``.slc``; ``--require-official-base`` etc. go after ``--``."""
    _slc_build(session, "export", *session.posargs)


def _slc_build(session: nox.Session, *arguments: str) -> None:
    command = ["uv", "run", "--locked", "--group", "slc", "python", "-m", "slc_build", *arguments]
    # exaslct stops its workers and removes gigabytes of temporary files when Ctrl-C is pressed
    patience = {"interrupt_timeout": 60, "terminate_timeout": 60}
    session.run(*command, env={"PYTHONPATH": "slc"}, external=True, **patience)
