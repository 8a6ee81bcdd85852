"""Fixtures shared by the tests of the script-language container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def exported(slc_archive: Path) -> Path:
    """The folder with the exported container and the files that describe it."""
    folder = slc_archive.parent
    if not (folder / "build-info.json").is_file():
        pytest.skip(f"{folder} has a container, but not the other files of an export")
    return folder


@pytest.fixture(scope="session")
def build_info(exported: Path) -> dict[str, Any]:
    """Return the build information of the container."""
    info: dict[str, Any] = json.loads((exported / "build-info.json").read_text(encoding="utf-8"))
    return info


@pytest.fixture(scope="session")
def installed(exported: Path) -> dict[str, str]:
    """Return the version of each Python package in the container, by name."""
    packages = json.loads((exported / "packages.json").read_text(encoding="utf-8"))
    return {package["name"]: package["version"] for package in packages}
