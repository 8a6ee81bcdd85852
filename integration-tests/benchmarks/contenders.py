"""The measured clients: our plugin and its counterpart, each in its own environment."""

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
        name: its name in the table.
        python: the environment's interpreter.
        packages: packages whose versions affect the result.
    """

    name: str
    python: str
    packages: tuple[str, ...]

    def measure(self, env: dict[str, str], operation: str, *arguments: object) -> Sample:
        """Measure one operation in a fresh process; see ``client.py``.

        Args:
            env: the process's environment.
            operation: the operation to measure.
            arguments: arguments of the operation.

        Raises:
            RuntimeError: it failed.
        """
        # -I: ignores PYTHON* variables and the working directory
        command = [self.python, "-I", str(_CLIENT), operation, *map(str, arguments)]
        completed = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if completed.returncode != 0:
            failed = " ".join([operation, *map(str, arguments)])
            raise RuntimeError(f"{self.name} failed to {failed}:\n{completed.stderr}")
        return Sample(**json.loads(completed.stdout.splitlines()[-1]))

    def versions(self) -> str:
        """Return name and version of each package."""
        found = [f"{package} {_version(self.python, package)}" for package in self.packages]
        return ", ".join(found)


def ours() -> Contender:
    """Return the plugin of this workspace."""
    packages = ("mlflow-bucketfs-core", "mlflow-bucketfs-plugin", "mlflow", "requests", "urllib3")
    return Contender("mlflow-bucketfs-plugin", sys.executable, packages)


def peer(cache: Path) -> Contender:
    """Return the counterpart from PyPI, with its own requirements; install it once.

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
    """Return the plugin with the requirements of a UDF only, in the locked versions.

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
