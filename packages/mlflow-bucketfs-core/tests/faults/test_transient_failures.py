"""What passes is survived; what stays is told, and leaves nothing behind."""

from __future__ import annotations

import ssl
from dataclasses import replace
from functools import partial

import pytest
from mlflow_bucketfs_core import Bucket
from mlflow_bucketfs_core.errors import (
    AccessDeniedError,
    IncompleteTransferError,
    LockedError,
    ObjectNotFoundError,
    RateLimitedError,
    ServerUnavailableError,
    TransferError,
)
from mlflow_bucketfs_testing.server import BucketFSServer, Fault

CONTENT = bytes(range(256)) * 60_000
OLD = b"older file"
OPERATIONS = ["download", "exists", "list_keys", "upload_file", "upload_stream", "delete"]
BEFORE_THE_ANSWER = {
    "reset": Fault.reset_before_body,
    **{str(code): partial(Fault.status, code) for code in (408, 423, 429, 500, 502, 503)},
}


@pytest.mark.parametrize("operation", OPERATIONS, indirect=True)
@pytest.mark.parametrize("fault", BEFORE_THE_ANSWER.values(), ids=BEFORE_THE_ANSWER)
def test_what_passes_is_survived(server, either, tmp_path, operation, fault):
    """Two failures of a kind that passes are nobody's business."""
    server.inject(fault(method=operation.method, times=2))
    operation(either, tmp_path)
    operation.check(server, tmp_path)
    assert server.requests.count(method=operation.method) == 3


@pytest.mark.parametrize("operation", OPERATIONS, indirect=True)
@pytest.mark.parametrize("handled", [ObjectNotFoundError("x"), ssl.SSLError("x")], ids=type)
def test_what_the_caller_handles_is_not_the_cause(server, either, tmp_path, operation, handled):
    """Python makes it the context of a lost connection; a fallback is tried again all the same."""
    server.inject(Fault.reset_before_body(method=operation.method))
    try:
        raise handled
    except type(handled):
        operation(either, tmp_path)
    operation.check(server, tmp_path)


@pytest.mark.parametrize("operation", ["upload_file", "delete"], indirect=True)
@pytest.mark.parametrize("after", [0, 1, 200_000])
def test_resets_of_uploads_are_survived(server, either, tmp_path, operation, after):
    """A connection that is lost before or within the body of a request is replaced."""
    server.inject(Fault.reset_on_upload(after, method=operation.method, times=2))
    operation(either, tmp_path)
    operation.check(server, tmp_path)


def test_resets_of_large_uploads_are_survived(server, either):
    """A body that is still being sent when the connection is lost is sent again from its start."""
    server.inject(Fault.reset_on_upload(1_000_000, method="PUT", times=2))
    either.upload_bytes("d/large", CONTENT)
    assert server.read("d/large") == CONTENT


def test_refusals_of_large_uploads_are_understood(server, either):
    """An answer that comes before the body was sent is the answer."""
    server.inject(Fault.status(423, method="PUT"))
    either.upload_bytes("d/large", CONTENT)
    assert server.requests.count(method="PUT") == 2
    server.inject(Fault.status(403, method="PUT"))
    with pytest.raises(AccessDeniedError):
        either.upload_bytes("d/large", CONTENT)


@pytest.mark.parametrize("operation", ["download", "list_keys"], indirect=True)
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda **where: Fault.reset_in_body(5, **where), id="reset-early"),
        pytest.param(lambda **where: Fault.reset_in_body(200_000, **where), id="reset-late"),
        pytest.param(lambda **where: Fault.truncate(0, **where), id="empty"),
        pytest.param(lambda **where: Fault.truncate(5, **where), id="short"),
        pytest.param(lambda **where: Fault.truncate(200_000, **where), id="nearly-complete"),
        pytest.param(
            lambda **where: Fault.truncate(5, framing="chunked", **where), id="chunked-short"
        ),
        pytest.param(
            lambda **where: Fault.truncate(200_000, framing="chunked", **where), id="chunked-long"
        ),
    ],
)
def test_broken_answers_are_fetched_again(server, either, tmp_path, operation, fault):
    """A body that ends too early is no body, over HTTP and HTTPS."""
    (tmp_path / "x").write_bytes(OLD)
    server.inject(fault(times=2))
    operation(either, tmp_path)
    assert server.requests.count(method="GET") == 3


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param((Fault.reset_before_body(times=None), ServerUnavailableError), id="reset"),
        # TLS hides from Python whether an end was a reset
        pytest.param((Fault.reset_in_body(9, times=None), TransferError), id="in-body"),
        pytest.param((Fault.truncate(9, times=None), IncompleteTransferError), id="short"),
        pytest.param(
            (Fault.truncate(9, framing="chunked", times=None), IncompleteTransferError),
            id="chunked",
        ),
        pytest.param((Fault.status(408, times=None), ServerUnavailableError), id="408"),
        pytest.param((Fault.status(423, times=None), LockedError), id="423"),
        pytest.param((Fault.status(429, times=None), RateLimitedError), id="429"),
        pytest.param((Fault.status(500, times=None), ServerUnavailableError), id="500"),
        pytest.param((Fault.status(503, times=None), ServerUnavailableError), id="503"),
    ],
)
@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
def test_what_stays_is_told_and_leaves_nothing(server, either, tmp_path, trouble, existing):
    """Once the tries are used up, the error says so and the older file is as it was."""
    fault, error = trouble
    bucket = Bucket(either.uri, replace(either.settings, max_retries=2))
    if existing:
        (tmp_path / "x").write_bytes(OLD)
    server.inject(fault)
    with pytest.raises(error, match=r"d/there: .* Gave up after 3 tries\.$"):
        bucket.download_file("d/there", tmp_path / "x")
    assert len(server.requests) == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == (
        {"x": OLD} if existing else {}
    )


@pytest.mark.parametrize("operation", OPERATIONS, indirect=True)
def test_connections_are_reused_after_refusals(server, prepared, tmp_path, operation):
    """Answers that are errors cost no connection."""
    for status in (423, 429, 500, 503):
        server.inject(Fault.status(status, method=operation.method, times=2))
        operation(prepared, tmp_path)
    assert len(server.requests) == 4 * 3
    assert server.requests.connections == 1


def test_connections_closed_meanwhile_are_replaced(own_server, settings):
    """A server that was restarted between two requests is not noticed."""
    bucket = Bucket(own_server.uri(), settings)
    bucket.upload_bytes("x", b"1")
    port = own_server.port
    own_server.stop()
    with BucketFSServer(port=port):
        bucket.upload_bytes("x", b"2")
        assert bucket.keys() == ["x"]
