"""Servers and clients for the tests of the whole system."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow_bucketfs_testing import factories

# The server stores for its clients, who know nothing of BucketFS.
proxying_mlflow_server = factories.mlflow_server(
    artifacts_destination="{bucketfs_uri}/proxied", reuse=False
)


@pytest.fixture
def client(
    mlflow_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[MlflowClient]:
    """A client of `mlflow_server` in this process, configured by its environment alone."""
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    previous = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(mlflow_environment["MLFLOW_TRACKING_URI"])
    yield MlflowClient()
    mlflow.set_tracking_uri(previous)


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    """A new run of the default experiment."""
    run_id: str = client.create_run("0").info.run_id
    return run_id


@pytest.fixture(scope="session")
def plain_python() -> list[str]:
    """Command of a Python that has mlflow-skinny of the same version, and no plugin."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on the path: pip install uv")
    requirement = f"mlflow-skinny=={mlflow.__version__}"
    base = [uv, "run", "--isolated", "--no-project", "--quiet", "--python", sys.base_prefix]
    return [*base, "--with", requirement, "python"]


@pytest.fixture
def run_command(tmp_path: Path):
    """Run a command in an empty directory and return its standard output."""

    def run(command: list[str], env: dict[str, str]) -> str:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("EXA_", "MLFLOW_"))}
        completed = subprocess.run(
            command, env=clean | env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    return run
