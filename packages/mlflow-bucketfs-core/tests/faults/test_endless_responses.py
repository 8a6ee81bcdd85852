"""Responses without end, which time out or are refused."""

from __future__ import annotations

import itertools
import socket
import threading
from contextlib import suppress
from dataclasses import replace

import pytest
from mlflow_bucketfs_core import Bucket
from mlflow_bucketfs_core.bucket import list_buckets
from mlflow_bucketfs_core.errors import (
    AuthenticationError,
    TransferError,
    TransferTimeoutError,
    UnexpectedResponseError,
)
from mlflow_bucketfs_core.http import request

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data):
    """Return the data as an HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.fixture
def endless(settings):
    """Make a bucket of a server that sends pieces without end, ``pause_s`` apart.

    ``timeout_s`` is the bucket's timeout without progress.
    """
    clients = []
    threads = []

    def serve(listener, pieces, pause_s):
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                clients.append(client)
                client.recv(65536)
                with suppress(OSError):
                    for piece in pieces():
                        client.sendall(piece)
                        if stop.wait(pause_s):
                            break

    def make(pieces, *, pause_s=0.0, timeout_s=0.5):
        arguments = listener, pieces, pause_s
        threads.append(threading.Thread(target=serve, args=arguments))
        threads[-1].start()
        short = replace(settings, max_retries=0, transfer_timeout_s=timeout_s)
        return Bucket(f"exa+bfs://127.0.0.1:{listener.getsockname()[1]}/s/b", short)

    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield make
        stop.set()
        for client in clients:
            client.close()
        listener.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()


HEADS = {
    "continue": lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "status line": lambda: itertools.chain([b"HTTP/1.1 200 "], itertools.repeat(b"x")),
    "headers": lambda: itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], itertools.repeat(b"x")),
}


@pytest.mark.parametrize("pieces", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda bucket: bucket.keys(), id="list"),
        pytest.param(lambda bucket: bucket.exists("x"), id="exists"),
        pytest.param(lambda bucket: bucket.delete("x"), id="delete"),
    ],
)
def test_a_head_without_end_times_out(endless, pieces, operation):
    """A head, or responses ``100 Continue``, without end cause a timeout."""
    sent = []

    def noted():
        for piece in pieces():
            sent.append(piece)
            yield piece

    bucket = endless(noted, pause_s=0.01, timeout_s=1)
    with pytest.raises(TransferTimeoutError, match="MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT"):
        operation(bucket)
    assert len(sent) > 1


LISTINGS = {
    "keys": (lambda: itertools.chain([HEAD], itertools.repeat(chunk(b"k\n" * 5000))), "bytes"),
    "line": (lambda: itertools.chain([HEAD], itertools.repeat(chunk(b"k" * 9999))), "a line of"),
}


@pytest.mark.parametrize(("pieces", "reason"), LISTINGS.values(), ids=LISTINGS)
@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda bucket: bucket.keys(), id="all"),
        pytest.param(lambda bucket: bucket.keys("folder"), id="folder"),
        pytest.param(lambda bucket: list_buckets(bucket.uri, bucket.settings), id="buckets"),
        pytest.param(lambda bucket: bucket.upload_bytes("d/x", b""), id="upload"),
    ],
)
def test_a_listing_without_end_is_refused(endless, monkeypatch, pieces, reason, operation):
    """A listing with too many bytes, or too long a line, is refused in every operation."""
    monkeypatch.setattr(request, "_MAX_LISTING_BYTES", 1 << 20)
    with pytest.raises(UnexpectedResponseError, match=reason) as caught:
        operation(endless(pieces, timeout_s=60))
    assert "127.0.0.1" in str(caught.value)


def test_a_slow_listing_times_out(endless, monkeypatch):
    """A listing that does not end in time causes a timeout, although bytes keep arriving."""
    monkeypatch.setattr(request, "_LISTING_TIMEOUTS", 1)
    bucket = endless(lambda: itertools.chain([HEAD], itertools.repeat(chunk(b"k\n"))), pause_s=0.01)
    with pytest.raises(TransferTimeoutError):
        bucket.keys()


def test_trailers_without_end_are_an_error(endless, monkeypatch):
    """Trailers without end after a chunked listing raise an error."""
    monkeypatch.setattr(request, "_LISTING_TIMEOUTS", 1)
    bucket = endless(
        lambda: itertools.chain([HEAD, b"0\r\n"], itertools.repeat(b"X: y\r\n")), pause_s=0.01
    )
    with pytest.raises(TransferError):
        bucket.keys()


@pytest.mark.parametrize("length", [b"10", b"65536"])
def test_the_body_of_an_error_is_not_waited_for(endless, settings, length):
    """An error status is raised without waiting for the announced body."""
    head = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: " + length + b"\r\n\r\n"
    bucket = endless(lambda: itertools.chain([head], itertools.repeat(b"")), pause_s=0.01)
    patient = Bucket(bucket.uri, replace(settings, transfer_timeout_s=3600))
    with pytest.raises(AuthenticationError):
        patient.keys()


def test_a_slow_body_of_an_error_is_not_read(endless, settings):
    """An error status is raised without reading a body that arrives slowly."""
    head = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 60000\r\n\r\n"
    bucket = endless(lambda: itertools.chain([head], itertools.repeat(b"x")), pause_s=0.05)
    patient = Bucket(bucket.uri, replace(settings, transfer_timeout_s=3600))
    with pytest.raises(AuthenticationError):
        patient.keys()
