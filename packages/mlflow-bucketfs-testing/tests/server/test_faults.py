"""The effect of every fault on a client."""

from __future__ import annotations

import http.client
import socket
import time

import pytest
from mlflow_bucketfs_testing.server import Fault

BODY = bytes(range(256)) * 4000


def read_raw(server, request):
    """Send a request; return the received bytes, and whether the connection was reset."""
    received = b""
    with socket.create_connection((server.host, server.port), timeout=60) as connection:
        connection.sendall(request)
        try:
            while data := connection.recv(65536):
                received += data
        except ConnectionResetError:
            return received, True
    return received, False


GET = b"GET /default/k HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_status(server, client):
    """A status is sent ``times`` times, only to matching requests."""
    server.put("a/b/c", b"1")
    server.inject(Fault.status(503, times=2, method="GET", key="a/*", retry_after=7))
    assert client.get("/default").status == 200
    assert client.put("/default/a/b/c", b"2").status == 200
    response = client.get("/default/a/b/c")
    assert (response.status, response.headers["Retry-After"]) == (503, "7")
    assert client.get("/default/a/b/c").status == 503
    assert client.get("/default/a/b/c").body == b"2"
    assert len(server.faults) == 0


def test_status_without_limit(server, client):
    """``times=None`` hits all requests until the faults are cleared."""
    server.inject(Fault.status(500, times=None))
    assert [client.get("/default").status for _ in range(3)] == [500] * 3
    server.faults.clear()
    assert client.get("/default").status == 200


def test_a_fault_for_no_request(server, client):
    """``times=0`` hits no request, before and after other faults."""
    server.inject(Fault.status(503, times=0), Fault.status(500), Fault.status(503, times=0))
    assert [client.get("/default/").status for _ in range(3)] == [500, 200, 200]
    assert len(server.faults) == 0


@pytest.mark.parametrize(
    ("constructor", "numbers"),
    [
        (Fault.status, {"code": 503, "times": -1}),
        (Fault.status, {"code": 100}),
        (Fault.status, {"code": 1000}),
        (Fault.trickle, {"bytes_per_second": 0}),
        (Fault.truncate, {"after": -1}),
        (Fault.stall, {"seconds": -0.1}),
    ],
)
def test_numbers_out_of_range_are_refused(constructor, numbers):
    """The constructor of a fault refuses numbers that are out of range."""
    name, value = list(numbers.items())[-1]
    with pytest.raises(ValueError, match=f"{name}={value}: use "):
        constructor(**numbers)


def test_status_does_nothing_else(server, client):
    """A PUT or DELETE that a status fault hits has no effect; the connection stays open."""
    server.put("k", b"old")
    server.inject(Fault.status(429, times=2))
    assert client.put("/default/k", BODY).status == 429
    assert client.delete("/default/k").status == 429
    assert server.read("k") == b"old"
    assert server.requests.connections == 1


def test_redirect(server, client):
    """A redirect has the given ``Location`` header."""
    server.inject(Fault.status(302, location="http://elsewhere/"))
    response = client.get("/default")
    assert (response.status, response.headers["Location"]) == (302, "http://elsewhere/")


def test_first_matching_fault_hits(server, client):
    """Faults hit in the order of injection, and only if bucket, method and key match."""
    server.inject(
        Fault.status(500, bucket="private"),
        Fault.status(501, key=""),
        Fault.status(502, key="x[12]"),
        Fault.status(503),
    )
    assert client.get("/default").status == 501
    assert client.get("/default/x1").status == 502
    assert client.get("/default/x1").status == 503
    assert [fault.status_code for fault in server.faults] == [500]


def test_reset_before_body(server, client):
    """No byte of the response is sent, although the PUT was carried out."""
    server.inject(Fault.reset_before_body())
    with pytest.raises(ConnectionResetError):
        client.put("/default/k", BODY)
    assert server.read("k") == BODY
    server.inject(Fault.reset_before_body())
    assert read_raw(server, GET) == (b"", True)
    assert server.requests.count(status=None) == 2
    assert [record.status for record in server.requests] == [None, None]


@pytest.mark.parametrize("after", [0, 1, 1000, 900_000])
def test_reset_in_body(server, after):
    """The connection is reset after the given number of bytes."""
    server.put("k", BODY)
    server.inject(Fault.reset_in_body(after))
    received, reset = read_raw(server, GET)
    head, _, body = received.partition(b"\r\n\r\n")
    assert reset
    assert b"content-length: 1024000" in head
    assert body == BODY[:after]


@pytest.mark.parametrize("after", [0, 500_000, 2_000_000])
def test_reset_on_upload(server, client, after):
    """The connection is reset during the upload or at its end; nothing is stored."""
    server.inject(Fault.reset_on_upload(after))
    assert client.get("/default").status == 200
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        client.put("/default/k", BODY)
    assert server.keys() == []


@pytest.mark.parametrize("after", [0, 10, 900_000])
def test_truncate_with_length(server, client, after):
    """The connection is closed normally before the declared length."""
    server.put("k", BODY)
    server.inject(Fault.truncate(after))
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.get("/default/k")
    assert caught.value.partial == BODY[:after]


@pytest.mark.parametrize("after", [0, 10, 900_000])
def test_truncate_chunked(server, client, after):
    """The connection is closed without the last chunk."""
    server.put("k", BODY)
    server.inject(Fault.truncate(after, framing="chunked"))
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.get("/default/k")
    assert caught.value.partial == BODY[:after]


def test_truncate_unnoticed(server, client):
    """Without a declared length, the client does not detect the truncation."""
    server.put("k", BODY)
    server.inject(Fault.truncate(1000, framing="close"))
    response = client.get("/default/k")
    assert response.body == BODY[:1000]
    assert response.headers["Content-Length"] is response.headers["Transfer-Encoding"] is None


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_truncate_listing(server, client, framing):
    """A listing can be truncated too."""
    server.put_many((f"key{i}", b"") for i in range(3000))
    server.inject(Fault.truncate(20_000, framing=framing, key=""))
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.get("/default")
    assert len(caught.value.partial) == 20_000


@pytest.mark.parametrize("path", ["/default/k", "/default"])
def test_close_delimited(server, client, path):
    """The body is complete, and closing the connection ends it."""
    server.put("k", BODY)
    server.inject(Fault.close_delimited())
    response = client.get(path)
    assert response.headers["Content-Length"] is response.headers["Transfer-Encoding"] is None
    assert response.body == (BODY if path.endswith("k") else b"k\n")
    assert client.get(path).status == 200
    assert server.requests.connections == 2


@pytest.mark.parametrize("at", ["response", "body", "upload"])
def test_stall(server, client, at):
    """The server pauses for the given time, then continues."""
    server.put("k", b"1")
    server.inject(Fault.stall(0.4, at=at))
    started = time.monotonic()
    if at == "upload":
        assert client.put("/default/k", b"2").status == 200
    else:
        assert client.get("/default/k").body == b"1"
    assert time.monotonic() - started >= 0.4


def test_trickle(server, client):
    """The body is sent slowly and completely."""
    server.put("k", BODY[:5000])
    server.inject(Fault.trickle(10_000))
    started = time.monotonic()
    assert client.get("/default/k").body == BODY[:5000]
    assert time.monotonic() - started >= 0.4


def test_lose(server, client):
    """A PUT is answered with 200 and not stored."""
    server.put("k", b"old")
    server.inject(Fault.lose(key="k"))
    assert client.get("/default/k").body == b"old"
    assert client.put("/default/k", b"new").status == 200
    assert server.read("k") == b"old"
