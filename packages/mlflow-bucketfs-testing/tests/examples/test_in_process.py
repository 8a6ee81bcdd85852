"""Use MLflow in the test itself, with its environment set for the one test that asks."""

from __future__ import annotations

import os

import pytest


@pytest.mark.usefixtures("mlflow_environment")
def test_with_mlflow(mlflow_tracking_uri):
    """Inside, MLflow finds server and credentials."""
    assert os.environ["MLFLOW_TRACKING_URI"] == mlflow_tracking_uri
    assert os.environ["EXA_BUCKETFS_PASSWORD"] == "write"


def test_without_mlflow():
    """Outside, nothing is set."""
    assert "MLFLOW_TRACKING_URI" not in os.environ
