"""Servers and proxies that answer, and close the connection, before an upload is complete."""

from __future__ import annotations

import io
import socket
import threading
from contextlib import suppress
from dataclasses import replace

import pytest
from mlflow_bucketfs_core import Bucket
from mlflow_bucketfs_core.errors import (
    AccessDeniedError,
    IncompleteTransferError,
    LockedError,
    ServerUnavailableError,
    UnexpectedResponseError,
)
from mlflow_bucketfs_testing.server.tls import generate_certificate

# More than the buffers of both sockets hold.
CONTENT = bytes(32 << 20)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate."""
    return generate_certificate("localhost", tmp_path_factory.mktemp("certificate"))


class HastyServer:
    """A server that answers after the header of a request, and closes the connection.

    Attributes:
        port: the port that it listens on.
        headers: headers of the requests so far, including those to a proxy.
        status: status of its responses.
    """

    def __init__(self, certificate):
        self.headers = []
        self.status = "200 OK"
        self._certificate = certificate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            connection, _ = self._listener.accept()
            # otherwise the response would wait for the client's acknowledgement, and be lost
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                if connection.recv(1, socket.MSG_PEEK) == b"Q":
                    return
                with suppress(OSError):
                    self._answer(connection)

    def _answer(self, connection):
        if connection.recv(7, socket.MSG_PEEK) == b"CONNECT":
            self._read_header(connection)
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if connection.recv(1, socket.MSG_PEEK) == b"\x16":  # a TLS handshake
            context = self._certificate.server_context()
            connection = context.wrap_socket(connection, server_side=True)
        with connection:
            self._read_header(connection)
            connection.sendall(f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\n\r\n".encode())

    def _read_header(self, connection):
        header = b""
        while b"\r\n\r\n" not in header:
            block = connection.recv(4096)
            if not block:
                raise ConnectionError
            header += block
        self.headers.append(header)

    def close(self):
        """Stop the thread."""
        with socket.create_connection(("127.0.0.1", self.port)) as end:
            end.sendall(b"Q")
        self._thread.join()
        self._listener.close()


@pytest.fixture
def hasty(certificate):
    """A server that answers too early."""
    server = HastyServer(certificate)
    yield server
    server.close()


@pytest.fixture
def bucket(request, hasty, certificate, settings, monkeypatch):
    """A bucket of the hasty server, reached in the way of the test's parameter."""
    direct = f"127.0.0.1:{hasty.port}/s/b"
    uri = {
        "http": f"exa+bfs://{direct}",
        "https": f"exa+bfss://{direct}",
        "proxy": "exa+bfs://bucketfs.invalid/s/b",
        "tunnel": "exa+bfss://bucketfs.invalid/s/b",
    }[request.param]
    if "invalid" in uri:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{hasty.port}")
    return Bucket(uri, replace(settings, max_retries=1, cert_fingerprint=certificate.fingerprint))


def upload_file(bucket, directory):
    """Upload from a file."""
    (directory / "source").write_bytes(CONTENT)
    bucket.upload_file("x", directory / "source")


def upload_fileobj(bucket, directory):
    """Upload from an open file."""
    del directory
    bucket.upload_fileobj("x", io.BytesIO(CONTENT))


def upload_bytes(bucket, directory):
    """Upload from memory."""
    del directory
    bucket.upload_bytes("x", CONTENT)


def upload_stream(bucket, directory):
    """Upload a stream of unknown length."""
    del directory
    bucket.upload_stream("x", (bytes(1 << 20) for _ in range(32)))


EARLY_SUCCESSES = [
    ("http", upload_file),
    ("https", upload_fileobj),
    ("proxy", upload_bytes),
    ("tunnel", upload_file),
    ("https", upload_bytes),
]


@pytest.mark.parametrize(("bucket", "upload"), EARLY_SUCCESSES, indirect=["bucket"])
def test_success_before_the_end_of_an_upload_is_a_transient_failure(
    hasty, bucket, tmp_path, upload
):
    """A success response to an incomplete upload is retried, and raised in the end."""
    with pytest.raises(IncompleteTransferError, match=r"before all bytes were sent.* after 2"):
        upload(bucket, tmp_path)
    assert sum(header.startswith(b"PUT") for header in hasty.headers) == 2


@pytest.mark.parametrize("bucket", ["http", "https", "proxy", "tunnel"], indirect=True)
def test_success_before_the_end_of_a_stream_is_a_failure(hasty, bucket, tmp_path):
    """A success response to an incomplete stream is raised, because it cannot be retried."""
    with pytest.raises(IncompleteTransferError, match="before all bytes were sent"):
        upload_stream(bucket, tmp_path)
    assert sum(header.startswith(b"PUT") for header in hasty.headers) == 1


@pytest.mark.parametrize(
    ("bucket", "upload", "refusal"),
    [
        ("http", upload_stream, ("403 Forbidden", AccessDeniedError)),
        ("https", upload_file, ("403 Forbidden", AccessDeniedError)),
        ("https", upload_stream, ("423 Locked", LockedError)),
        ("proxy", upload_fileobj, ("413 Content Too Large", UnexpectedResponseError)),
        ("tunnel", upload_bytes, ("413 Content Too Large", UnexpectedResponseError)),
        ("tunnel", upload_stream, ("503 Service Unavailable", ServerUnavailableError)),
    ],
    indirect=["bucket"],
)
def test_refusals_before_the_end_of_an_upload_are_reported(
    hasty, bucket, tmp_path, upload, refusal
):
    """An early refusal of an upload is raised, instead of the lost connection."""
    hasty.status, error = refusal
    with pytest.raises(error, match=hasty.status[:3]):
        upload(bucket, tmp_path)
