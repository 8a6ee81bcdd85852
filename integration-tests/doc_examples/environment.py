"""The initial variables of a page, and the programs on its path; as a script, a ``pip``.

As a script, this module replaces ``pip``: it installs nothing, and fails unless each requirement
is a distribution of this environment, in a version and with extras as required, or a program
(``uv``). It does not uninstall either. ``nox -s package:check`` really installs the packages.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

WHEELS = "DOC_EXAMPLES_WHEELS"
"""Variable with the directory of the wheels that pages really install."""

_SETTINGS_OF_OTHERS = ("EXA_", "MLFLOW_", "_MLFLOW_", "BUCKETFS_", "PYTEST_", "PYTHON", "VIRTUAL_")
# turns off features that cost seconds or memory and are not on any page
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PYTHONUNBUFFERED": "1",
}


def page_environment(directory: Path) -> dict[str, str]:
    """Return the environment of a user without variables for these packages.

    Args:
        directory: directory for the programs of this page.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_SETTINGS_OF_OTHERS)}
    wheels = inherited.pop(WHEELS, None)
    programs = _this_environment(directory) if wheels is None else _new_environment(directory)
    path = [*programs, inherited.get("PATH", os.defpath)]
    found = {}
    if wheels is not None:
        # compiling the installed packages would take longer than the pages
        found = {"PIP_FIND_LINKS": str(Path(wheels).resolve()), "PIP_NO_COMPILE": "1"}
    return inherited | _QUIET | found | {"PATH": os.pathsep.join(path)}


def _this_environment(directory: Path) -> list[str]:
    """Return a path with the programs of this Python, and with this module as ``pip``."""
    pip = directory / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, __file__])} "$@"\n')
    pip.chmod(0o755)
    return [str(pip.parent), str(Path(sys.executable).parent)]


def _new_environment(directory: Path) -> list[str]:
    """Create an environment with only pip; return its path."""
    venv.create(directory / "venv", with_pip=True)
    return [str(directory / "venv" / "bin")]


def _require_installed(text: str) -> None:
    """Raise ``argparse.ArgumentTypeError`` unless a requirement is met."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a requirement: {error}") from None
    name = requirement.name
    try:
        found = distribution(name)
    except PackageNotFoundError:
        if shutil.which(name):
            return
        raise argparse.ArgumentTypeError(f"{name} is not installed") from None
    if found.version not in requirement.specifier:
        message = f"{name} is installed in version {found.version}, not {requirement.specifier}"
        raise argparse.ArgumentTypeError(message)
    provided = {canonicalize_name(each) for each in found.metadata.get_all("Provides-Extra") or ()}
    if unknown := {canonicalize_name(extra) for extra in requirement.extras} - provided:
        raise argparse.ArgumentTypeError(f"{name} has no extra {', '.join(sorted(unknown))}")


def _pip() -> None:
    """Check a command line of pip; refuse options that no executed page uses."""
    parser = argparse.ArgumentParser(prog="pip")
    commands = parser.add_subparsers(required=True)
    install = commands.add_parser("install")
    install.add_argument("requirement", nargs="+", type=_require_installed)
    commands.add_parser("uninstall").add_argument("name", nargs="+")
    parser.parse_args()


if __name__ == "__main__":
    _pip()
