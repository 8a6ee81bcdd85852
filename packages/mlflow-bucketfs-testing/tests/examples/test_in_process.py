"""Use MLflow in the test process; only the test that requests it has its environment."""

from __future__ import annotations

import os

import pytest


@pytest.mark.usefixtures("mlflow_environment")
def test_with_mlflow(mlflow_tracking_uri):
    """With the fixture, MLflow finds server and credentials."""
    assert os.environ["MLFLOW_TRACKING_URI"] == mlflow_tracking_uri
    assert os.environ["EXA_BUCKETFS_PASSWORD"] == "write"


def test_without_mlflow():
    """Without the fixture, the variables are not set."""
    assert "MLFLOW_TRACKING_URI" not in os.environ
