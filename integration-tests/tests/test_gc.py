"""``mlflow gc`` deletes artifacts in BucketFS."""

from __future__ import annotations

import sys

import mlflow
import pytest
from sklearn.linear_model import LinearRegression


@pytest.fixture
def keys_of(artifact_root, folder_at):
    """Return a function that returns the keys of a run or model in BucketFS."""
    return lambda identifier: [key for key in folder_at(artifact_root).keys() if identifier in key]


@pytest.fixture
def gc(client_env, database_uri, run_command):
    """Return a function that runs ``mlflow gc`` on the server's database."""

    def run(*arguments: str) -> None:
        command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", database_uri]
        run_command([*command, *arguments], client_env)

    return run


def test_gc_deletes_the_files_of_deleted_runs(client, run_id, gc, keys_of):
    """The files of a deleted run are deleted; another run keeps its files."""
    other = client.create_run("0").info.run_id
    for each in (run_id, other):
        client.log_text(each, "text", "folder/file.txt")
    client.delete_run(run_id)
    gc("--run-ids", run_id)
    assert keys_of(run_id) == []
    assert len(keys_of(other)) == 1


def test_gc_deletes_the_files_of_deleted_models(client, gc, keys_of):
    """The files of a deleted logged model are deleted."""
    model = LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
    assert keys_of(info.model_id)
    client.delete_logged_model(info.model_id)
    gc("--logged-model-ids", info.model_id)
    assert keys_of(info.model_id) == []


@pytest.mark.parametrize("deleted_first", [True, False])
def test_gc_of_an_experiment_deletes_deleted_models_only(
    client, unique, gc, folder_at, deleted_first
):
    """Models that were not deleted individually keep their files."""
    experiment = client.get_experiment(client.create_experiment(f"gc {unique}"))
    model = LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
    with mlflow.start_run(experiment_id=experiment.experiment_id):
        mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
    folder = folder_at(experiment.artifact_location)
    assert any(key.endswith("/MLmodel") for key in folder.keys())
    if deleted_first:
        for logged in client.search_logged_models([experiment.experiment_id]):
            client.delete_logged_model(logged.model_id)
    client.delete_experiment(experiment.experiment_id)
    gc("--experiment-ids", experiment.experiment_id)
    left = any(key.endswith("/MLmodel") for key in folder.keys())
    assert left is not deleted_first
