"""Traces, their attachments and their archive in BucketFS."""

from __future__ import annotations

import json

import mlflow
import pytest
import requests
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracing import constant


@pytest.fixture
def trace(client, unique, monkeypatch):
    """A trace with an attachment, in a new experiment."""
    attachments = pytest.importorskip("mlflow.tracing.attachments", reason="MLflow 3.11 has it")
    picture = attachments.Attachment(content_type="image/png", content_bytes=b"\x89PNG")
    experiment = client.get_experiment(client.create_experiment(f"traces {unique}"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment.experiment_id)
    with mlflow.start_span(name="answer") as span:
        span.set_inputs({"picture": picture})
        span.set_outputs({"text": "42"})
    mlflow.flush_trace_async_logging()
    return experiment, client.get_trace(span.trace_id)


def test_a_trace_and_its_attachment_can_be_read(trace, folder_at, mlflow_tracking_uri):
    """A trace can be read; its attachment is stored in BucketFS and served by the server."""
    experiment, logged = trace
    span = logged.data.spans[0]
    assert span.outputs == {"text": "42"}
    trace_id = logged.info.trace_id
    stored = folder_at(experiment.artifact_location).keys()
    attachment = next(key for key in stored if trace_id in key and "/attachments/" in key)
    response = requests.get(
        f"{mlflow_tracking_uri}/ajax-api/3.0/mlflow/get-trace-artifact",
        params={"request_id": trace_id, "path": attachment.rpartition("/")[2]},
        timeout=60,
    )
    assert (response.status_code, response.content) == (requests.codes.ok, b"\x89PNG")


@pytest.fixture
def archival(bucketfs_uri, tmp_path):
    """MLflow's settings for an archive in BucketFS, accepted by MLflow."""
    module = "mlflow.tracing.trace_archival_config"
    trace_archival_config = pytest.importorskip(module, reason="MLflow 3.13 has it")
    config = tmp_path / "archival.yaml"
    settings = {"enabled": True, "location": f"{bucketfs_uri}/archive", "retention": "30d"}
    config.write_text(json.dumps({"trace_archival": settings}))
    return trace_archival_config.load_trace_archival_server_config(config)


def test_traces_are_archived_in_bucketfs(trace, client, database_uri, archival, folder_at):
    """MLflow accepts the location, moves the spans there, and reads them back from there."""
    experiment, logged = trace
    client.set_experiment_tag(
        experiment.experiment_id, constant.TraceExperimentTagKey.ARCHIVE_NOW, json.dumps({})
    )
    # as the server's job does once a minute
    store = SqlAlchemyStore(database_uri, archival.location)
    archived = store.archive_traces(
        resolved_trace_archival_location=archival.location, broader_retention=archival.retention
    )
    assert archived >= 1
    trace_id = logged.info.trace_id
    stored = folder_at(archival.location).keys()
    assert [key for key in stored if trace_id in key and key.endswith("traces.pb")]
    assert client.get_trace(trace_id).data.spans[0].outputs == {"text": "42"}
