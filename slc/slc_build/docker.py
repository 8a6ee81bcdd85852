"""The Docker engine to use, and the few things asked of it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slc_build.commands import missing, output_of
from slc_build.paths import engine_directory, is_private
from slc_build.progress import SlcBuildError

if TYPE_CHECKING:
    from pathlib import Path

NO_ENGINE = (
    "no Docker engine answers. Start yours, set DOCKER_HOST, or, as root, start a private one: "
    "uv run nox -s slc:engine -- start"
)


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image of the engine.

    Attributes:
        name: repository and tag.
        id: the engine's identification of it.
        digests: its digests in registries: none if it was made here.
    """

    name: str
    id: str
    digests: tuple[str, ...]

    @property
    def pulled(self) -> bool:
        """Whether it came from a registry."""
        return bool(self.digests)


def private_socket() -> Path:
    """Return the private engine's socket, whether it runs or not."""
    return engine_directory() / "docker.sock"


def choose_engine() -> None:
    """Point this process and its children to the private engine, if it runs and none is set."""
    if "DOCKER_HOST" in os.environ or not is_private(engine_directory()):
        return
    if private_socket().is_socket():
        os.environ["DOCKER_HOST"] = f"unix://{private_socket()}"


def engine_answers() -> bool:
    """Whether an engine answers at the address that is chosen."""
    if missing("docker"):
        return False
    try:
        # Without an engine, `docker info` succeeds unless asked for something of the engine's
        return bool(output_of("docker", "info", "--format", "{{.ServerVersion}}").strip())
    except SlcBuildError:
        return False


def engine_version() -> str:
    """Return the engine's version."""
    return output_of("docker", "info", "--format", "{{.ServerVersion}}").strip()


def image(name: str) -> Image | None:
    """Return the image of this name, or None if the engine does not have it."""
    template = "{{json .Id}} {{json .RepoDigests}}"
    try:
        answer = output_of("docker", "image", "inspect", "--format", template, name)
    except SlcBuildError:
        return None
    identification, _, digests = answer.strip().partition(" ")
    return Image(name=name, id=json.loads(identification), digests=tuple(json.loads(digests) or ()))
