"""Running other programs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

from slc_build.progress import SlcBuildError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TAIL = 2000


def output_of(*command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program to its end and return its standard output.

    Args:
        command: program and arguments.
        env: variables beside those of this process.
        cwd: directory to run in.

    Raises:
        SlcBuildError: it failed, or is not installed; with the end of what it said.
    """
    done = subprocess.run(  # noqa: S603 -- our own commands
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-_TAIL:]
        raise SlcBuildError(f"{shlex.join(command)}\nended with {done.returncode}:\n{said}")
    return done.stdout


def missing(*programs: str) -> list[str]:
    """Return those of the programs that are not installed."""
    return [program for program in programs if shutil.which(program) is None]
