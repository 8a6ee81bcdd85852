"""Tests of ``mlflow-bucketfs check``: the installed packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path

import pytest

RUN = """
import site, sys
site.addsitedir(sys.argv.pop(1))
from mlflow_bucketfs_plugin.cli import main
try:
    main()
finally:
    assert "mlflow" not in sys.modules
"""


@pytest.fixture
def check_without(server, tmp_path, secret):
    """Check with the packages of this environment, but as if some were not installed."""

    def check(*missing):
        packages = Path(str(distribution("mlflow-skinny").locate_file("")))
        for entry in packages.iterdir():
            name = entry.name.partition("-")[0]
            if not (entry.name.endswith(".dist-info") and name in missing):
                (tmp_path / entry.name).symlink_to(entry)
        done = subprocess.run(
            # -S: only the packages in the directory, without those of this environment
            [sys.executable, "-S", "-c", RUN, str(tmp_path), "check", server.uri(), "--json"],
            env={**os.environ, "EXA_BUCKETFS_PASSWORD": secret, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (step,) = (s for s in json.loads(done.stdout)["steps"] if s["name"] == "plugin")
        return step

    return check


def test_mlflow(check_without):
    """With the full MLflow, its version is reported and nothing is missing."""
    step = check_without()
    assert step["result"] == "ok"
    assert step["summary"].endswith(f"for mlflow {version('mlflow')}")
    assert step["details"]["mlflow_distribution"] == "mlflow"
    assert step["details"]["mlflow_version"] == version("mlflow")
    assert step["remedy"] is None


def test_only_mlflow_skinny(check_without):
    """With mlflow-skinny alone, no step fails, and the remedy names the full MLflow."""
    step = check_without("mlflow")
    assert step["result"] == "ok"
    assert f"for mlflow-skinny {version('mlflow-skinny')}" in step["summary"]
    assert step["details"]["mlflow_distribution"] == "mlflow-skinny"
    assert step["details"]["mlflow_version"] == version("mlflow-skinny")
    assert "pip install mlflow" in step["remedy"]


def test_no_mlflow(check_without):
    """Without MLflow, the step is a warning."""
    step = check_without("mlflow", "mlflow_skinny")
    assert step["result"] == "warning"
    assert "not installed" in step["summary"]
    assert step["details"]["mlflow_distribution"] is None
    assert step["remedy"] == "pip install mlflow"
