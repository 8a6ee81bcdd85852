"""What a package says about itself in its ``pyproject.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nox.project import load_toml
from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from release_check.commands import CheckError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Project:
    """The metadata that a release depends on.

    Attributes:
        name: of the distribution.
        version: what is released.
        urls: by label.
        requirements: of the package and of all its extras.
        extras: their names.
    """

    name: str
    version: Version
    urls: dict[str, str]
    requirements: tuple[Requirement, ...]
    extras: tuple[str, ...]


def read_project(folder: Path) -> Project:
    """Read a package's metadata.

    Args:
        folder: the directory of the package's sources.

    Returns:
        Its metadata.

    Raises:
        CheckError: there is no such package, or its version is none.
    """
    file = folder / "pyproject.toml"
    if not file.is_file():
        raise CheckError(f"There is no package in {folder}.")
    table: dict[str, Any] = load_toml(file)["project"]
    extras: dict[str, list[str]] = table.get("optional-dependencies", {})
    lines = [*table.get("dependencies", []), *(line for extra in extras.values() for line in extra)]
    try:
        version = Version(table["version"])
    except InvalidVersion as error:
        raise CheckError(f"{file}: {error}") from error
    return Project(
        name=table["name"],
        version=version,
        urls=table.get("urls", {}),
        requirements=tuple(Requirement(line) for line in lines),
        extras=tuple(extras),
    )
