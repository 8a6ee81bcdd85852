"""Responses that are not retried, redirects, and responses without a length."""

from __future__ import annotations

import logging
import select
import socket

import pytest
from mlflow_bucketfs_core import Bucket
from mlflow_bucketfs_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    UnexpectedResponseError,
)
from mlflow_bucketfs_testing.server import Fault


# Each status once for reading and once for writing, each operation twice.
@pytest.mark.parametrize(
    ("operation", "status", "error"),
    [
        ("list_keys", 400, UnexpectedResponseError),
        ("upload_file", 400, UnexpectedResponseError),
        ("download", 401, AuthenticationError),
        ("delete", 401, AuthenticationError),
        ("exists", 403, AccessDeniedError),
        ("upload_stream", 403, AccessDeniedError),
        ("list_keys", 405, UnexpectedResponseError),
        ("delete", 405, UnexpectedResponseError),
        ("exists", 413, UnexpectedResponseError),
        ("upload_file", 413, UnexpectedResponseError),
        ("download", 206, UnexpectedResponseError),
        ("upload_stream", 206, UnexpectedResponseError),
    ],
    indirect=["operation"],
)
def test_permanent_errors_are_not_retried(  # noqa: PLR0917
    server, prepared, tmp_path, operation, status, error
):
    """A permanent error is raised after one request; 200 is the only status of success."""
    server.inject(Fault.status(status, times=None))
    with pytest.raises(error, match=rf"\b{status}\b"):
        operation(prepared, tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ("download", 301),
        ("exists", 302),
        ("list_keys", 307),
        ("upload_stream", 303),
        # the two that would repeat method and body
        ("upload_file", 307),
        ("delete", 308),
    ],
    indirect=["operation"],
)
def test_redirects_are_never_followed(server, prepared, tmp_path, operation, status):
    """A redirect raises an error with the reason, and its target is not connected to."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        location = f"http://127.0.0.1:{other.getsockname()[1]}/default/d/there"
        server.inject(Fault.status(status, location=location, times=None))
        with pytest.raises(UnexpectedResponseError, match=rf"\b{status}\b.*not followed"):
            operation(prepared, tmp_path)
        # a connection would have been made before the operation ended
        assert select.select([other], [], [], 0)[0] == []
    assert len(server.requests) == 1


def test_responses_without_a_length_are_warned_about_once(
    own_server, prepare, settings, tmp_path, caplog
):
    """A body that ends with the connection is accepted, with one warning per server."""
    bucket = prepare(Bucket(own_server.uri(), settings), own_server)
    own_server.inject(Fault.close_delimited(times=None))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            bucket.download_file("d/there", tmp_path / "x")
            assert sorted(bucket.keys()) == ["d/small", "d/there"]
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert f"127.0.0.1:{own_server.port} does not announce the length" in warnings[0].getMessage()
