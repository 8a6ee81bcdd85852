"""Fixtures of the script-language container: its file, its builder, its alias.

pytest-exasol-slc uses ``slc_builder`` and ``language_alias`` once per session, for the first test
that runs. So they are defined here, above all tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow_bucketfs_testing import SlcBuilder
from mlflow_bucketfs_testing.config import slc_archive_option
from slc_build import commands, paths, wheels

_EXPORT = "uv run nox -s slc:export"
_BASE_AND_EXPORT = f"uv run nox -s slc:base; {_EXPORT}"


@pytest.fixture(scope="session")
def slc_builder() -> SlcBuilder:
    """The builder of the container that pytest-exasol-slc deploys to a selected ``--backend``."""
    commands.choose_engine()
    prepare = [sys.executable, "-m", "slc_build.export", "--prepare-only"]
    return SlcBuilder(
        paths.FLAVOR_PREPARED,
        output_directory=paths.EXASLCT_OUTPUT,
        prepare=lambda: subprocess.run(prepare, cwd=paths.ROOT / "slc", check=True),
    )


@pytest.fixture(scope="session")
def language_alias() -> str:
    """The alias in UDFs; pytest-exasol-slc's default has hyphens, which SQL does not allow."""
    return "PYTHON3_MLFLOW"


@pytest.fixture(scope="session")
def slc_archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The container of ``--mlflow-bucketfs-slc-archive``, or else the last exported one."""
    commands.choose_engine()
    if given := slc_archive_option(request.config):
        return given
    if not commands.engine_info("ServerVersion"):
        pytest.skip(f"{commands.NO_ENGINE}; then: {_BASE_AND_EXPORT}")
    if not (paths.OUTPUT / "build-info.json").is_file():
        pytest.skip(f"no container was exported: {_BASE_AND_EXPORT}")
    info = json.loads((paths.OUTPUT / "build-info.json").read_text(encoding="utf-8"))
    now = tmp_path_factory.mktemp("wheels")
    wheels.build_own(now)
    if not wheels.hashes_of(now).items() <= info["wheels"].items():
        pytest.skip(f"the container was exported from other sources than these: {_EXPORT}")
    return paths.OUTPUT / str(info["file"])
