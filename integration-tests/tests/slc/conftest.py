"""What the tests of the script-language container share."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

MOCK = "exasol_udf_mock_python"


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


@pytest.fixture(scope="session")
def udf_mock() -> dict[str, str]:
    """The mount that makes exasol-udf-mock-python importable in the container."""
    found = importlib.util.find_spec(MOCK)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{MOCK} is not installed: uv run --group slc pytest")
    return {f"/mock/{MOCK}": next(iter(found.submodule_search_locations))}
