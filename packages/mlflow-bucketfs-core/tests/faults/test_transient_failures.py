"""Transient failures are retried; permanent ones are raised and leave nothing behind."""

from __future__ import annotations

import ssl
import threading
from contextlib import ExitStack
from dataclasses import replace

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
from mlflow_bucketfs_core.http import pool
from mlflow_bucketfs_core.http.retry import abandoned_by
from mlflow_bucketfs_testing.server import BucketFSServer, Fault

CONTENT = bytes(range(256)) * 60_000
OLD = b"older file"
OPERATIONS = ["download", "exists", "list_keys", "upload_file", "upload_stream", "delete"]

# Each operation has a lost connection and a status, and each status occurs. TLS changes how a
# lost connection appears, but not a status.
TRANSIENT = [
    *(("http", "reset", operation) for operation in OPERATIONS),
    ("http", 408, "download"),
    ("http", 423, "upload_file"),
    ("http", 429, "upload_stream"),
    ("http", 500, "list_keys"),
    ("http", 502, "exists"),
    ("http", 503, "delete"),
    ("https", "reset", "download"),
    ("https", "reset", "upload_file"),
    ("https", "reset", "delete"),
    ("https", 503, "upload_stream"),
]


@pytest.mark.parametrize(
    ("either", "fault", "operation"), TRANSIENT, indirect=["either", "operation"]
)
def test_transient_failures_are_retried(server, either, tmp_path, fault, operation):
    """After two transient failures, an operation succeeds with its third request."""
    where = {"method": operation.method, "times": 2}
    server.inject(
        Fault.reset_before_body(**where) if fault == "reset" else Fault.status(fault, **where)
    )
    operation(either, tmp_path)
    operation.check(server, tmp_path)
    assert server.requests.count(method=operation.method) == 3


@pytest.mark.parametrize(
    ("either", "handled", "operation"),
    [
        ("http", ObjectNotFoundError("x"), "download"),
        ("http", ssl.SSLError("x"), "upload_file"),
        ("https", ssl.SSLError("x"), "list_keys"),
        ("https", ObjectNotFoundError("x"), "delete"),
    ],
    indirect=["either", "operation"],
)
def test_an_exception_that_the_caller_handles_is_no_cause(
    server, either, tmp_path, operation, handled
):
    """A lost connection is retried even if the caller is handling another exception."""
    server.inject(Fault.reset_before_body(method=operation.method))
    try:
        raise handled
    except type(handled):
        operation(either, tmp_path)
    operation.check(server, tmp_path)


@pytest.mark.parametrize(
    ("either", "operation", "after"),
    [
        ("http", "upload_file", 0),
        ("http", "upload_file", 1),
        ("http", "upload_file", 200_000),
        ("http", "delete", 0),
        ("https", "upload_file", 200_000),
        ("https", "delete", 0),
    ],
    indirect=["either", "operation"],
)
def test_resets_of_uploads_are_retried(server, either, tmp_path, operation, after):
    """A request is retried if the connection is lost before or within its body."""
    server.inject(Fault.reset_on_upload(after, method=operation.method, times=2))
    operation(either, tmp_path)
    operation.check(server, tmp_path)


def test_resets_of_large_uploads_are_retried(server, either):
    """A large body is sent again from its start if the connection is lost while it is sent."""
    server.inject(Fault.reset_on_upload(1_000_000, method="PUT", times=2))
    either.upload_bytes("d/large", CONTENT)
    assert server.read("d/large") == CONTENT


def test_early_refusals_of_large_uploads_are_reported(server, either):
    """A refusal that arrives before the body was sent is handled by its status."""
    server.inject(Fault.status(423, method="PUT"))
    either.upload_bytes("d/large", CONTENT)
    assert server.requests.count(method="PUT") == 2
    server.inject(Fault.status(403, method="PUT"))
    with pytest.raises(AccessDeniedError):
        either.upload_bytes("d/large", CONTENT)


TRUNCATED = {
    "reset early": Fault.reset_in_body(5, times=2),
    "reset late": Fault.reset_in_body(200_000, times=2),
    "empty": Fault.truncate(0, times=2),
    "short": Fault.truncate(5, times=2),
    "nearly complete": Fault.truncate(200_000, times=2),
    "chunked and short": Fault.truncate(5, framing="chunked", times=2),
    "chunked and long": Fault.truncate(200_000, framing="chunked", times=2),
}


# A listing is too short to be truncated late. Each end of a body also occurs over TLS, which marks
# the end itself.
@pytest.mark.parametrize(
    ("either", "operation", "fault"),
    [
        *(("http", "download", fault) for fault in TRUNCATED),
        ("http", "list_keys", "reset early"),
        ("http", "list_keys", "empty"),
        ("http", "list_keys", "chunked and short"),
        ("https", "download", "reset late"),
        ("https", "download", "nearly complete"),
        ("https", "download", "chunked and short"),
        ("https", "list_keys", "reset early"),
        ("https", "list_keys", "short"),
    ],
    indirect=["either", "operation"],
)
def test_truncated_responses_are_retried(server, either, tmp_path, operation, fault):
    """A truncated body is requested again, over HTTP and HTTPS."""
    (tmp_path / "x").write_bytes(OLD)
    server.inject(TRUNCATED[fault])
    operation(either, tmp_path)
    assert server.requests.count(method="GET") == 3


PERMANENT = {
    "reset": (Fault.reset_before_body(times=None), ServerUnavailableError),
    # over TLS, Python does not distinguish a reset from an end
    "in body": (Fault.reset_in_body(9, times=None), TransferError),
    "short": (Fault.truncate(9, times=None), IncompleteTransferError),
    "chunked": (Fault.truncate(9, framing="chunked", times=None), IncompleteTransferError),
    "408": (Fault.status(408, times=None), ServerUnavailableError),
    "423": (Fault.status(423, times=None), LockedError),
    "429": (Fault.status(429, times=None), RateLimitedError),
    "500": (Fault.status(500, times=None), ServerUnavailableError),
    "503": (Fault.status(503, times=None), ServerUnavailableError),
}


@pytest.mark.parametrize(
    ("either", "target", "trouble"),
    [
        ("http", "new", "reset"),
        ("http", "new", "in body"),
        ("http", "existing", "short"),
        ("http", "existing", "chunked"),
        ("http", "new", "408"),
        ("http", "existing", "423"),
        ("http", "new", "429"),
        ("http", "existing", "500"),
        ("http", "new", "503"),
        ("https", "existing", "reset"),
        ("https", "existing", "in body"),
        ("https", "new", "short"),
        ("https", "new", "chunked"),
    ],
    indirect=["either"],
)
def test_the_last_failure_is_raised_and_leaves_no_file(server, either, tmp_path, target, trouble):
    """The last error has the number of attempts, and an older file is unchanged."""
    fault, error = PERMANENT[trouble]
    bucket = Bucket(either.uri, replace(either.settings, max_retries=2))
    if target == "existing":
        (tmp_path / "x").write_bytes(OLD)
    server.inject(fault)
    with pytest.raises(error, match=r"d/there: .* Gave up after 3 attempts\.$"):
        bucket.download_file("d/there", tmp_path / "x")
    assert len(server.requests) == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == (
        {"x": OLD} if target == "existing" else {}
    )


@pytest.mark.parametrize("operation", OPERATIONS, indirect=True)
def test_connections_are_reused_after_refusals(server, prepared, tmp_path, operation):
    """An error status does not close the connection."""
    for status in (423, 429, 500, 503):
        server.inject(Fault.status(status, method=operation.method, times=2))
        operation(prepared, tmp_path)
    assert len(server.requests) == 4 * 3
    assert server.requests.connections == 1


def test_connections_closed_meanwhile_are_replaced(own_server, settings):
    """A restart of the server between two requests causes no error."""
    bucket = Bucket(own_server.uri(), settings)
    bucket.upload_bytes("x", b"1")
    port = own_server.port
    own_server.stop()
    with BucketFSServer(port=port):
        bucket.upload_bytes("x", b"2")
        assert bucket.keys() == ["x"]


class RestartsServer(threading.Event):
    """An event that is never set, but starts a server when it is waited for the fourth time."""

    def __init__(self, port, cleanup):
        super().__init__()
        self.waits = 0
        self._port = port
        self._cleanup = cleanup

    def wait(self, timeout=None):
        """Return at once, as if the time had passed."""
        del timeout
        self.waits += 1
        if self.waits == 4:
            self._cleanup.enter_context(BucketFSServer(port=self._port))
        return False


def test_a_restarting_server_is_retried(own_server, settings):
    """A refused connection is retried more than twice if the server answered shortly before."""
    bucket = Bucket(own_server.uri(), settings)
    bucket.upload_bytes("x", b"1")
    port = own_server.port
    own_server.stop()
    with ExitStack() as cleanup:
        restart = RestartsServer(port, cleanup)
        with abandoned_by(restart):
            bucket.upload_bytes("x", b"2")
        assert bucket.keys() == ["x"]
    assert restart.waits == 4


def test_a_server_that_answered_long_ago_is_tried_three_times(own_server, settings, monkeypatch):
    """A refused connection is tried three times if the last response is too old."""
    bucket = Bucket(own_server.uri(), settings)
    bucket.upload_bytes("x", b"1")
    own_server.stop()
    monkeypatch.setattr(pool, "_MAX_RESTART_S", 0.0)
    with pytest.raises(ServerUnavailableError, match=r"is the port right.* after 3 attempts\.$"):
        bucket.upload_bytes("x", b"2")
