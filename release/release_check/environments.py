"""Environments that hold our wheels as users get them, without the workspace."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from release_check.commands import CheckError, output_of, run
from release_check.paths import BUILD_CONSTRAINTS, DIST, PACKAGES, ROOT, folder

if TYPE_CHECKING:
    from collections.abc import Iterator

# Without --refresh-package, uv takes a wheel that it met before under the same name, whatever is
# in the file now (seen with uv 0.13.9).
_REFRESH = tuple(argument for package in PACKAGES for argument in ("--refresh-package", package))
# With constraints, uv builds by the backend that they name, and not by the copy in itself.
_PINNED_BACKEND = ("--build-constraints", str(BUILD_CONSTRAINTS), "--require-hashes")
_FROM_DIST = ("--find-links", str(DIST), *_REFRESH)


def build_packages(dist: Path = DIST) -> None:
    """Build wheel and sdist of every package into a directory, and nothing else into it."""
    shutil.rmtree(dist, ignore_errors=True)
    for package in PACKAGES:
        # --no-sources: as it is built for PyPI, where there is no workspace
        how = ("--quiet", "--no-sources", *_PINNED_BACKEND)
        run("uv", "build", *how, "--package", package, "--out-dir", dist)


@contextmanager
def environment(interpreter: str, *install: str | Path) -> Iterator[Path]:
    """Make an environment for the duration of a ``with`` block.

    Args:
        interpreter: the Python to make it with.
        install: arguments for ``uv pip install``, which finds our wheels in ``dist``.

    Yields:
        The environment's Python.
    """
    with tempfile.TemporaryDirectory(prefix="mlflow-bucketfs-check-") as directory:
        run("uv", "venv", "--quiet", "--python", interpreter, directory)
        python = Path(directory, "bin", "python")
        run("uv", "pip", "install", "--quiet", "--python", python, *_FROM_DIST, *install)
        yield python


@contextmanager
def locked(*selection: str) -> Iterator[Path]:
    """Write the lock's versions into a file of requirements, for the duration of a block.

    Args:
        selection: arguments for ``uv export`` that say of what.

    Yields:
        The file.
    """
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        written = ["--no-hashes", "--no-emit-workspace", "--no-header", "--output-file", file.name]
        run("uv", "export", "--quiet", "--locked", *selection, *written)
        yield Path(file.name)


@contextmanager
def lowest(
    python: str, *packages: str, extras: tuple[str, ...], exclude: str = ""
) -> Iterator[Path]:
    """Write the lowest versions that packages allow into a file, for the duration of a block.

    What they do not require themselves has the newest version that fits.

    Args:
        python: the version of Python to find them for.
        packages: whose metadata counts.
        extras: of any of the packages.
        exclude: a dependency to leave out.

    Yields:
        The file, for ``uv pip install --overrides``.
    """
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        metadata = [folder(package) / "pyproject.toml" for package in packages]
        which = [argument for extra in extras for argument in ("--extra", extra)]
        which += ["--no-emit-package", exclude] if exclude else []
        how = ["--no-sources", "--resolution", "lowest-direct", "--python-version", python]
        written = ["--output-file", file.name]
        run("uv", "pip", "compile", "--quiet", *metadata, *which, *how, *_FROM_DIST, *written)
        yield Path(file.name)


def run_tests(python: Path, *arguments: str | Path, cwd: Path = ROOT) -> None:
    """Run pytest in an environment; without its variables, and those of the caller's."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    options = ["-q", "-p", "no:cacheprovider"]
    run(python, "-m", "pytest", *options, *arguments, cwd=cwd, environment=inherited)


def find_python(version: str) -> str:
    """Find a Python by uv's means, or pyenv's, which uv does not know.

    Args:
        version: such as ``3.10``.

    Returns:
        The interpreter's path.

    Raises:
        CheckError: there is none.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    by_uv = output_of("uv", "python", "find", "--no-project", version)
    candidates = [by_uv, *map(str, pyenv.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        probe = "import sys; print('%d.%d' % sys.version_info[:2])"
        if output_of(candidate, "-c", probe) == version:
            return candidate
    raise CheckError(f"Python {version} is not here")
