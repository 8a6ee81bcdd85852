"""The variables that a page begins with, and the programs that it finds; run by itself, ``pip``.

This module is also the program that stands for ``pip``: it installs nothing, and fails unless each
requirement is a distribution of this environment, in a version and with extras as required, or a
program (``uv``). Nothing is uninstalled either. ``nox -s package:check`` installs the packages for
real.
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
"""Variable with the directory of the wheels that pages install for real."""

_SETTINGS_OF_OTHERS = ("EXA_", "MLFLOW_", "_MLFLOW_", "BUCKETFS_", "PYTEST_", "PYTHON", "VIRTUAL_")
# what costs seconds or memory and no page shows
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PYTHONUNBUFFERED": "1",
}


def page_environment(directory: Path) -> dict[str, str]:
    """Return the variables of a user who has set none for these packages.

    Args:
        directory: where to put the programs that only this page finds.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_SETTINGS_OF_OTHERS)}
    wheels = inherited.pop(WHEELS, None)
    programs = _this_environment(directory) if wheels is None else _new_environment(directory)
    path = [*programs, inherited.get("PATH", os.defpath)]
    found = {}
    if wheels is not None:
        # compiling everything that pip installs takes longer than the pages do
        found = {"PIP_FIND_LINKS": str(Path(wheels).resolve()), "PIP_NO_COMPILE": "1"}
    return inherited | _QUIET | found | {"PATH": os.pathsep.join(path)}


def _this_environment(directory: Path) -> list[str]:
    """Offer the programs of this Python, with this module as ``pip``."""
    pip = directory / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, __file__])} "$@"\n')
    pip.chmod(0o755)
    return [str(pip.parent), str(Path(sys.executable).parent)]


def _new_environment(directory: Path) -> list[str]:
    """Create an environment that has only pip."""
    venv.create(directory / "venv", with_pip=True)
    return [str(directory / "venv" / "bin")]


def _require_installed(text: str) -> None:
    """Raise ``argparse.ArgumentTypeError`` unless a requirement is met."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no requirement: {error}") from None
    name = requirement.name
    try:
        found = distribution(name)
    except PackageNotFoundError:
        if shutil.which(name):
            return
        raise argparse.ArgumentTypeError(f"{name} is not here") from None
    if found.version not in requirement.specifier:
        message = f"{name} is here in version {found.version}, not {requirement.specifier}"
        raise argparse.ArgumentTypeError(message)
    provided = {canonicalize_name(each) for each in found.metadata.get_all("Provides-Extra") or ()}
    if unknown := {canonicalize_name(extra) for extra in requirement.extras} - provided:
        raise argparse.ArgumentTypeError(f"{name} has no extra {', '.join(sorted(unknown))}")


def _pip() -> None:
    """Check a command line of pip; options that no executed page uses are refused."""
    parser = argparse.ArgumentParser(prog="pip")
    commands = parser.add_subparsers(required=True)
    install = commands.add_parser("install")
    install.add_argument("requirement", nargs="+", type=_require_installed)
    commands.add_parser("uninstall").add_argument("name", nargs="+")
    parser.parse_args()


if __name__ == "__main__":
    _pip()
