"""Running other programs: shown, and ended with us when they fail."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from release_check.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class CheckError(Exception):
    """A check did not pass; the message is for whoever wants to release."""


def run(
    *command: str | Path, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> None:
    """Run a command that writes to our output.

    Args:
        command: the program and its arguments.
        cwd: where it runs.
        environment: all its variables; by default those of this process.

    Raises:
        CheckError: its exit status was not 0.
    """
    words = [str(word) for word in command]
    sys.stderr.write(f"$ {shlex.join(words)}\n")
    status = _run(words, cwd=cwd, env=environment).returncode
    if status != 0:
        raise CheckError(f"exit status {status}: {shlex.join(words)}")


def output_of(*command: str) -> str:
    """Return what a command writes to its standard output; empty if it fails."""
    done = _run(command, capture_output=True, text=True)
    return str(done.stdout).strip() if done.returncode == 0 else ""


def failure_of(*command: str, given: str) -> str:
    """Return what a command, with something to read, writes about its failure; empty if none."""
    done = _run(command, input=given, capture_output=True, text=True)
    return "" if done.returncode == 0 else str(done.stderr).strip()


def _run(words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    return subprocess.run(words, check=False, **options)  # noqa: S603 -- commands of ours
