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

# Every operation meets a lost connection and an answer, and every status occurs. TLS changes how
# a lost connection looks, not what an answer says.
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
    """Two failures of a transient kind cost two more requests and nothing else."""
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
def test_what_the_caller_handles_is_not_the_cause(server, either, tmp_path, operation, handled):
    """Python makes it the context of a lost connection; a fallback is tried again all the same."""
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


BROKEN = {
    "reset early": Fault.reset_in_body(5, times=2),
    "reset late": Fault.reset_in_body(200_000, times=2),
    "empty": Fault.truncate(0, times=2),
    "short": Fault.truncate(5, times=2),
    "nearly complete": Fault.truncate(200_000, times=2),
    "chunked and short": Fault.truncate(5, framing="chunked", times=2),
    "chunked and long": Fault.truncate(200_000, framing="chunked", times=2),
}


# A listing is too short to be cut late. Each way to end a body meets TLS, which has an end of its
# own.
@pytest.mark.parametrize(
    ("either", "operation", "fault"),
    [
        *(("http", "download", fault) for fault in BROKEN),
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
def test_broken_answers_are_fetched_again(server, either, tmp_path, operation, fault):
    """A body that ends too early is no body, over HTTP and HTTPS."""
    (tmp_path / "x").write_bytes(OLD)
    server.inject(BROKEN[fault])
    operation(either, tmp_path)
    assert server.requests.count(method="GET") == 3


PERMANENT = {
    "reset": (Fault.reset_before_body(times=None), ServerUnavailableError),
    # TLS hides from Python whether an end was a reset
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
def test_what_stays_is_told_and_leaves_nothing(server, either, tmp_path, target, trouble):
    """Once the tries are used up, the error says so and the older file is as it was."""
    fault, error = PERMANENT[trouble]
    bucket = Bucket(either.uri, replace(either.settings, max_retries=2))
    if target == "existing":
        (tmp_path / "x").write_bytes(OLD)
    server.inject(fault)
    with pytest.raises(error, match=r"d/there: .* Gave up after 3 tries\.$"):
        bucket.download_file("d/there", tmp_path / "x")
    assert len(server.requests) == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == (
        {"x": OLD} if target == "existing" else {}
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


class RestartsServer(threading.Event):
    """Never abandons an operation; the fourth time that one waits for a try, a server starts."""

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


def test_a_restart_is_waited_for(own_server, settings):
    """Where this process had a connection a moment before, a refused one may be a restart."""
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


def test_a_server_that_has_been_gone_for_long_is_not_waited_for(own_server, settings, monkeypatch):
    """Three tries are the end again, or each file of a folder would wait for a minute."""
    bucket = Bucket(own_server.uri(), settings)
    bucket.upload_bytes("x", b"1")
    own_server.stop()
    monkeypatch.setattr(pool, "_MAX_RESTART_S", 0.0)
    with pytest.raises(ServerUnavailableError, match=r"is the port right.* after 3 tries\.$"):
        bucket.upload_bytes("x", b"2")
