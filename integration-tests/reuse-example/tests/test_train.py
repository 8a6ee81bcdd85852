"""The training script as users run it, against a real MLflow server that stores in BucketFS."""

from __future__ import annotations

import os
import subprocess
import sys

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow_bucketfs_core import BucketFSUri


@pytest.fixture(scope="module")
def model_uri(mlflow_client_env):
    """The model's URI, as the script prints it."""
    training = subprocess.run(
        [sys.executable, "-m", "churn_report.train"],
        env={**os.environ, **mlflow_client_env},
        capture_output=True,
        check=True,
        text=True,
    )
    return training.stdout.splitlines()[-1]


def test_the_run_is_recorded(mlflow_server, model_uri):
    """The metric is on the server, and the artifacts are in BucketFS."""
    assert model_uri.startswith("models:/")
    run = MlflowClient(mlflow_server.uri).search_runs(["0"])[0]
    assert run.data.metrics == {"accuracy": 1.0}
    assert BucketFSUri.parse(run.info.artifact_uri).bucket == "default"


@pytest.mark.usefixtures("mlflow_environment")
def test_the_model_can_be_loaded(model_uri):
    """The model loads with the plugin and the password."""
    model = mlflow.pyfunc.load_model(model_uri)
    assert model.predict([[2.0], [35.0]]).tolist() == [1, 0]
