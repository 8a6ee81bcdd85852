"""What an export needs, checked before the first minute is spent."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from pathlib import Path

from slc_build import docker
from slc_build.commands import missing, output_of
from slc_build.places import OUTPUT, base_image
from slc_build.progress import SlcBuildError

_ARCHITECTURES = ("x86_64", "AMD64")
# Unpacked twice (1 GB each), packed (0.3 GB) three times, wheels
_GIB = 1024**3
_NEEDED_HERE = 5 * _GIB
_NEEDED_BY_ENGINE = 4 * _GIB


def check(*, require_official_base: bool) -> docker.Image:
    """Check everything at once and return the base image.

    Args:
        require_official_base: whether a base image that was not pulled is refused.

    Raises:
        SlcBuildError: something is missing; the message lists all of it, each with its remedy.
    """
    docker.choose_engine()
    answers = docker.engine_answers()
    base = docker.image(base_image()) if answers else None
    problems = [*_tools(), *_space(OUTPUT.parent, _NEEDED_HERE)]
    if not answers:
        problems.append(docker.NO_ENGINE)
    elif base is None:
        problems.append(
            f"the engine has no base image: docker pull {base_image()}\n"
            "  or, where that cannot be reached, a stand-in: uv run nox -s slc:base"
        )
    elif require_official_base and not base.pulled:
        problems.append(
            f"{base.name} is a local stand-in, and --require-official-base was given: "
            f"docker rmi {base.name} && docker pull {base.name}"
        )
    if answers:
        problems += _space(_engine_root(), _NEEDED_BY_ENGINE)
    if problems or base is None:
        raise SlcBuildError("cannot export:\n" + "\n".join(f"- {p}" for p in problems))
    return base


def _tools() -> list[str]:
    problems = []
    if platform.machine() not in _ARCHITECTURES:
        problems.append(f"Exasol's containers are x86_64, this machine is {platform.machine()}")
    if missing("uv"):
        problems.append("uv is not on the path: pip install uv")
    for module, what in (("pip", "pip, for the wheels"), ("exasol.slc", "exaslct")):
        if not _importable(module):
            problems.append(f"{sys.executable} lacks {what}: use uv run nox -s slc:export")
    return problems


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that would hold it
        return False


def _space(directory: Path, needed: int) -> list[str]:
    if not directory.exists():  # an engine on another machine
        return []
    free = shutil.disk_usage(directory).free
    if free >= needed:
        return []
    return [f"{directory} has {free / _GIB:.1f} GiB free, {needed / _GIB:.0f} GiB are needed"]


def _engine_root() -> Path:
    return Path(output_of("docker", "info", "--format", "{{.DockerRootDir}}").strip())
