"""Check the packages as users install them: each wheel alone, and on the lowest versions.

``python release/package_check.py --help`` lists the commands, which the nox sessions
``package:check``, ``package:lowest`` and ``test:mlflow`` run. Each check runs in an environment
that ``uv run --isolated`` makes, without the workspace.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nox.project import dependency_groups, load_toml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
# A project that uses only the wheels, without the workspace
EXAMPLE = ROOT / "integration-tests" / "reuse-example"
CORE, PLUGIN, TESTING = (
    ROOT / "packages" / f"mlflow-bucketfs-{name}" for name in ("core", "plugin", "testing")
)
PACKAGES = (CORE, PLUGIN, TESTING)

# Versions for the tests of the wheels. The sources are tested on the workspace's Python, and on the
# lowest one below.
PYTHONS = ("3.13",)
LOWEST_PYTHON = "3.10"

# Code that must work with only the package's own dependencies; the last one with the full mlflow,
# which must find the plugin.
_ALONE = {
    ("mlflow-bucketfs-core",): """
from mlflow_bucketfs_core import Bucket
Bucket("exa+bfs://h/s/b").as_path("x")
""",
    ("mlflow-bucketfs-plugin",): """
import importlib.util
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
print(get_artifact_repository("exa+bfs://h/s/b/x"))
assert importlib.util.find_spec("flask") is None, "the full mlflow was installed, too"
""",
    ("mlflow-bucketfs-testing",): """
from mlflow_bucketfs_testing.server import BucketFSServer
with BucketFSServer() as server:
    print(server.uri())
""",
    ("mlflow-bucketfs-testing[udf]",): """
from mlflow_bucketfs_testing import UdfRunner
script = "CREATE PYTHON3 SCALAR SCRIPT f(x INT) RETURNS INT AS\\ndef run(ctx): return ctx.x * 2\\n"
with UdfRunner() as runner:
    assert runner.create(script).run([(2,)]).rows == [(4,)]
""",
    ("mlflow", "mlflow-bucketfs-plugin"): """
import importlib.metadata as metadata
from mlflow.server import app
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
print(get_artifact_repository("exa+bfs://h/s/b/x"), app.name)
versions = {metadata.version(name) for name in ("mlflow", "mlflow-skinny")}
assert len(versions) == 1, f"mlflow and mlflow-skinny differ: {versions}"
""",
}
# All extras except `exasol`, which is a separate group in the workspace, too.
_EXTRAS = {CORE: "", PLUGIN: "[server,progress,sql,udf]", TESTING: "[mlflow,udf]"}
# Pages for users who have only the published packages.
_PAGES = [ROOT / "README.md", *(package / "README.md" for package in PACKAGES)]
_PYTEST = ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider")
# Prints the versions that a test runs with
_LIST = """
import importlib.metadata
for distribution in sorted(importlib.metadata.distributions(), key=lambda each: each.name):
    print(distribution.name, distribution.version)
"""


class CheckError(Exception):
    """A check failed; the message has the command or the missing requirement."""


def build(dist: Path = DIST) -> None:
    """Build wheel and sdist of every package into a directory, and leave nothing else there.

    Args:
        dist: the directory.
    """
    # --no-sources: as for PyPI, where there is no workspace. With constraints, uv builds with the
    # backend that they pin, instead of its built-in copy.
    pins = ("--build-constraints", ROOT / "release" / "build-constraints.txt", "--require-hashes")
    how = ("--quiet", "--all-packages", "--no-sources", "--clear", *pins)
    _run("uv", "build", *how, "--out-dir", dist)


def check_wheels(pythons: Sequence[str]) -> None:
    """Build all packages, install each one alone, and run the tests against the wheels.

    Args:
        pythons: versions of Python to run the tests on; those that are not installed are skipped.
    """
    build()
    for package in PACKAGES:
        source = package / "src" / _module(package)
        _run("check-wheel-contents", "--package", source, _wheel(package))
    _run("twine", "check", "--strict", *DIST.glob("mlflow_*"))
    with _built_wheels(locked=True) as wheels:
        for requirements, statement in _ALONE.items():
            _run_isolated(*wheels, *_with(*requirements), "python", "-I", "-c", statement)
        tested = _with(f"mlflow-bucketfs-testing{_EXTRAS[TESTING]}", *_group(ROOT, "dev"))
        for version in pythons:
            if python := _find_python(version):
                _run_isolated("--python", python, *wheels, *tested, *_PYTEST, CORE, PLUGIN)
            else:
                sys.stderr.write(f"NOT TRIED: Python {version}, which is not installed\n")
        _run_isolated(*wheels, *_with_example(), *_PYTEST, cwd=EXAMPLE)
    # The pages' commands, in an empty environment with pip and the wheels
    os.environ["DOC_EXAMPLES_WHEELS"] = str(DIST)
    _run(sys.executable, *_PYTEST[1:], *_PAGES)


def check_lowest(*, if_present: bool) -> None:
    """Run the packages' tests on the lowest versions, and the lowest Python, that they allow.

    Args:
        if_present: skip the tests if this Python is missing, instead of failing.

    Raises:
        CheckError: this Python is missing.
    """
    python = _find_python(LOWEST_PYTHON)
    if python is None:
        if not if_present:
            raise CheckError(
                f"Python {LOWEST_PYTHON} is missing: uv python install {LOWEST_PYTHON}"
            )
        sys.stderr.write(f"NOT TRIED: lower bounds, because Python {LOWEST_PYTHON} is missing\n")
        return
    # Directories, whose requirements count as direct ones, unlike those of a wheel; editable,
    # because uv would reuse an older build of a directory. --no-sources: users have no workspace.
    lowest = ("--python", python, "--no-sources", "--resolution", "lowest-direct")
    tools = _group(ROOT, "dev")
    everything = [
        *_editable(*(f"{package}{_EXTRAS[package]}" for package in PACKAGES)),
        *_with(*tools),
    ]
    _run_isolated(*lowest, *everything, "python", "-c", _LIST)
    _run_isolated(*lowest, *everything, *_PYTEST, CORE, PLUGIN)
    # The workspace's configuration needs a newer pytest than users do. So the tests of the testing
    # package, and the project that uses it, run without that configuration on the oldest pytest.
    others = _with(*(tool for tool in tools if not tool.startswith("pytest>")))
    testing = _editable(f"{TESTING}{_EXTRAS[TESTING]}", CORE, PLUGIN)
    users = (*lowest, *testing, *others, *_with_example())
    _run_isolated(*users, "python", "-c", _LIST)
    # The example below starts an MLflow server with the lowest versions; one is enough.
    without_servers = ("--import-mode=importlib", "--ignore-glob=*/test_mlflow_process*")
    parallel = ("--numprocesses=auto", "--dist=loadfile")
    _run_isolated(*users, *_PYTEST, *without_servers, *parallel, TESTING)
    _run_isolated(*users, *_PYTEST, cwd=EXAMPLE)


def check_mlflow(version: str, arguments: Sequence[str]) -> None:
    """Run tests with one version of MLflow, and the newest compatible versions of all else.

    Args:
        version: MLflow's, or ``newest``.
        arguments: for pytest; by default the tests of the packages and the integration tests.
    """
    build()
    # an older MLflow imports names that SQLAlchemy 2.1 removed, although its metadata allows 2.1
    mlflow = ["mlflow"] if version == "newest" else [f"mlflow=={version}", "sqlalchemy<2.1"]
    ours = [f"{package.name}{extras}" for package, extras in _EXTRAS.items()]
    tested = _with(*mlflow, *ours, *_group(ROOT, "dev"))
    with _built_wheels(locked=False) as wheels:
        _run_isolated(*wheels, *tested, "python", "-c", _LIST)
        default = ("packages", "integration-tests")
        _run_isolated(*wheels, *tested, *_PYTEST, *(arguments or default))


@contextmanager
def _built_wheels(*, locked: bool) -> Iterator[tuple[str, str]]:
    """Yield the options of ``uv run`` that select the built wheels, for the duration of a block.

    Args:
        locked: whether everything else must have the version of ``uv.lock``.
    """
    with tempfile.TemporaryDirectory() as directory:
        constraints, requirements = Path(directory, "constraints"), Path(directory, "requirements")
        if locked:
            which = ("--locked", "--all-packages", "--all-extras", "--all-groups")
            form = ("--no-hashes", "--no-emit-workspace", "--no-header", "--output-file")
            _run("uv", "export", "--quiet", *which, *form, constraints)
        # By URL: for a wheel by name, uv reuses the environment of an older wheel of the same
        # version, in spite of --refresh and --reinstall (uv 0.13.9).
        with constraints.open("a", encoding="utf-8") as file:
            file.writelines(f"{each.name} @ {_wheel(each).as_uri()}\n" for each in PACKAGES)
        requirements.write_text(f"--constraint {constraints}\n", encoding="utf-8")
        yield "--with-requirements", str(requirements)


def _module(package: Path) -> str:
    return package.name.replace("-", "_")


def _wheel(package: Path) -> Path:
    (wheel,) = DIST.glob(f"{_module(package)}-*.whl")
    return wheel


def _run_isolated(*arguments: str | Path, cwd: Path = ROOT) -> None:
    """Run a command in a separate environment, by default with this Python."""
    python = [] if "--python" in arguments else ["--python", sys.executable]
    _run("uv", "run", "--quiet", "--isolated", "--no-project", *python, *arguments, cwd=cwd)


def _run(*command: str | Path, cwd: Path = ROOT) -> None:
    words = [str(word) for word in command]
    sys.stderr.write(f"$ {shlex.join(words)}\n")
    status = subprocess.run(words, cwd=cwd, check=False).returncode  # noqa: S603 -- our own
    if status != 0:
        raise CheckError(f"exit status {status}: {shlex.join(words)}")


def _with(*requirements: str | Path) -> list[str]:
    """Return the options of ``uv run`` that install requirements."""
    return [word for each in requirements for word in ("--with", str(each))]


def _editable(*requirements: str | Path) -> list[str]:
    return [word for each in requirements for word in ("--with-editable", str(each))]


def _with_example() -> list[str]:
    return [*_editable(EXAMPLE), *_with(*_group(EXAMPLE, "test"))]


def _group(folder: Path, name: str) -> tuple[str, ...]:
    """Return the requirements of a dependency group."""
    return dependency_groups(load_toml(folder / "pyproject.toml"), name)


def _find_python(version: str) -> str | None:
    """Return the path of an installed Python, or None if this version is missing."""
    # uv does not find pyenv's behind their shims; slc/bare_machine.py does the same to copy one
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin")
    search = os.pathsep.join([os.environ["PATH"], *map(str, pyenv)])
    done = subprocess.run(  # noqa: S603 -- our own command
        ["uv", "python", "find", "--no-project", "--no-python-downloads", version],  # noqa: S607
        env={**os.environ, "UV_PYTHON_SEARCH_PATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def main() -> int:
    """Run the check named on the command line; return 1 if it fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    wheels = commands.add_parser("wheels", help="build, install alone, test the wheels")
    wheels.add_argument("python", nargs="*", help=f"versions, default {' '.join(PYTHONS)}")
    lowest = commands.add_parser("lowest", help="test the lowest versions that are allowed")
    lowest.add_argument(
        "--if-present", action="store_true", help="succeed if this Python is missing"
    )
    mlflow = commands.add_parser("mlflow", help="test with one version of MLflow")
    mlflow.add_argument("version", nargs="?", default="newest", help="default: newest")
    mlflow.add_argument("pytest", nargs=argparse.REMAINDER, help="arguments for pytest")
    options = parser.parse_args()
    try:
        if options.command == "wheels":
            check_wheels(options.python or PYTHONS)
        elif options.command == "lowest":
            check_lowest(if_present=options.if_present)
        else:
            check_mlflow(options.version, options.pytest)
    except CheckError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
