"""``mlflow gc`` and BucketFS."""

from __future__ import annotations

import sys

import mlflow
import pytest
from sklearn.linear_model import LinearRegression


def _keys_of(bucketfs_server, identifier):
    return [key for key in bucketfs_server.keys() if identifier in key]


@pytest.fixture
def gc(mlflow_client_env, mlflow_server, run_command):
    """Run ``mlflow gc`` on the server's database, as its operator does."""

    def run(*arguments: str) -> None:
        command = [sys.executable, "-m", "mlflow", "gc"]
        store = ["--backend-store-uri", mlflow_server.backend_store_uri]
        run_command([*command, *store, *arguments], mlflow_client_env)

    return run


def test_gc_deletes_the_files_of_deleted_runs(client, run_id, gc, bucketfs_server):
    """What belongs to a deleted run is gone; a run beside it keeps its files."""
    other = client.create_run("0").info.run_id
    for each in (run_id, other):
        client.log_text(each, "text", "folder/file.txt")
    client.delete_run(run_id)
    gc("--run-ids", run_id)
    assert _keys_of(bucketfs_server, run_id) == []
    assert len(_keys_of(bucketfs_server, other)) == 1


def test_gc_deletes_the_files_of_deleted_models(client, gc, bucketfs_server):
    """What belongs to a deleted logged model is gone."""
    model = LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
    assert _keys_of(bucketfs_server, info.model_id)
    client.delete_logged_model(info.model_id)
    gc("--logged-model-ids", info.model_id)
    assert _keys_of(bucketfs_server, info.model_id) == []
