"""The tasks of this workspace, under the names that Exasol's projects use; all run through uv."""

from __future__ import annotations

import subprocess
import webbrowser
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["format:check", "lint:code", "lint:typing", "test:unit"]

SITE = Path("docs", "_build", "html")


def _uv_run(session: nox.Session, group: str, *command: str) -> None:
    session.run("uv", "run", "--locked", "--group", group, *command, external=True)


@nox.session(name="format:fix")
def format_fix(session: nox.Session) -> None:
    """Format the code and fix what the linter can fix."""
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
    workflows = map(str, Path(".github", "workflows").glob("*.yml"))
    schema = ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"]
    _uv_run(session, "lint", *schema, *workflows)
    _uv_run(session, "lint", "zizmor", "--offline", "--no-progress", ".github")


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
    """Run the integration tests with real MLflow servers; arguments after ``--`` go to pytest."""
    _uv_run(session, "dev", "pytest", "integration-tests", *session.posargs)


@nox.session(name="test:coverage")
def test_coverage(session: nox.Session) -> None:
    """Run all tests and report the branches they cover; arguments after ``--`` go to pytest.

    Not part of the CI: tracing every process makes the tests a third slower.
    """
    _uv_run(session, "dev", "pytest", "--cov", "--cov-report=term", *session.posargs)


@nox.session(name="test:backends")
def test_backends(session: nox.Session) -> None:
    """Run these tests as on an existing Exasol: with its plugins, on a BucketFS that we start.

    Arguments after ``--`` go to pytest and take precedence: ``--bucketfs-url https://HOST:2581``
    and similar options select an existing one.
    """
    serve = ["uv", "run", "--locked", "mlflow-bucketfs-testing", "serve", "--port", "0"]
    backend = ["--backend=onprem", "--itde-db-version=external", "--skip-slc"]
    # a separate environment: these plugins would slow down every other run of pytest
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
    # -E: reads all pages again, so that earlier warnings are repeated
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

    Arguments after ``--`` are versions of Python for the tests; missing ones are skipped.
    """
    _check(session, "package_check.py", "wheels", *session.posargs)


@nox.session(name="package:lowest")
def package_lowest(session: nox.Session) -> None:
    """Run the packages' tests on the lowest versions, and the lowest Python, that they allow.

    With ``--if-present`` after ``--``, the tests are skipped if this Python is missing.
    """
    _check(session, "package_check.py", "lowest", *session.posargs)


@nox.session(name="test:mlflow")
def test_mlflow(session: nox.Session) -> None:
    """Run the tests with the MLflow named after ``--``, such as 3.8.1, or with the newest.

    Other packages have their newest compatible versions. Further arguments go to pytest.
    """
    _check(session, "package_check.py", "mlflow", *session.posargs)


@nox.session(name="release:check")
def release_check(session: nox.Session) -> None:
    """Report the problems of the tag after ``--``, or print the text of its release.

    A package's name instead of a tag rehearses the release of its next version.
    """
    _check(session, "release_check.py", *session.posargs)


def _check(session: nox.Session, script: str, *arguments: str) -> None:
    _uv_run(session, "package", "python", str(Path("release", script)), *arguments)


@nox.session(name="bench")
def bench(session: nox.Session) -> None:
    """Measure against the counterpart and curl; ``--quick``, ``--only`` etc. go after ``--``."""
    command = ["uv", "run", "--locked", "python", "-m", "benchmarks", *session.posargs]
    # after Ctrl-C, the benchmarks need time to remove their files
    patience = {"interrupt_timeout": 60, "terminate_timeout": 60}
    session.run(*command, env={"PYTHONPATH": "integration-tests"}, external=True, **patience)


@nox.session(name="slc:engine")
def slc_engine(session: nox.Session) -> None:
    """Start a private Docker engine if none runs; or, after ``--``: stop, status, remove."""
    _slc(session, "slc/bare_machine.py", "engine", *(session.posargs or ["start"]))


@nox.session(name="slc:base")
def slc_base(session: nox.Session) -> None:
    """Make a stand-in for Exasol's base image, if it cannot be pulled."""
    _slc(session, "slc/bare_machine.py", "base", *session.posargs)


@nox.session(name="slc:export")
def slc_export(session: nox.Session) -> None:
    """Build the container into ``.slc``; ``--require-official-base`` etc. go after ``--``."""
    _slc(session, "-m", "slc_build.export", *session.posargs)


def _slc(session: nox.Session, *arguments: str) -> None:
    command = ["uv", "run", "--locked", "--group", "slc", "python", *arguments]
    # exaslct stops its workers and removes gigabytes of temporary files when Ctrl-C is pressed
    patience = {"interrupt_timeout": 60, "terminate_timeout": 60}
    session.run(*command, env={"PYTHONPATH": "slc"}, external=True, **patience)
