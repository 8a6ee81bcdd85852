"""The request log, as tests read it."""

from __future__ import annotations

import http.client
import sys
import time
from dataclasses import replace


def test_request_log(server, client):
    """The log has each request with its user, its connection and its bytes; it can be cleared."""
    client.put("/default/a%20b", b"12345")
    client.get("/default/a%20b")
    client.get("/default/")
    put, get, listing = server.requests
    assert (put.method, put.bucket, put.key, put.user) == ("PUT", "default", "a b", "w")
    assert (put.path, put.status, put.bytes_received, put.bytes_sent) == (
        "/default/a%20b",
        200,
        5,
        0,
    )
    assert (get.bytes_received, get.bytes_sent, get.user) == (0, 5, None)
    assert (listing.key, listing.bytes_sent) == ("", 4)
    assert put.connection == get.connection
    assert 0 < put.duration_s < 60
    assert abs(put.started - time.time()) < 60
    requests = server.requests
    assert (len(requests), requests.count(), requests.connections, requests.listings) == (
        3,
        3,
        1,
        1,
    )
    assert requests.count(method="GET") == requests.count(key="a*", status=200) == 2
    assert [record.method for record in requests[1:]] == ["GET", "GET"]
    requests.clear()
    assert (len(requests), requests.connections) == (0, 0)
    client.get("/")
    assert (requests.connections, requests.listings) == (1, 0)


def test_request_log_is_bounded(server, client):
    """Only the latest 50,000 requests are kept."""
    client.get("/default/first")
    (first,) = server.requests
    for number in range(50_001):
        server.requests.add(replace(first, key=str(number)))
    assert len(server.requests) == 50_000
    assert (server.requests[0].key, server.requests[-1].key) == ("1", "50000")


def test_an_error_is_in_the_log_before_its_header_is_sent(server):
    """An error is logged before its header is sent, since many clients do not read its body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that the two threads can switch at any point
    try:
        for number in range(300):
            connection.request("GET", "/default/missing")
            with connection.getresponse() as response:
                assert len(server.requests) == number + 1
                assert response.status == 404
                assert len(response.read()) == server.requests[-1].bytes_sent
    finally:
        sys.setswitchinterval(interval)
        connection.close()
