"""What is in the files that are published, and what must not be."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from release_check.commands import CheckError
from release_check.paths import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_JUNK = {"__pycache__", ".hypothesis", ".pytest_cache", ".DS_Store"}


def check_contents(dist: Path) -> None:
    """Check wheel and sdist of every package.

    Args:
        dist: the directory that holds them, and no other version of them.

    Raises:
        CheckError: something is missing, or there is more than there should be.
    """
    for package in PACKAGES:
        module = package.replace("-", "_")
        wheel, sdist = _one(dist, f"{module}-*.whl"), _one(dist, f"{module}-*.tar.gz")
        with zipfile.ZipFile(wheel) as archive:
            files = [name for name in archive.namelist() if not name.endswith("/")]
        version = wheel.name.split("-")[1]
        metadata = f"{module}-{version}.dist-info"
        _require(wheel, files, f"{module}/py.typed", f"{metadata}/licenses/LICENSE")
        if foreign := {PurePosixPath(name).parts[0] for name in files} - {module, metadata}:
            raise CheckError(f"{wheel.name} holds what is not the package: {sorted(foreign)}")
        with tarfile.open(sdist) as archive:
            files = [member.name for member in archive if member.isfile()]
        root = sdist.name.removesuffix(".tar.gz")
        named = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "tests/conftest.py")
        _require(sdist, files, *(f"{root}/{name}" for name in named))


def _one(dist: Path, pattern: str) -> Path:
    found = list(dist.glob(pattern))
    if len(found) != 1:
        raise CheckError(f"{dist} has {len(found)} files {pattern}, not one.")
    return found[0]


def _require(archive: Path, files: Iterable[str], *needed: str) -> None:
    present = set(files)
    if missing := set(needed) - present:
        raise CheckError(f"{archive.name} lacks {sorted(missing)}.")
    if junk := [name for name in present if _JUNK & set(PurePosixPath(name).parts)]:
        raise CheckError(f"{archive.name} holds {sorted(junk)}.")
