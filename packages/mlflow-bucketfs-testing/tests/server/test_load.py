"""Many clients, large objects, long listings."""

from __future__ import annotations

import http.client
import logging
import socket
import struct
import threading
import time

import psutil


def exercise(server, number, rounds, failures):
    """Run one client: uploads, downloads and deletes, with some new connections."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)

    def ask(method, path, body=None, expected=b""):
        connection.request(method, path, body, {"Authorization": "Basic dzp3cml0ZQ=="})
        response = connection.getresponse()
        outcome = (response.status, response.read())
        if outcome != (200, expected):
            failures.append((method, path, outcome))

    for round_ in range(rounds):
        path, data = f"/default/{number}/{round_ % 3}", bytes([number]) * (round_ * 500)
        ask("PUT", path, data)
        ask("GET", path, expected=data)
        ask("DELETE", path)
        if round_ % 5 == 0:
            connection.close()  # the next request opens another
            ask("GET", "/", expected=b"default\nprivate\n")
    connection.close()


def test_many_clients_at_once(server):
    """64 clients send 10,000 requests without an error; memory and open files do not grow."""
    process = psutil.Process()
    files = process.num_fds()
    failures = []

    def run(rounds):
        threads = [
            threading.Thread(target=exercise, args=(server, number, rounds, failures))
            for number in range(64)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    run(5)
    server.requests.clear()
    memory = process.memory_info().rss
    run(52)
    assert not failures
    assert len(server.requests) >= 10_000
    assert server.keys() == []
    assert process.memory_info().rss < memory + 30_000_000
    deadline = time.monotonic() + 10  # the server closes its side a little later
    while process.num_fds() > files + 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_large_objects_need_no_memory(client):
    """A body of 256 MiB is uploaded and downloaded without being held in memory."""
    size = 256 * 1024 * 1024
    block = bytes(1024 * 1024)
    process = psutil.Process()
    peak = [0]
    done = threading.Event()

    def watch():
        while not done.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    client.put("/default/warm", block)
    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    body = (block for _ in range(size // len(block)))
    response = client.put("/default/big", body, headers={"Content-Length": str(size)})
    assert response.status == 200
    client.connection.request("GET", "/default/big")
    response = client.connection.getresponse()
    received = 0
    while data := response.read(len(block)):
        received += len(data)
    done.set()
    watcher.join()
    assert received == size
    assert peak[0] < before + 40_000_000


def test_a_client_that_leaves_a_long_listing(server, caplog):
    """The server stops writing a listing when its client disconnects, without a warning."""
    server.put_many((f"folder/{number:0200}", b"") for number in range(40_000))
    no_lingering = struct.pack("ii", 1, 0)
    with caplog.at_level(logging.WARNING):
        with socket.create_connection((server.host, server.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_lingering)
            connection.sendall(b"GET /default HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.recv(10)
        deadline = time.monotonic() + 30
        while not server.requests:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert 0 < server.requests[0].bytes_sent < 40_000 * 200
    assert caplog.messages == []
