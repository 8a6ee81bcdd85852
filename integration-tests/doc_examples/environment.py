"""The variables that a page begins with, and the programs that it finds."""

from __future__ import annotations

import os
import shlex
import sys
import venv
from pathlib import Path

WHEELS = "DOC_EXAMPLES_WHEELS"
"""Variable with the directory of wheels that pages install for real."""

_PIP = Path(__file__).with_name("pip_stand_in.py")
_SETTINGS_OF_OTHERS = ("EXA_", "MLFLOW_", "_MLFLOW_", "BUCKETFS_", "PYTEST_", "PYTHON", "VIRTUAL_")
# what costs seconds or memory and is seen on no page
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PYTHONUNBUFFERED": "1",
}


def page_environment(directory: Path) -> dict[str, str]:
    """Return the variables of a user who has set nothing for these packages.

    Args:
        directory: where programs for the page alone are put.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_SETTINGS_OF_OTHERS)}
    wheels = inherited.pop(WHEELS, None)
    programs = _this_environment(directory) if wheels is None else _new_environment(directory)
    path = [*programs, inherited.get("PATH", os.defpath)]
    found = {}
    if wheels is not None:
        # compiling all that pip installs takes longer than the pages do
        found = {"PIP_FIND_LINKS": str(Path(wheels).resolve()), "PIP_NO_COMPILE": "1"}
    return inherited | _QUIET | found | {"PATH": os.pathsep.join(path)}


def _this_environment(directory: Path) -> list[str]:
    """Offer the programs of this Python, but a pip that installs nothing."""
    pip = directory / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(_PIP))} "$@"\n')
    pip.chmod(0o755)
    return [str(pip.parent), str(Path(sys.executable).parent)]


def _new_environment(directory: Path) -> list[str]:
    """Make an environment with nothing but pip."""
    venv.create(directory / "venv", with_pip=True)
    return [str(directory / "venv" / "bin")]
