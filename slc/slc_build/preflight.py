"""Checks of the requirements of an export, before anything is built."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from pathlib import Path
from typing import Literal

from slc_build.commands import (
    NO_ENGINE,
    Image,
    SlcBuildError,
    choose_engine,
    engine_info,
    image,
    missing,
)
from slc_build.paths import BASE_DIGESTS, OUTPUT, ROOT, base_image

_ARCHITECTURES = ("x86_64", "AMD64")
# Unpacked twice (1 GB each), packed (0.3 GB) three times, wheels
_GIB = 1024**3
_NEEDED_HERE = 5 * _GIB
_NEEDED_BY_ENGINE = 4 * _GIB


RequiredBase = Literal["any", "official", "committed"]
"""The required kind of base image: a stand-in or any other, pulled, or with a committed digest."""


def check(*, required_base: RequiredBase) -> Image:
    """Check all requirements, and return the base image.

    Args:
        required_base: the required kind of base image.

    Raises:
        SlcBuildError: requirements are missing; the message lists each with its remedy.
    """
    choose_engine()
    engine_root = engine_info("DockerRootDir")
    base = image(base_image()) if engine_root else None
    problems = [*_tools(), *_space(OUTPUT.parent, _NEEDED_HERE)]
    if not engine_root:
        problems.append(NO_ENGINE)
    elif base is None:
        problems.append(
            f"the engine has no base image: docker pull {base_image()}\n"
            "  or, if the registry cannot be reached, a stand-in: uv run nox -s slc:base"
        )
    elif problem := base_problem(base, required_base):
        problems.append(problem)
    if engine_root:
        problems += _space(Path(engine_root), _NEEDED_BY_ENGINE)
    if problems or base is None:
        raise SlcBuildError("cannot export:\n" + "\n".join(f"- {p}" for p in problems))
    return base


def base_problem(base: Image, required: RequiredBase) -> str | None:
    """Return the reason to refuse an export on this image, or None.

    Args:
        base: the image.
        required: the required kind of base image.
    """
    if required == "any":
        return None
    if not base.pulled:
        return (
            f"{base.name} is a local stand-in, and --require-{required}-base was given: "
            f"docker rmi {base.name} && docker pull {base.name}"
        )
    if required == "official":
        return None
    lines = BASE_DIGESTS.read_text(encoding="utf-8").splitlines()
    committed = [line for line in lines if line and not line.startswith("#")]
    pulled = [digest.partition("@")[2] for digest in base.digests]
    if set(pulled) & set(committed):
        return None
    return (
        f"{base.name} was pulled with the digest {', '.join(pulled)}, and "
        f"{BASE_DIGESTS.relative_to(ROOT)} has {', '.join(committed) or 'none yet'}: "
        "if this is the image to build on, commit its digest there"
    )


def _tools() -> list[str]:
    problems = []
    if platform.machine() not in _ARCHITECTURES:
        problems.append(f"Exasol's containers are x86_64, this machine is {platform.machine()}")
    if missing("uv"):
        problems.append("uv is not on the path: pip install uv")
    for module, what in (("pip", "pip, for the wheels"), ("exasol.slc", "exaslct")):
        if not _importable(module):
            problems.append(f"{sys.executable} has no {what}: use uv run nox -s slc:export")
    return problems


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package above it is missing
        return False


def _space(directory: Path, needed: int) -> list[str]:
    if not directory.exists():  # an engine on another machine
        return []
    free = shutil.disk_usage(directory).free
    if free >= needed:
        return []
    return [f"{directory} has {free / _GIB:.1f} GiB free, {needed / _GIB:.0f} GiB are needed"]
