"""Traces, their attachments and their archive in BucketFS."""

from __future__ import annotations

import json

import mlflow
import pytest
import requests
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracing.constant import TraceExperimentTagKey
from mlflow.tracing.trace_archival_config import load_trace_archival_server_config


@pytest.fixture
def trace(client):
    """A trace with an attachment in an experiment of its own."""
    from mlflow.tracing.attachments import Attachment  # noqa: PLC0415 -- since MLflow 3.11

    experiment = mlflow.set_experiment("traces")
    with mlflow.start_span(name="answer") as span:
        span.set_inputs({"picture": Attachment(content_type="image/png", content_bytes=b"\x89PNG")})
        span.set_outputs({"text": "42"})
    mlflow.flush_trace_async_logging()
    return experiment, client.get_trace(span.trace_id)


def test_a_trace_and_its_attachment_come_back(trace, bucketfs_server, mlflow_tracking_uri):
    """The attachment is an object in BucketFS, and the server hands it out again."""
    _, logged = trace
    span = logged.data.spans[0]
    assert span.outputs == {"text": "42"}
    trace_id = logged.info.trace_id
    attachment = next(
        key for key in bucketfs_server.keys() if trace_id in key and "/attachments/" in key
    )
    answer = requests.get(
        f"{mlflow_tracking_uri}/ajax-api/3.0/mlflow/get-trace-artifact",
        params={"request_id": trace_id, "path": attachment.rpartition("/")[2]},
        timeout=60,
    )
    assert (answer.status_code, answer.content) == (requests.codes.ok, b"\x89PNG")


def test_traces_are_archived_in_bucketfs(
    trace, client, mlflow_server, bucketfs_server, bucketfs_uri, tmp_path
):
    """MLflow accepts the location, moves the spans there, and reads them back from there."""
    experiment, logged = trace
    config = tmp_path / "archival.yaml"
    settings = {"enabled": True, "location": f"{bucketfs_uri}/archive", "retention": "30d"}
    config.write_text(json.dumps({"trace_archival": settings}))
    archival = load_trace_archival_server_config(config)
    client.set_experiment_tag(
        experiment.experiment_id, TraceExperimentTagKey.ARCHIVE_NOW, json.dumps({})
    )
    # what the server's job does once a minute
    store = SqlAlchemyStore(mlflow_server.backend_store_uri, bucketfs_uri)
    archived = store.archive_traces(
        resolved_trace_archival_location=archival.location, broader_retention=archival.retention
    )
    assert archived >= 1
    trace_id = logged.info.trace_id
    assert [
        key for key in bucketfs_server.keys() if trace_id in key and key.endswith("traces.pb")
    ]
    assert client.get_trace(trace_id).data.spans[0].outputs == {"text": "42"}
