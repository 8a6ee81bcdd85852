"""The wheels: checked, installed alone, tested; with what is locked, lowest, or of one MLflow."""

from __future__ import annotations

import os
import sys

from release_check.commands import CheckError, run
from release_check.contents import check_contents
from release_check.environments import (
    build_packages,
    environment,
    find_python,
    locked,
    lowest,
    run_tests,
)
from release_check.paths import DIST, EXAMPLE, PACKAGES, ROOT, folder

# The tests run on the workspace's Python from the sources, and on the lowest one below; these are
# for the wheels.
PYTHONS = ("3.13",)
LOWEST_PYTHON = "3.10"

# What each package must be able to do with nothing but its own dependencies.
_ALONE = {
    "mlflow-bucketfs-core": """
from mlflow_bucketfs_core import Bucket
Bucket("exa+bfs://h/s/b").as_path("x")
""",
    "mlflow-bucketfs-plugin": """
import importlib.util
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
print(get_artifact_repository("exa+bfs://h/s/b/x"))
assert importlib.util.find_spec("flask") is None, "the full mlflow came along"
""",
    "mlflow-bucketfs-testing": """
from mlflow_bucketfs_testing.server import BucketFSServer
with BucketFSServer() as server:
    print(server.uri())
""",
    "mlflow-bucketfs-testing[udf]": """
from mlflow_bucketfs_testing import UdfRunner
script = "CREATE PYTHON3 SCALAR SCRIPT f(x INT) RETURNS INT AS\\ndef run(ctx): return ctx.x * 2\\n"
with UdfRunner() as runner:
    assert runner.create(script).run([(2,)]).rows == [(4,)]
""",
}
# Into an environment with the full mlflow, the plugin alone is added: it must change nothing there
# but what it brings itself, and the full mlflow must find it.
_BESIDE = """
import importlib.metadata as metadata
from mlflow.server import app
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
print(get_artifact_repository("exa+bfs://h/s/b/x"), app.name)
versions = {metadata.version(name) for name in ("mlflow", "mlflow-skinny")}
assert len(versions) == 1, f"mlflow and mlflow-skinny differ: {versions}"
"""
# With all extras but `exasol`, which is a group of its own in the workspace too.
_ALL = (
    "mlflow-bucketfs-core",
    "mlflow-bucketfs-plugin[server,progress,udf]",
    "mlflow-bucketfs-testing[mlflow,udf]",
)
_EXTRAS = ("server", "progress", "udf", "mlflow")
# What somebody reads who has nothing but the published packages.
_PAGES = (ROOT / "README.md", *(folder(package) / "README.md" for package in PACKAGES))
_EXAMPLE = (EXAMPLE, "--group", f"{EXAMPLE / 'pyproject.toml'}:test")


def check(pythons: list[str]) -> None:
    """Build all packages, install each one alone, and run the tests against the wheels.

    Args:
        pythons: versions of Python to run the tests on; those that are not here are left out.
    """
    build_packages()
    check_contents(DIST)
    run("twine", "check", "--strict", *DIST.glob("mlflow_*"))
    everything = ("--all-packages", "--all-extras", "--all-groups")
    with locked(*everything) as versions:
        constraint = ("--constraint", versions)
        for package, statement in _ALONE.items():
            with environment(sys.executable, package, *constraint) as python:
                run(python, "-I", "-c", statement)
        with environment(sys.executable, "mlflow", *constraint) as python:
            # by path: the full mlflow is there already, and nothing but ours is added
            wheels = sorted(DIST.glob("mlflow_bucketfs_[cp]*.whl"))
            run("uv", "pip", "install", "--quiet", "--python", python, *wheels, *constraint)
            run(python, "-I", "-c", _BESIDE)
        for version in pythons:
            try:
                interpreter = find_python(version)
            except CheckError as error:
                sys.stderr.write(f"{error}: its tests are left out\n")
                continue
            tested = ("mlflow-bucketfs-testing[mlflow,udf]", "--group", "dev")
            with environment(interpreter, *tested, *constraint) as python:
                run_tests(python, folder(PACKAGES[0]), folder(PACKAGES[1]))
        with environment(sys.executable, *_EXAMPLE, *constraint) as python:
            run_tests(python, cwd=EXAMPLE)
    _check_pages()


def _check_pages() -> None:
    """Do what the pages tell a stranger, in an empty environment with pip and the wheels."""
    wheels = {**os.environ, "DOC_EXAMPLES_WHEELS": str(DIST)}
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_PAGES, environment=wheels)


def check_lowest(*, if_present: bool) -> None:
    """Run the packages' tests on the lowest versions, and the lowest Python, that they allow.

    Args:
        if_present: leave the tests out where this Python is missing, instead of failing.
    """
    try:
        interpreter = find_python(LOWEST_PYTHON)
    except CheckError as error:
        if not if_present:
            raise
        sys.stderr.write(f"NOT TRIED: lower bounds. {error}\n")
        return
    build_packages()
    with locked("--only-group", "dev") as tools:
        # the workspace's configuration of pytest is for a newer one than users need
        with (
            lowest(LOWEST_PYTHON, *PACKAGES, extras=_EXTRAS, exclude="pytest") as versions,
            environment(interpreter, *_ALL, "-r", tools, "--overrides", versions) as python,
        ):
            run("uv", "pip", "list", "--quiet", "--python", python)
            run_tests(python, folder(PACKAGES[0]), folder(PACKAGES[1]))
        # and the oldest pytest does not read that configuration
        with (
            lowest(LOWEST_PYTHON, PACKAGES[2], extras=("mlflow", "udf")) as versions,
            environment(interpreter, *_EXAMPLE, "-r", tools, "--overrides", versions) as python,
        ):
            run("uv", "pip", "list", "--quiet", "--python", python)
            # The example has the one MLflow server that the lowest versions need to start.
            without_servers = ("--import-mode=importlib", "--ignore-glob=*/test_mlflow_process*")
            parallel = ("--numprocesses=auto", "--dist=loadfile")
            run_tests(python, *without_servers, *parallel, folder(PACKAGES[2]))
            run_tests(python, cwd=EXAMPLE)


def check_mlflow(version: str, arguments: list[str]) -> None:
    """Run tests with one version of MLflow, and all else as new as fits to it.

    Args:
        version: MLflow's, or ``newest``.
        arguments: for pytest; by default all tests of packages and whole system.
    """
    build_packages()
    # an older MLflow imports what SQLAlchemy 2.1 has no more, although its metadata allows that
    mlflow = ["mlflow"] if version == "newest" else [f"mlflow=={version}", "sqlalchemy<2.1"]
    with environment(sys.executable, *mlflow, *_ALL, "--group", "dev") as python:
        run("uv", "pip", "list", "--quiet", "--python", python)
        run_tests(python, *(arguments or ["packages", "integration-tests"]))
