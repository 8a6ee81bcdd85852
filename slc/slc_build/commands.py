"""Running other programs, mostly Docker's client; errors and progress for the user."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slc_build.paths import engine_directory, is_private

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NO_ENGINE = (
    "no Docker engine answers. Start yours, set DOCKER_HOST, or, as root, start a private one: "
    "uv run nox -s slc:engine -- start"
)
_TAIL = 2000
_STARTED = time.monotonic()


class SlcBuildError(RuntimeError):
    """A step failed; the message has the cause and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image of the engine.

    Attributes:
        name: repository and tag.
        id: the engine's identification of it.
        digests: its digests in registries; empty if it was built locally.
    """

    name: str
    id: str
    digests: tuple[str, ...]

    @property
    def pulled(self) -> bool:
        """Whether it came from a registry."""
        return bool(self.digests)


def report(text: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"[{time.monotonic() - _STARTED:4.0f} s] {text}", flush=True)  # noqa: T201


def output_of(*command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program to its end and return its standard output.

    Args:
        command: program and arguments.
        env: variables in addition to those of this process.
        cwd: directory to run in.

    Raises:
        SlcBuildError: it failed; the message has the end of its output.
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
        tail = (done.stderr.strip() or done.stdout.strip())[-_TAIL:]
        raise SlcBuildError(f"{shlex.join(command)}\nended with {done.returncode}:\n{tail}")
    return done.stdout


def missing(*programs: str) -> list[str]:
    """Return those of the programs that are not installed."""
    return [program for program in programs if shutil.which(program) is None]


def private_engine() -> str:
    """Return the address of the private engine, for ``DOCKER_HOST``, whether it runs or not."""
    return f"unix://{engine_directory() / 'docker.sock'}"


def choose_engine() -> None:
    """Set ``DOCKER_HOST`` to the private engine, if it runs and the variable is not set."""
    directory = engine_directory()
    if "DOCKER_HOST" in os.environ or not is_private(directory):
        return
    if (directory / "docker.sock").is_socket():
        os.environ["DOCKER_HOST"] = private_engine()


def engine_info(field: str) -> str:
    """Return a field of ``docker info``, such as ``ServerVersion``.

    Args:
        field: its name in Docker's template language.

    Returns:
        The field; empty if no engine answers at the chosen address.
    """
    if missing("docker"):
        return ""
    try:
        # Without an engine, `docker info` succeeds unless the format has a field of the engine
        return output_of("docker", "info", "--format", f"{{{{.{field}}}}}").strip()
    except SlcBuildError:
        return ""


def image(name: str) -> Image | None:
    """Return the image of this name, or None if the engine does not have it."""
    template = "{{json .Id}} {{json .RepoDigests}}"
    try:
        answer = output_of("docker", "image", "inspect", "--format", template, name)
    except SlcBuildError:
        return None
    identification, _, digests = answer.strip().partition(" ")
    return Image(name=name, id=json.loads(identification), digests=tuple(json.loads(digests) or ()))
