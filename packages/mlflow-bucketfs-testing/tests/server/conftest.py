"""A server per module, reset for each test, and a plain HTTP client."""

from __future__ import annotations

import base64
import http.client
from typing import NamedTuple

import pytest
from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer


class Response(NamedTuple):
    """A complete HTTP response; ``body`` is not decoded."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Client:
    """Python's HTTP client, which does not quote, decode or retry."""

    def __init__(self, server: BucketFSServer) -> None:
        self.server = server
        self.connection = http.client.HTTPConnection(server.host, server.port, timeout=60)

    def ask(self, method, path, body=None, *, user=None, password="", headers=None, **options):
        """Send one request on the connection, which stays open for the next one."""
        headers = dict(headers or {})
        if user is not None:
            headers["Authorization"] = basic(user, password)
        self.connection.request(method, path, body, headers, **options)
        response = self.connection.getresponse()
        return Response(response.status, response.headers, response.read())

    def get(self, path, **options):
        """Send a GET without credentials."""
        return self.ask("GET", path, **options)

    def put(self, path, body, **options):
        """Send a PUT with the default write password."""
        return self.ask("PUT", path, body, **{"user": "w", "password": "write", **options})

    def delete(self, path, **options):
        """Send a DELETE with the default write password."""
        return self.ask("DELETE", path, **{"user": "w", "password": "write", **options})


def basic(user, password):
    """Return the value of an ``Authorization`` header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(scope="module")
def shared_server():
    """A server with a public and a private bucket."""
    private = BucketConfig("private", public=False, read_password="r1", write_password="w1")
    with BucketFSServer((BucketConfig("default"), private)) as server:
        yield server


@pytest.fixture
def server(shared_server):
    """The module's server, reset to its state after the start."""
    shared_server.reset()
    return shared_server


@pytest.fixture
def connect():
    """Return a function that makes clients; their connections are closed after the test."""
    clients = []

    def make(server):
        clients.append(Client(server))
        return clients[-1]

    yield make
    for client in clients:
        client.connection.close()


@pytest.fixture
def client(server, connect):
    """A client of `server`."""
    return connect(server)
