"""Tests of MLflow's client, except models, and of ``mlflow gc``."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")


@pytest.fixture
def run_id(server, new_experiment):
    """A run whose artifacts go to the test's bucket."""
    experiment_id = new_experiment(server.uri(path="mlflow"))
    return MlflowClient().create_run(experiment_id).info.run_id


@pytest.mark.parametrize("lagging_mount", [False, True], ids=["no mount", "lagging mount"])
def test_tables_keep_all_rows(server, run_id, environment, lagging_mount):
    """Each call appends to the stored table, even if the mount is out of date."""
    if lagging_mount:
        environment.setenv("EXA_BUCKETFS_MOUNT_ROOT", str(server.mount_root))
        server.mount_paused = True
    client = MlflowClient()
    for number in range(3):
        client.log_table(run_id, {"number": [number]}, "tables/t.json")
    experiment_id = client.get_run(run_id).info.experiment_id
    table = client.load_table(experiment_id, "tables/t.json", run_ids=[run_id])
    assert list(table["number"]) == [0, 1, 2]


@pytest.mark.parametrize("synchronous", [True, False], ids=["sync", "async"])
def test_images(server, run_id, local, synchronous):
    """Images, in whose names MLflow puts + or %, are uploaded and downloaded unchanged."""
    image = pytest.importorskip("PIL.Image", exc_type=ImportError).new("RGB", (4, 4), "red")
    client = MlflowClient()
    with mlflow.start_run(run_id=run_id):
        for step in range(5):
            mlflow.log_image(image, key="k", step=step, synchronous=synchronous)
        mlflow.flush_artifact_async_logging()
    stored = {key.rpartition("/")[2]: server.read(key) for key in server.keys()}
    assert len(stored) == 10
    down = client.download_artifacts(run_id, "images", str(local.directory()))
    assert local.read(Path(down)) == stored
    listed = {info.path for info in client.list_artifacts(run_id, "images")}
    assert listed == {f"images/{name}" for name in stored}


@pytest.mark.parametrize("name", ["p%41.txt", "a%20b", "a+b", "%2e%2e"])
def test_escapes_in_names(run_id, local, name):
    """A name that looks percent-encoded is taken literally in every kind of URI."""
    client = MlflowClient()
    client.log_artifact(run_id, local.write({name: b"right"}) / name, "f%61")
    client.log_artifact(run_id, local.write({"pA.txt": b"wrong", "a b": b"wrong"}) / "a b", "fa")
    root = client.get_run(run_id).info.artifact_uri
    for uri in (f"{root}/f%61/{name}", f"runs:/{run_id}/f%61/{name}"):
        assert Path(mlflow.artifacts.download_artifacts(uri)).read_bytes() == b"right"
    for uri in (f"{root}/f%61", f"runs:/{run_id}/f%61"):
        (info,) = mlflow.artifacts.list_artifacts(uri)
        assert info.path == f"f%61/{name}"


def test_missing_artifact(run_id):
    """MLflow's functions raise RESOURCE_DOES_NOT_EXIST for a missing artifact."""
    root = MlflowClient().get_run(run_id).info.artifact_uri
    for uri in (f"{root}/missing", f"runs:/{run_id}/missing"):
        with pytest.raises(MlflowException) as caught:
            mlflow.artifacts.download_artifacts(uri)
        assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_bucket_itself(server, run_id):
    """A bucket's URI, which MLflow splits before the bucket, can be listed and downloaded."""
    client = MlflowClient()
    client.log_text(run_id, "text", "t.txt")
    (info,) = mlflow.artifacts.list_artifacts(server.uri())
    assert (info.path, info.is_dir) == (f"{server.buckets[0].name}/mlflow", True)
    root = Path(mlflow.artifacts.download_artifacts(server.uri()))
    assert [p.read_text() for p in root.rglob("t.txt")] == ["text"]


def test_trace_data(server):
    """A trace's spans are uploaded and downloaded; a missing trace is MLflow's own error."""
    repo = BucketFSArtifactRepository(server.uri(path="traces/tr-1/artifacts"))
    with pytest.raises(MlflowException, match="not found"):
        repo.download_trace_data()
    repo.upload_trace_data('{"spans": []}')
    assert repo.download_trace_data() == {"spans": []}
    assert server.keys() == ["traces/tr-1/artifacts/traces.json"]


@pytest.mark.skipif(
    not hasattr(ArtifactRepository, "upload_attachment"), reason="MLflow has these since 3.11"
)
def test_trace_with_attachment(server, new_experiment):
    """An attachment of a span is stored beside the trace, and downloaded."""
    from mlflow.tracing.attachments import Attachment  # noqa: PLC0415 -- see skipif

    experiment_id = new_experiment(server.uri(path="mlflow"))
    attachment = Attachment(content_type="text/plain", content_bytes=b"content")
    span = mlflow.start_span_no_context("s", experiment_id=experiment_id)
    span.set_inputs({"file": attachment})
    span.end()
    mlflow.flush_trace_async_logging()
    location = mlflow.get_trace(span.trace_id).info.tags["mlflow.artifactLocation"]
    repo = BucketFSArtifactRepository(location)
    assert repo.download_trace_attachment(attachment.id) == b"content"
    assert any(key.endswith(f"/attachments/{attachment.id}") for key in server.keys())


@pytest.mark.skipif(
    not hasattr(ArtifactRepository, "upload_archived_trace_data"),
    reason="MLflow archives traces since 3.13",
)
def test_archived_trace(server, new_experiment):
    """An archived trace's spans are uploaded, downloaded and deleted."""
    experiment_id = new_experiment(server.uri(path="mlflow"))
    span = mlflow.start_span_no_context("s", experiment_id=experiment_id)
    span.end()
    mlflow.flush_trace_async_logging()
    repo = BucketFSArtifactRepository(server.uri(path="archive/tr-1"))
    repo.upload_archived_trace_data(mlflow.get_trace(span.trace_id).data)
    assert [s.name for s in repo.download_archived_trace_data().spans] == ["s"]
    repo.delete_artifacts("traces.pb")
    assert not any(key.startswith("archive/") for key in server.keys())


def collect_garbage(tracking_uri, *arguments):
    """Run ``mlflow gc`` in this process, because a start of MLflow takes seconds."""
    from mlflow.cli import cli  # noqa: PLC0415 -- seconds as well, for these tests alone

    return CliRunner().invoke(cli, ["gc", "--backend-store-uri", tracking_uri, *arguments])


def test_gc_deletes_the_files_of_runs(server, run_id, tracking_uri):
    """Garbage collection removes a deleted run's files and no other's."""
    client = MlflowClient()
    kept = client.create_run(client.get_run(run_id).info.experiment_id).info.run_id
    for run in (run_id, kept):
        for number in range(5):
            client.log_text(run, "x", f"d/{number}.txt")
    client.delete_run(run_id)
    collected = collect_garbage(tracking_uri, "--run-ids", run_id)
    assert collected.exit_code == 0, collected
    assert len(server.keys()) == 5
    assert all(kept in key for key in server.keys())


def test_gc_deletes_the_files_of_logged_models(server, run_id, tracking_uri, local):
    """Garbage collection removes a deleted model's files and no other's."""
    client = MlflowClient()
    experiment_id = client.get_run(run_id).info.experiment_id
    models = [client.create_logged_model(experiment_id).model_id for _ in range(2)]
    for model in models:
        client.log_model_artifacts(model, str(local.write({"MLmodel": b"", "d/weights": b"x"})))
    client.delete_logged_model(models[0])
    collected = collect_garbage(tracking_uri, "--logged-model-ids", models[0])
    if "No such option" in collected.output:
        pytest.skip("this MLflow cannot collect logged models")
    assert collected.exit_code == 0, collected
    assert len(server.keys()) == 2
    assert all(models[1] in key for key in server.keys())


def test_gc_does_not_follow_a_foreign_location(
    make_server, new_experiment, environment, tracking_uri
):
    """With a list of hosts, gc fails for an experiment at another host before it connects."""
    own, foreign = make_server(), make_server()
    new_experiment(own.uri(path="mlflow"))
    client = MlflowClient()
    run = client.create_run(new_experiment(foreign.uri(path="mlflow"))).info.run_id
    client.delete_run(run)
    environment.setenv("EXA_BUCKETFS_ALLOWED_HOSTS", f"exa+bfs://127.0.0.1:{own.port}")
    collected = collect_garbage(tracking_uri, "--run-ids", run)
    assert f"127.0.0.1:{foreign.port}" in str(collected.exception)
    assert "EXA_BUCKETFS_ALLOWED_HOSTS" in str(collected.exception)
    assert foreign.requests.connections == 0
