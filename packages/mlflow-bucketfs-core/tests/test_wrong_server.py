"""A wrong port, host or scheme: no server, or one that is not BucketFS."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace

import pytest
from mlflow_bucketfs_core import Bucket
from mlflow_bucketfs_core.errors import (
    IncompleteTransferError,
    ServerUnavailableError,
    TlsError,
    UnexpectedResponseError,
)
from mlflow_bucketfs_testing.server import Fault


@pytest.fixture
def free_port():
    """A port without a listener, bound so that no other process uses it."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def test_a_wrong_port_is_reported_soon(settings, free_port, tmp_path):
    """With MLflow's default retries, a refused connection is reported within 15 s."""
    patient = replace(settings, backoff_factor=2.0, backoff_jitter=1.0)
    bucket = Bucket(f"exa+bfss://127.0.0.1:{free_port}/bfsdefault/default", patient)
    started = time.monotonic()
    with pytest.raises(ServerUnavailableError, match="is the port right") as caught:
        bucket.download_file("x", tmp_path / "x")
    assert time.monotonic() - started < 15
    assert isinstance(caught.value, ConnectionError)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_host_is_reported_soon(settings):
    """A host name that does not resolve is reported within 15 s."""
    bucket = Bucket("exa+bfs://no-such-host.invalid/s/b", settings)
    started = time.monotonic()
    with pytest.raises(ServerUnavailableError, match=r"'no-such-host\.invalid' does not resolve"):
        bucket.keys()
    assert time.monotonic() - started < 15


def test_a_silent_host_is_reported_soon(settings):
    """The timeout for connecting is short, even if the one for a response is long."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        queue = [socket.socket() for _ in range(3)]
        for waiting in queue:
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        patient = replace(settings, max_retries=0, transfer_timeout_s=60)
        bucket = Bucket(f"exa+bfs://127.0.0.1:{full.getsockname()[1]}/s/b", patient)
        started = time.monotonic()
        with pytest.raises(ServerUnavailableError, match="does not answer"):
            bucket.keys()
        assert time.monotonic() - started < 15
        for waiting in queue:
            waiting.close()


@pytest.fixture
def patient(settings):
    """Settings with a back-off that is long enough to be noticed."""
    return replace(settings, backoff_factor=30.0)


@pytest.fixture
def listener():
    """A TCP server whose connections the test handles itself, and the URI for plain HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        yield tcp, f"exa+bfs://127.0.0.1:{tcp.getsockname()[1]}/s/b"


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda bucket: bucket.keys(), id="list"),
        pytest.param(lambda bucket: bucket.exists("x"), id="exists"),
        pytest.param(lambda bucket: bucket.upload_bytes("x", bytes(8 << 20)), id="upload"),
        pytest.param(lambda bucket: bucket.delete("x"), id="delete"),
    ],
)
def test_http_to_the_https_port_is_reported_at_once(server, patient, operation):
    """Plain HTTP to a port for HTTPS is reported after one attempt, with the scheme to use."""
    bucket = Bucket(f"exa+bfs://127.0.0.1:{server.tls_port}/bfsdefault/default", patient)
    started = time.monotonic()
    with pytest.raises(TlsError, match=r"speaks HTTPS, not plain HTTP. Use exa\+bfss://"):
        operation(bucket)
    assert time.monotonic() - started < 15


def test_https_to_the_http_port_is_reported_at_once(server, patient):
    """HTTPS to a port for plain HTTP is reported after one attempt, with the scheme to use."""
    bucket = Bucket(f"exa+bfss://127.0.0.1:{server.port}/bfsdefault/default", patient)
    started = time.monotonic()
    with pytest.raises(TlsError, match=r"Use exa\+bfs://"):
        bucket.keys()
    assert time.monotonic() - started < 15


def test_a_tls_alert_is_understood(listener, patient):
    """A TLS alert in response to plain HTTP is reported without another connection."""
    tcp, uri = listener
    accepted = []

    def serve():
        connection, _ = tcp.accept()
        tcp.close()
        with connection:
            accepted.append(connection.recv(65536))
            connection.sendall(bytes.fromhex("15030100020246"))

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(TlsError, match=r"speaks HTTPS, not plain HTTP. Use exa\+bfss://"):
        Bucket(uri, patient).keys()
    thread.join()
    assert len(accepted) == 1


@pytest.fixture
def closing(listener):
    """A server that answers some requests and closes every further connection.

    Returns its URI and the first bytes of each connection.
    """
    tcp, uri = listener
    seen = []

    def start(responses):
        def serve():
            for number in range(100):
                connection, _ = tcp.accept()
                with connection:
                    seen.append(connection.recv(65536))
                    if seen[-1] == b"Q":
                        return
                    if number < responses:
                        connection.sendall(
                            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                        )

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return uri, seen

    threads = []
    yield start
    with socket.create_connection(tcp.getsockname()) as end:
        end.sendall(b"Q")
    threads[0].join()


def test_a_lost_connection_may_still_be_a_restart(closing, settings):
    """A server that closes without a response, and does not accept TLS, is retried."""
    uri, seen = closing(responses=0)
    with pytest.raises(ServerUnavailableError, match=r"use exa\+bfss://.* after 3 attempts"):
        Bucket(uri, replace(settings, max_retries=2)).keys()
    assert [data[:3] for data in seen] == [b"GET", b"\x16\x03\x01"] * 3


def test_a_server_that_has_answered_gets_no_tls_handshake(closing, settings):
    """Connections that are lost after a response cause no TLS handshake."""
    uri, seen = closing(responses=1)
    bucket = Bucket(uri, replace(settings, max_retries=2))
    assert bucket.keys() == []
    with pytest.raises(ServerUnavailableError, match="after 3 attempts"):
        bucket.keys()
    assert [data[:3] for data in seen] == [b"GET"] * 4


def test_a_proxy_is_not_taken_for_the_server(server, settings, monkeypatch):
    """A proxy that closes connections is not reported as a port for HTTPS."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.tls_port}")
    uri = f"exa+bfs://127.0.0.1:{server.tls_port}/bfsdefault/default"
    with pytest.raises(ServerUnavailableError):
        Bucket(uri, replace(settings, max_retries=1)).keys()


def test_a_bad_request_may_be_the_wrong_scheme(server, settings):
    """The error for status 400 over plain HTTP also names the scheme for HTTPS."""
    server.inject(Fault.status(400, times=None))
    with pytest.raises(UnexpectedResponseError, match=r"for HTTPS, use exa\+bfss://"):
        Bucket(server.uri(), settings).keys()
    pinned = replace(settings, cert_fingerprint=server.certificate_fingerprint)
    with pytest.raises(UnexpectedResponseError, match=r"Check host and port\.$"):
        Bucket(server.tls_uri(), pinned).keys()


@pytest.mark.parametrize(
    "response",
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
def test_other_services_raise_only_our_errors(settings, response, tmp_path):
    """Responses that are not from BucketFS raise only errors of this package."""
    bucket_settings = replace(settings, max_retries=0, transfer_timeout_s=5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"exa+bfs://127.0.0.1:{listener.getsockname()[1]}/s/b"

        def serve():
            connection, _ = listener.accept()
            listener.close()  # so that the TLS handshake is refused, instead of waiting
            with connection:
                connection.recv(65536)
                connection.sendall(response)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(
            (ServerUnavailableError, IncompleteTransferError, UnexpectedResponseError)
        ):
            Bucket(uri, bucket_settings).download_file("x", tmp_path / "x")
        thread.join()
    assert list(tmp_path.iterdir()) == []
