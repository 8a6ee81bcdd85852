"""What networks, proxies and busy servers do to requests, and what becomes of it."""

from __future__ import annotations

import datetime as dt
import logging
import select
import socket
import threading
import time
from dataclasses import replace
from email.utils import format_datetime

import pytest
from mlflow_bucketfs_core import Bucket
from mlflow_bucketfs_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    IncompleteTransferError,
    LockedError,
    RateLimitedError,
    ServerUnavailableError,
    TlsError,
    TransferError,
    TransferTimeoutError,
    UnexpectedResponseError,
)
from mlflow_bucketfs_testing.server import BucketFSServer, Fault

CONTENT = bytes(range(256)) * 1200
OLD = b"older file"


def download(bucket, directory):
    """Replace an older file."""
    bucket.download_file("d/there", directory / "x")
    assert (directory / "x").read_bytes() == CONTENT


def upload_file(bucket, directory):
    """Upload from a file."""
    (directory / "source").write_bytes(CONTENT)
    bucket.upload_file("d/new", directory / "source")


def upload_stream(bucket, directory):
    """Upload a stream that fits into the buffer."""
    del directory
    bucket.upload_stream("d/new", iter([CONTENT[:1000], CONTENT[1000:]]))


def delete(bucket, directory):
    """Delete the object that is there."""
    del directory
    bucket.delete("d/there")


def list_keys(bucket, directory):
    """List the folder."""
    del directory
    assert sorted(bucket.keys("d")) == ["d/small", "d/there"]


def exists(bucket, directory):
    """Ask for an object that is there."""
    del directory
    assert bucket.exists("d/small")


METHODS = {
    download: "GET",
    exists: "GET",
    list_keys: "GET",
    upload_file: "PUT",
    upload_stream: "PUT",
    delete: "DELETE",
}
OPERATIONS = [pytest.param(operation, id=operation.__name__) for operation in METHODS]
WITH_BODIES = [
    pytest.param(operation, id=operation.__name__) for operation in (download, list_keys)
]
BEFORE_THE_ANSWER = {
    "reset": Fault.reset_before_body,
    **{
        f"{code}": lambda code=code, **where: Fault.status(code, **where)
        for code in (408, 423, 429)
    },
    **{
        f"{code}": lambda code=code, **where: Fault.status(code, **where)
        for code in (500, 502, 503)
    },
}


@pytest.fixture
def prepare(server):
    """Store the object, know the folder, and forget the requests that took."""

    def go(bucket, target=server):
        target.put_many([("d/there", CONTENT), ("d/small", b"")])
        bucket.prepare_uploads(["d/new"])
        target.requests.clear()
        return bucket

    return go


@pytest.fixture
def prepared(prepare, bucket):
    """The bucket over HTTP."""
    return prepare(bucket)


@pytest.fixture(params=["http", "https"])
def either(request, server, settings, prepare):
    """The bucket over HTTP and over HTTPS."""
    if request.param == "http":
        return prepare(Bucket(server.uri(), settings))
    pinned = replace(settings, cert_fingerprint=server.certificate_fingerprint)
    return prepare(Bucket(server.tls_uri(), pinned))


def check_state(server, directory, operation):
    """The operation has done what it should and nothing else."""
    expected = {"d/there": CONTENT, "d/small": b""}
    if operation is delete:
        del expected["d/there"]
    if operation in {upload_file, upload_stream}:
        expected["d/new"] = CONTENT
    assert {key: server.read(key) for key in server.keys()} == expected
    known = {"x"} if operation is download else {"source"} if operation is upload_file else set()
    assert {path.name for path in directory.iterdir()} == known


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", BEFORE_THE_ANSWER.values(), ids=BEFORE_THE_ANSWER)
def test_what_passes_is_survived(server, either, tmp_path, operation, fault):
    """Two failures of a kind that passes are nobody's business."""
    server.inject(fault(method=METHODS[operation], times=2))
    operation(either, tmp_path)
    check_state(server, tmp_path, operation)
    assert server.requests.count(method=METHODS[operation]) == 3


@pytest.mark.parametrize(
    "operation", [pytest.param(f, id=f.__name__) for f in (upload_file, delete)]
)
@pytest.mark.parametrize("after", [0, 1, 200_000])
def test_resets_of_uploads_are_survived(server, either, tmp_path, operation, after):
    """A connection that is lost before or within the body of a request is replaced."""
    server.inject(Fault.reset_on_upload(after, method=METHODS[operation], times=2))
    operation(either, tmp_path)
    check_state(server, tmp_path, operation)


def test_resets_of_large_uploads_are_survived(server, either):
    """A body that is still being sent when the connection is lost is sent again from its start."""
    server.inject(Fault.reset_on_upload(1_000_000, method="PUT", times=2))
    content = CONTENT * 50
    either.upload_bytes("d/large", content)
    assert server.read("d/large") == content


def test_refusals_of_large_uploads_are_understood(server, either):
    """An answer that comes before the body was sent is the answer."""
    server.inject(Fault.status(423, method="PUT"))
    either.upload_bytes("d/large", CONTENT * 50)
    assert server.requests.count(method="PUT") == 2
    server.inject(Fault.status(403, method="PUT"))
    with pytest.raises(AccessDeniedError):
        either.upload_bytes("d/large", CONTENT * 50)


@pytest.mark.parametrize("operation", WITH_BODIES)
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


@pytest.mark.parametrize("operation", OPERATIONS)
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


@pytest.mark.parametrize("operation", OPERATIONS)
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


def test_connections_are_reused_after_refusals(server, prepared, tmp_path):
    """Answers that are errors cost no connection."""
    for status in (423, 429, 500, 503):
        for operation in (download, list_keys, delete, upload_stream):
            server.put("d/there", CONTENT)
            server.delete("d/new")
            server.inject(Fault.status(status, method=METHODS[operation], times=2))
            operation(prepared, tmp_path)
    assert len(server.requests) == 4 * 4 * 3
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


# Waiting


@pytest.mark.parametrize(
    "retry_after",
    [
        pytest.param(lambda: 1, id="seconds"),
        pytest.param(
            lambda: format_datetime(
                dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=2), usegmt=True
            ),
            id="date",
        ),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_heeded(server, prepared, tmp_path, retry_after, status):
    """The next try comes when the server said, not at once."""
    server.inject(Fault.status(status, retry_after=retry_after()))
    download(prepared, tmp_path)
    first, second = server.requests
    assert second.started - first.started > 0.9


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-5",
        "1.5",
        "Fri, 01 Jan 99999 00:00:00 GMT",
        "Fri, 99 Foo 2020",
        "\u00fc".encode().hex(),
    ],
)
def test_odd_retry_after_is_ignored(server, prepared, tmp_path, value):
    """A header that says nothing is no reason to fail."""
    server.inject(Fault.status(503, retry_after=value))
    download(prepared, tmp_path)
    assert len(server.requests) == 2


@pytest.mark.parametrize("value", ["3600", "9" * 30, "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_retry_after_is_capped(server, start_python, value):
    """Nobody waits for longer than the budget of 60 s, whatever the server asks."""
    server.inject(Fault.status(429, retry_after=value, times=None))
    code = """
    import logging, sys
    logging.basicConfig(level=logging.DEBUG)
    from mlflow_bucketfs_core import Bucket, ConnectionSettings
    Bucket(sys.argv[1], ConnectionSettings()).keys()
    """
    process = start_python(code, server.uri())
    waits = (line for line in process.stderr if "Trying again" in line)
    assert "Trying again in 60.0 s" in next(waits)


@pytest.fixture
def impatient(own_server, prepare, settings):
    """A bucket that waits for a moment only, and tries twice."""
    short = replace(settings, transfer_timeout_s=0.4, max_retries=1)
    return prepare(Bucket(own_server.uri(), short), own_server)


@pytest.mark.parametrize(
    ("at", "operation"),
    [
        pytest.param("response", download, id="response-download"),
        pytest.param("response", list_keys, id="response-list"),
        pytest.param("response", upload_file, id="response-upload"),
        pytest.param("response", delete, id="response-delete"),
        pytest.param("body", download, id="body-download"),
        pytest.param("body", list_keys, id="body-list"),
        pytest.param(
            "upload",
            lambda bucket, _: bucket.upload_bytes("d/new", bytes(48 << 20)),
            id="upload",
        ),
    ],
)
def test_stalls_end_in_a_timeout(own_server, impatient, tmp_path, at, operation):
    """A server that goes silent is given up with an error that names the variable to set."""
    own_server.inject(Fault.stall(300, at=at, times=None))
    with pytest.raises(TransferTimeoutError, match="MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT"):
        operation(impatient, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"source"}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_stall_is_survived(own_server, impatient, tmp_path, operation):
    """A server that went silent once is asked again."""
    own_server.inject(Fault.stall(300))
    operation(impatient, tmp_path)
    check_state(own_server, tmp_path, operation)


def test_slow_is_not_stalled(server, prepare, settings, tmp_path):
    """The timeout is for silence: a slow trickle takes as long as it takes."""
    bucket = prepare(Bucket(server.uri(), replace(settings, transfer_timeout_s=0.4, max_retries=0)))
    server.inject(Fault.trickle(300_000))
    download(bucket, tmp_path)
    assert server.requests[0].duration_s > 0.8


# Answers that cannot be verified


def test_unverifiable_answers_are_told_once(own_server, prepare, settings, tmp_path, caplog):
    """A body that ends with the connection is accepted, with one warning per server."""
    bucket = prepare(Bucket(own_server.uri(), settings), own_server)
    own_server.inject(Fault.close_delimited(times=None))
    with caplog.at_level(logging.WARNING):
        download(bucket, tmp_path)
        list_keys(bucket, tmp_path)
        download(bucket, tmp_path)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert f"127.0.0.1:{own_server.port} announces no length" in warnings[0].getMessage()


# Nobody there, or somebody else


@pytest.fixture
def free_port():
    """A port on which nobody listens: bound, so that nobody else gets it."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@pytest.mark.parametrize("scheme", ["exa+bfs", "exa+bfss"])
def test_a_wrong_port_is_told_soon(settings, scheme, free_port, tmp_path):
    """With MLflow's default retries, nobody waits 15 s to learn that nobody listens."""
    patient = replace(settings, backoff_factor=2.0, backoff_jitter=1.0)
    bucket = Bucket(f"{scheme}://127.0.0.1:{free_port}/bfsdefault/default", patient)
    started = time.monotonic()
    with pytest.raises(ServerUnavailableError, match="is the port right") as caught:
        bucket.download_file("x", tmp_path / "x")
    assert time.monotonic() - started < 15
    assert isinstance(caught.value, ConnectionError)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_host_is_told_soon(settings):
    """A misspelt host is called unknown."""
    bucket = Bucket("exa+bfs://no-such-host.invalid/s/b", settings)
    started = time.monotonic()
    with pytest.raises(ServerUnavailableError, match=r"'no-such-host\.invalid' is not known"):
        bucket.keys()
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("scheme", ["exa+bfs", "exa+bfss"])
def test_a_silent_host_is_told_soon(settings, scheme):
    """The wait for a connection is short, however long that for an answer may be."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        queue = [socket.socket() for _ in range(3)]
        for waiting in queue:
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        patient = replace(settings, max_retries=0, transfer_timeout_s=60)
        bucket = Bucket(f"{scheme}://127.0.0.1:{full.getsockname()[1]}/s/b", patient)
        started = time.monotonic()
        with pytest.raises(ServerUnavailableError, match="does not answer"):
            bucket.keys()
        assert time.monotonic() - started < 15
        for waiting in queue:
            waiting.close()


def test_http_to_the_https_port_is_told(server, settings):
    """The error names the scheme to use."""
    bucket = Bucket(f"exa+bfs://127.0.0.1:{server.tls_port}/bfsdefault/default", settings)
    with pytest.raises(ServerUnavailableError, match=r"use exa\+bfss://"):
        bucket.keys()


def test_https_to_the_http_port_is_told(server, settings):
    """The error names the scheme to use."""
    bucket = Bucket(f"exa+bfss://127.0.0.1:{server.port}/bfsdefault/default", settings)
    with pytest.raises(TlsError, match=r"Use exa\+bfs://"):
        bucket.keys()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n", id="ssh"),
        pytest.param(b"HTTP/1.1 abc\r\n\r\n", id="bad-status"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="bad-chunk"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", id="long-header"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", id="many-headers"),
    ],
)
def test_whoever_else_answers_is_an_error_of_ours(settings, answer, tmp_path):
    """Rubbish from something that is not BucketFS raises nothing but this package's errors."""
    bucket_settings = replace(settings, max_retries=0, transfer_timeout_s=5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"exa+bfs://127.0.0.1:{listener.getsockname()[1]}/s/b"

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(
            (ServerUnavailableError, IncompleteTransferError, UnexpectedResponseError)
        ):
            Bucket(uri, bucket_settings).download_file("x", tmp_path / "x")
        thread.join()
    assert list(tmp_path.iterdir()) == []
