"""Uploads through the proxy are streamed to BucketFS."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest
import requests


def _url(server, path):
    return f"{server.uri}/api/2.0/mlflow-artifacts/artifacts/{path}"


def test_a_large_upload_through_the_proxy_is_complete(proxying_mlflow_server, proxied):
    """An upload that is larger than the server's buffers is stored byte-identical."""
    data = bytes(range(256)) * (20 * 4096)
    response = requests.put(_url(proxying_mlflow_server, "big/x.bin"), data=data, timeout=120)
    assert response.status_code == requests.codes.ok
    assert proxied.read("big/x.bin") == data


def _begin_upload(server, path, sent):
    """Start an upload of 50 MB and send the first bytes."""
    host, port = server.uri.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    path = _url(server, path).partition(port)[2]
    head = f"PUT {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 50000000\r\n\r\n"
    connection.sendall(head.encode() + b"x" * sent)
    return connection


def test_an_aborted_upload_publishes_nothing(proxying_mlflow_server, proxied, upload_has_begun):
    """An upload that its client aborts stores no object."""
    pytest.importorskip("mlflow.server.artifact_router", reason="MLflow 3.15 streams uploads")
    _begin_upload(proxying_mlflow_server, "aborted/x.bin", 12_000_000).close()
    upload_has_begun()
    assert [key for key in proxied.keys() if "aborted" in key] == []


@pytest.mark.parametrize("sent", [1000, 9_000_000], ids=["1 kB", "9 MB"])
def test_stalled_uploads_do_not_block_others(proxying_mlflow_server, proxied, sent):
    """Ten uploads that stall block neither a download nor another upload."""
    pytest.importorskip("mlflow.server.artifact_router", reason="MLflow 3.15 streams uploads")
    url = _url(proxying_mlflow_server, "heard/x.bin")
    with ExitStack() as clients:
        for number in range(10):
            client = _begin_upload(proxying_mlflow_server, f"silent/{number}", sent)
            clients.enter_context(client)
        assert requests.put(url, data=b"heard", timeout=30).status_code == requests.codes.ok
        assert requests.get(url, timeout=30).content == b"heard"
    assert [key for key in proxied.keys() if "silent" in key] == []


@pytest.fixture
def upload_has_begun(bucketfs_target, request):
    """Return a function that waits until BucketFS has received the test's upload."""
    if bucketfs_target.backend != "embedded":
        # only the embedded server has a request log; five seconds suffice on any machine
        return lambda: time.sleep(5)
    log = request.getfixturevalue("bucketfs_server").requests
    before = log.count(method="PUT")

    def wait() -> None:
        deadline = time.monotonic() + 120
        while log.count(method="PUT") == before and time.monotonic() < deadline:
            time.sleep(0.1)
        assert log.count(method="PUT") > before

    return wait
