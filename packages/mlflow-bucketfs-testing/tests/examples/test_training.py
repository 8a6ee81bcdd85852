"""Test a training script in its own process, against a real MLflow server."""

from __future__ import annotations

import os
import subprocess
import sys

TRAINING = """
import mlflow

with mlflow.start_run():
    mlflow.log_metric("accuracy", 0.9)
    mlflow.log_text("all well", "report.txt")
    print(mlflow.get_artifact_uri())
"""


def test_training_stores_its_report_in_bucketfs(mlflow_client_env, bucketfs_uri):
    """A script with server and credentials in its environment stores in BucketFS."""
    training = subprocess.run(
        [sys.executable, "-c", TRAINING],
        env={**os.environ, **mlflow_client_env},
        capture_output=True,
        check=True,
        text=True,
    )

    assert f"{bucketfs_uri}/mlflow/0/" in training.stdout
