"""Whose client is measured: our plugin, or the one it is compared with, each where it lives."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import Sample

PEER_REQUIREMENT = "exasol-mlflow-plugin==1.2.0"

_ROOT = Path(__file__).resolve().parents[2]
_CLIENT = Path(__file__).with_name("client.py")
_VERSION_OF = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"


@dataclass(frozen=True)
class Contender:
    """A Python environment with one of the plugins.

    Attributes:
        name: what the table calls it.
        python: the environment's interpreter.
        packages: whose versions matter for the result.
    """

    name: str
    python: str
    packages: tuple[str, ...]

    def measure(self, env: dict[str, str], operation: str, *arguments: object) -> Sample:
        """Measure one operation in a fresh process; see ``client.py``.

        Args:
            env: the process's environment.
            operation: what to do.
            arguments: with what.

        Raises:
            RuntimeError: it failed.
        """
        # -I: neither PYTHON* variables nor the working directory have a say
        command = [self.python, "-I", str(_CLIENT), operation, *map(str, arguments)]
        completed = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if completed.returncode != 0:
            failed = " ".join([operation, *map(str, arguments)])
            raise RuntimeError(f"{self.name} failed to {failed}:\n{completed.stderr}")
        return Sample(**json.loads(completed.stdout.splitlines()[-1]))

    def versions(self) -> str:
        """Name and version of each of the packages."""
        found = [f"{package} {_version(self.python, package)}" for package in self.packages]
        return ", ".join(found)


def ours() -> Contender:
    """The plugin as it is in this workspace."""
    packages = ("mlflow-bucketfs-core", "mlflow-bucketfs-plugin", "mlflow", "requests", "urllib3")
    return Contender("mlflow-bucketfs-plugin", sys.executable, packages)


def peer(cache: Path) -> Contender:
    """The counterpart from PyPI, with what its own requirements choose; installed once.

    Args:
        cache: directory for its environment.

    Raises:
        RuntimeError: uv is missing.
        subprocess.CalledProcessError: uv cannot install it.
    """
    name, _, version = PEER_REQUIREMENT.partition("==")
    python = _python(cache / f"{name}-{version}-python-{platform.python_version()}")
    if _version(python, name) != version:
        _uv("pip", "install", "--python", python, PEER_REQUIREMENT)
    packages = (name, "mlflow", "exasol-bucketfs", "requests", "urllib3")
    return Contender(name, python, packages)


def udf(cache: Path) -> Contender:
    """The plugin with what a UDF needs and nothing else, as the lock file has it.

    Args:
        cache: directory for its environment.

    Raises:
        RuntimeError: uv is missing.
        subprocess.CalledProcessError: uv cannot install it.
    """
    python = _python(cache / f"udf-python-{platform.python_version()}")
    requirements = cache / "udf.txt"
    what = ("--package", "mlflow-bucketfs-plugin", "--extra", "udf", "--no-default-groups")
    _uv("export", "--locked", *what, "--no-hashes", "--output-file", str(requirements))
    _uv("pip", "sync", "--python", python, str(requirements))
    packages = ("mlflow-bucketfs-plugin", "mlflow-skinny", "numpy", "pandas", "scikit-learn")
    return Contender("mlflow-bucketfs-plugin[udf]", python, packages)


def _python(environment: Path) -> str:
    python = environment / "bin" / "python"
    if not python.exists():
        # uv's environments come with a .gitignore that covers them
        base = os.path.realpath(sys.executable)
        _uv("venv", "--clear", "--python", base, str(environment))
    return str(python)


def _uv(*arguments: str) -> None:
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise RuntimeError("uv is not on the path: pip install uv")
    command = [uv, *arguments, "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=_ROOT)


def _version(python: str, package: str) -> str:
    command = [python, "-I", "-c", _VERSION_OF, package]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "not installed"
