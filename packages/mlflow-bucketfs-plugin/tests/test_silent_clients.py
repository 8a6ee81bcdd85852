"""Tests of clients of a proxying tracking server that stall during an upload."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from http.client import HTTPResponse
from pathlib import Path

import pytest
import requests
import uvicorn
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin import streaming
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

MIB = 1 << 20
PARTS = pytest.mark.parametrize("sent", [1000, 9 * MIB], ids=["1 kB", "9 MiB"])


class Proxy:
    """A server that calls a repository as MLflow's ``artifact_router`` does.

    Its event loop has two threads for blocking calls, such as MLflow's downloads.
    """

    def __init__(self, repo):
        self.repo = repo
        self.uploads = 0
        self._clients = ExitStack()
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        routes = [
            Route("/{name}", self._upload, methods=["PUT"]),
            Route("/{name}", self._download),
        ]
        app = Starlette(routes=routes, lifespan=self._lifespan)
        self._server = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="critical"))
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()
        wait_until(lambda: self._server.started)

    @asynccontextmanager
    async def _lifespan(self, app):
        del app
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        yield

    async def _upload(self, request):
        self.uploads += 1
        name = request.path_params["name"]
        try:
            await self.repo.log_artifact_from_async_stream(request.stream(), name)
        except MlflowException as error:
            return JSONResponse(json.loads(error.serialize_as_json()), error.get_http_status_code())
        return Response()

    async def _download(self, request):
        return Response(await asyncio.to_thread(self._read, request.path_params["name"]))

    def _read(self, name):
        with tempfile.TemporaryDirectory() as directory:
            return Path(self.repo.download_artifacts(name, directory)).read_bytes()

    def begin_upload(self, name, sent):
        """Announce 50 MB, send a part of it, and stall."""
        before = self.uploads
        client = self._clients.enter_context(socket.create_connection(self.address))
        client.settimeout(30)
        head = f"PUT /{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n"
        client.sendall(head.encode() + b"x" * sent)
        wait_until(lambda: self.uploads > before)
        return client

    def request(self, method, name, data=None):
        """Send a complete request."""
        url = f"http://127.0.0.1:{self.address[1]}/{name}"
        return requests.request(method, url, data=data, timeout=10)

    def stop(self):
        """Close all connections and end the server."""
        self._clients.close()
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()


def wait_until(condition):
    """Wait until another thread meets a condition."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def proxy(repo):
    """A proxying server at the folder ``root``."""
    running = Proxy(repo)
    yield running
    running.stop()


@PARTS
def test_silent_uploads_block_no_request(server, proxy, environment, sent):
    """Ten stalled uploads block neither downloads nor uploads, and their threads are limited."""
    environment.setenv("EXA_BUCKETFS_MAX_WORKERS", "2")
    streaming._forget_process()
    earlier = set(threading.enumerate())

    def occupied():
        """Count threads that wait for clients."""
        new = set(threading.enumerate()) - earlier
        return sum(thread.name.startswith("BucketFS_streamed") for thread in new)

    server.put("root/there", b"content")
    for number in range(10):
        proxy.begin_upload(f"silent{number}", sent)
    wait_until(lambda: occupied() == (2 if sent > 8 * MIB else 0))
    assert proxy.request("GET", "there").content == b"content"
    assert proxy.request("PUT", "new", b"new").status_code == requests.codes.ok
    assert occupied() == (2 if sent > 8 * MIB else 0)
    proxy.stop()
    assert sorted(server.keys()) == ["root/new", "root/there"]


@PARTS
def test_silent_client_gets_an_error(server, proxy, environment, sent, caplog):
    """A stalled upload is an error with the reason, and nothing is stored."""
    environment.setenv("EXA_BUCKETFS_CLIENT_TIMEOUT", "0.3")
    environment.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", proxy.repo.artifact_uri)
    with HTTPResponse(proxy.begin_upload("silent", sent)) as response:
        response.begin()
        error = json.loads(response.read())
    assert (response.status, error["error_code"]) == (504, "DEADLINE_EXCEEDED")
    assert "sent nothing for 0.3 s" in error["message"]
    assert "EXA_BUCKETFS_CLIENT_TIMEOUT" in error["message"]
    assert server.keys() == []
    assert f"Answering with status 504: {error['message']}" in caplog.text
    assert not streaming._process.streams


def test_slow_client_does_not_time_out(server, repo, environment):
    """The timeout applies between two pieces, not to the complete upload."""
    environment.setenv("EXA_BUCKETFS_CLIENT_TIMEOUT", "0.6")

    async def chunks():
        for _ in range(3):
            await asyncio.sleep(0.25)
            yield b"x"

    asyncio.run(repo.log_artifact_from_async_stream(chunks(), "f"))
    assert server.read("root/f") == b"xxx"


def test_no_limit(server, repo, environment):
    """With a negative timeout, the server waits for its clients without limit."""
    environment.setenv("EXA_BUCKETFS_CLIENT_TIMEOUT", "-1")

    async def chunks():
        yield b"x"

    asyncio.run(repo.log_artifact_from_async_stream(chunks(), "f"))
    assert server.read("root/f") == b"x"


def test_memory_is_limited(server, repo, monkeypatch):
    """Parallel uploads collect a limited amount of data in memory."""
    limit, piece, number = MIB, 64 * 1024, 40
    monkeypatch.setattr(streaming, "_MOST_COLLECTED_BYTES", limit)

    async def main():
        given = 0
        go_on = asyncio.Event()

        async def chunks():
            nonlocal given
            for _ in range(4):
                given += piece
                yield bytes(piece)
            await go_on.wait()
            yield b"end"

        uploads = [
            asyncio.create_task(repo.log_artifact_from_async_stream(chunks(), f"{i}"))
            for i in range(number)
        ]
        before = -1
        while given > before:  # until no more is read
            before = given
            await asyncio.sleep(0.1)
        held = sum(stream.collected for stream in streaming._process.streams)
        go_on.set()
        await asyncio.gather(*uploads)
        return held

    # each upload may take one piece too many
    assert asyncio.run(main()) <= limit + number * piece
    assert {len(server.read(key)) for key in server.keys()} == {4 * piece + 3}
    assert len(server.keys()) == number
