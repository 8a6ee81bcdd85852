"""Uploads through the proxy are passed on while they arrive."""

from __future__ import annotations

import socket
import time

import requests


def _url(server, path):
    return f"{server.uri}/api/2.0/mlflow-artifacts/artifacts/{path}"


def test_a_large_upload_through_the_proxy_arrives_whole(proxying_mlflow_server, bucketfs_server):
    """More than the server holds in memory arrives byte-identical."""
    data = bytes(range(256)) * (20 * 4096)
    answer = requests.put(_url(proxying_mlflow_server, "big/x.bin"), data=data, timeout=120)
    assert answer.status_code == requests.codes.ok
    key = next(key for key in bucketfs_server.keys() if key.endswith("big/x.bin"))
    assert bucketfs_server.read(key) == data


def test_an_aborted_upload_publishes_nothing(proxying_mlflow_server, bucketfs_server):
    """A client that goes away in the middle leaves no object, not even a part of one."""
    host, port = proxying_mlflow_server.uri.removeprefix("http://").split(":")
    before = bucketfs_server.requests.count(method="PUT")
    with socket.create_connection((host, int(port))) as connection:
        path = _url(proxying_mlflow_server, "aborted/x.bin").partition(port)[2]
        head = f"PUT {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 50000000\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 12_000_000)
    deadline = time.monotonic() + 30
    while bucketfs_server.requests.count(method="PUT") == before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert bucketfs_server.requests.count(method="PUT") > before
    assert [key for key in bucketfs_server.keys() if "aborted" in key] == []
