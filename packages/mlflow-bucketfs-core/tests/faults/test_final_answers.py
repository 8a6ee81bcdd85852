"""Answers that are final: asked for once, redirects not followed, no length no error."""

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

OPERATIONS = ["download", "exists", "list_keys", "upload_file", "upload_stream", "delete"]


@pytest.mark.parametrize("operation", OPERATIONS, indirect=True)
@pytest.mark.parametrize(
    "refusal",
    [
        (400, UnexpectedResponseError),
        (401, AuthenticationError),
        (403, AccessDeniedError),
        (405, UnexpectedResponseError),
        (413, UnexpectedResponseError),
        (206, UnexpectedResponseError),
    ],
    ids=lambda refusal: str(refusal[0]),
)
def test_what_cannot_change_is_not_tried_again(server, prepared, tmp_path, operation, refusal):
    """Other answers are told after one request, and only 200 is success."""
    status, error = refusal
    server.inject(Fault.status(status, times=None))
    with pytest.raises(error, match=str(status)):
        operation(prepared, tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize("operation", OPERATIONS, indirect=True)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_never_followed(server, prepared, tmp_path, operation, status):
    """No second server sees as much as a connection, and the error says why."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        location = f"http://127.0.0.1:{other.getsockname()[1]}/default/d/there"
        server.inject(Fault.status(status, location=location, times=None))
        with pytest.raises(UnexpectedResponseError, match=f"{status}.*not followed"):
            operation(prepared, tmp_path)
        assert select.select([other], [], [], 0.05)[0] == []
    assert len(server.requests) == 1


def test_unverifiable_answers_are_told_once(own_server, prepare, settings, tmp_path, caplog):
    """A body that ends with the connection is accepted, with one warning per server."""
    bucket = prepare(Bucket(own_server.uri(), settings), own_server)
    own_server.inject(Fault.close_delimited(times=None))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            bucket.download_file("d/there", tmp_path / "x")
            assert sorted(bucket.keys()) == ["d/small", "d/there"]
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert f"127.0.0.1:{own_server.port} announces no length" in warnings[0].getMessage()
