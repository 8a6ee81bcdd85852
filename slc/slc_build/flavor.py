"""The flavor as exaslct gets it: the files in git, and the wheels."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from slc_build import wheels
from slc_build.locked import pinned_packages
from slc_build.paths import FLAVOR_PREPARED, FLAVOR_SOURCE, WHEELS

if TYPE_CHECKING:
    from pathlib import Path

    from slc_build.docker import Image


def prepare(base: Image) -> dict[str, str]:
    """Put the flavor together in ``.slc``.

    Args:
        base: the image it builds on. exaslct's hash of a flavor leaves the base out, so that a
            new one would change nothing: a file that names the image makes it count.

    Returns:
        The SHA-256 of each wheel in it, by its file's name.
    """
    locked, own = WHEELS / "locked", WHEELS / "own"
    wheels.download(pinned_packages(), locked)
    wheels.build_own(own)
    shutil.rmtree(FLAVOR_PREPARED, ignore_errors=True)
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(FLAVOR_SOURCE, FLAVOR_PREPARED, ignore=unwanted)
    steps = FLAVOR_PREPARED / "flavor_base"
    shutil.copytree(locked, steps / "dependencies", dirs_exist_ok=True)
    shutil.copytree(own, steps / "release" / "wheels")
    (steps / "dependencies" / "base-image").write_text(f"{base.id}\n", encoding="utf-8")
    _set_modes(FLAVOR_PREPARED)
    return {**wheels.hashes_of(locked / "wheels"), **wheels.hashes_of(own)}


def _set_modes(directory: Path) -> None:
    """Give all files the same modes: exaslct's hash covers them, and umasks differ."""
    directory.chmod(0o755)
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
