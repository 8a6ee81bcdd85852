"""Nobody is there, or somebody else: a wrong port, host or scheme."""

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
