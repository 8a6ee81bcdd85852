"""Whether a built wheel can be installed by those who have nothing but the package index."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from release_check.commands import CheckError, failure_of

if TYPE_CHECKING:
    from pathlib import Path

    from release_check.project import Project

# between two questions to the index
_PAUSE_S = float(os.environ.get("RELEASE_CHECK_PAUSE_S", "30"))


def await_requirements(project: Project, dist: Path, patience_s: float) -> None:
    """Wait until the index has all that a wheel and its extras require.

    That is how the packages are published in their order, even if all are tagged at once: the
    plugin's release waits here for core's, and that of testing for both.

    Args:
        project: the package.
        dist: where its wheel is.
        patience_s: how long to wait; 0 asks once.

    Raises:
        CheckError: there is no wheel of this version, or something is still missing.
    """
    stem = project.name.replace("-", "_")
    wheels = list(dist.glob(f"{stem}-{project.version}-*.whl"))
    if len(wheels) != 1:
        raise CheckError(f"{dist} has no wheel of {project.name} {project.version}.")
    extras = f"[{','.join(project.extras)}]" if project.extras else ""
    requirement = f"{project.name}{extras} @ {wheels[0].resolve().as_uri()}"
    deadline = time.monotonic() + patience_s
    while reason := _missing(requirement):
        if time.monotonic() >= deadline:
            raise CheckError(
                f"{project.name} {project.version} cannot be installed from the index. Packages "
                "are released in the order core, plugin, testing: if one of ours is missing, "
                f"release it first, then run this again.\n{reason}"
            )
        sys.stderr.write(f"Not all of it is there yet:\n{reason}\n")
        time.sleep(min(_PAUSE_S, max(0.0, deadline - time.monotonic())))


def _missing(requirement: str) -> str:
    """Return why the requirement cannot be resolved; empty if it can."""
    # --refresh: what was missing a minute ago may be there now
    resolve = ["uv", "pip", "compile", "--quiet", "--no-sources", "--refresh", "-"]
    return failure_of(*resolve, given=requirement)
