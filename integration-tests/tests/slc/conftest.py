"""What the tests of the script-language container share."""

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
        pytest.skip(f"{folder} holds a container, but not the files that an export leaves there")
    return folder


@pytest.fixture(scope="session")
def build_info(exported: Path) -> dict[str, Any]:
    """How the container was built."""
    info: dict[str, Any] = json.loads((exported / "build-info.json").read_text(encoding="utf-8"))
    return info


@pytest.fixture(scope="session")
def installed(exported: Path) -> dict[str, str]:
    """Version of each Python package in the container, by name."""
    packages = json.loads((exported / "packages.json").read_text(encoding="utf-8"))
    return {package["name"]: package["version"] for package in packages}
