"""Every fault, as a client sees it."""

from __future__ import annotations

import http.client
import socket
import time

import pytest
from mlflow_bucketfs_testing.server import Fault

BODY = bytes(range(256)) * 4000


def read_raw(server, request):
    """Send a request; returns what came, and whether it ended in a reset."""
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
    """A status is sent as often as asked, to matching requests only."""
    server.put("a/b/c", b"1")
    server.inject(Fault.status(503, times=2, method="GET", key="a/*", retry_after=7))
    assert client.get("/default").status == 200
    assert client.put("/default/a/b/c", b"2").status == 200
    answer = client.get("/default/a/b/c")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
    assert client.get("/default/a/b/c").status == 503
    assert client.get("/default/a/b/c").body == b"2"
    assert len(server.faults) == 0


def test_status_for_good(server, client):
    """``times=None`` lasts until the faults are cleared."""
    server.inject(Fault.status(500, times=None))
    assert [client.get("/default").status for _ in range(3)] == [500] * 3
    server.faults.clear()
    assert client.get("/default").status == 200


def test_a_fault_for_no_request(server, client):
    """``times=0``, a test's case without failures, hits nothing, before and after other faults."""
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
def test_numbers_without_a_meaning_are_refused(constructor, numbers):
    """A wrong number is an error where the fault is made, not an odd answer later."""
    name, value = list(numbers.items())[-1]
    with pytest.raises(ValueError, match=f"{name}={value}: use "):
        constructor(**numbers)


def test_status_does_nothing_else(server, client):
    """A PUT or DELETE answered so has not been carried out; the connection stays usable."""
    server.put("k", b"old")
    server.inject(Fault.status(429, times=2))
    assert client.put("/default/k", BODY).status == 429
    assert client.delete("/default/k").status == 429
    assert server.read("k") == b"old"
    assert server.requests.connections == 1


def test_redirect(server, client):
    """A redirect has its location."""
    server.inject(Fault.status(302, location="http://elsewhere/"))
    answer = client.get("/default")
    assert (answer.status, answer.headers["Location"]) == (302, "http://elsewhere/")


def test_first_matching_fault_strikes(server, client):
    """Faults strike in the order of injection, and only where bucket, method and key match."""
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
    """Not a byte is sent, although the PUT was carried out."""
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
    """So many bytes come, then a reset."""
    server.put("k", BODY)
    server.inject(Fault.reset_in_body(after))
    received, reset = read_raw(server, GET)
    head, _, body = received.partition(b"\r\n\r\n")
    assert reset
    assert b"content-length: 1024000" in head
    assert body == BODY[:after]


@pytest.mark.parametrize("after", [0, 500_000, 2_000_000])
def test_reset_on_upload(server, client, after):
    """The connection is reset while the body is sent, or at its end; nothing is stored."""
    server.inject(Fault.reset_on_upload(after))
    assert client.get("/default").status == 200
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        client.put("/default/k", BODY)
    assert server.keys() == []


@pytest.mark.parametrize("after", [0, 10, 900_000])
def test_truncate_with_length(server, client, after):
    """The connection is closed in good order before the announced length."""
    server.put("k", BODY)
    server.inject(Fault.truncate(after))
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.get("/default/k")
    assert caught.value.partial == BODY[:after]


@pytest.mark.parametrize("after", [0, 10, 900_000])
def test_truncate_chunked(server, client, after):
    """The last chunk never comes."""
    server.put("k", BODY)
    server.inject(Fault.truncate(after, framing="chunked"))
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.get("/default/k")
    assert caught.value.partial == BODY[:after]


def test_truncate_unnoticed(server, client):
    """Without any length the client cannot know."""
    server.put("k", BODY)
    server.inject(Fault.truncate(1000, framing="close"))
    answer = client.get("/default/k")
    assert answer.body == BODY[:1000]
    assert answer.headers["Content-Length"] is answer.headers["Transfer-Encoding"] is None


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_truncate_listing(server, client, framing):
    """A listing can be cut off too."""
    server.put_many((f"key{i}", b"") for i in range(3000))
    server.inject(Fault.truncate(20_000, framing=framing, key=""))
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.get("/default")
    assert len(caught.value.partial) == 20_000


@pytest.mark.parametrize("path", ["/default/k", "/default"])
def test_close_delimited(server, client, path):
    """The complete body ends with the connection."""
    server.put("k", BODY)
    server.inject(Fault.close_delimited())
    answer = client.get(path)
    assert answer.headers["Content-Length"] is answer.headers["Transfer-Encoding"] is None
    assert answer.body == (BODY if path.endswith("k") else b"k\n")
    assert client.get(path).status == 200
    assert server.requests.connections == 2


@pytest.mark.parametrize("at", ["response", "body", "upload"])
def test_stall(server, client, at):
    """The server falls silent, then carries on."""
    server.put("k", b"1")
    server.inject(Fault.stall(0.4, at=at))
    started = time.monotonic()
    if at == "upload":
        assert client.put("/default/k", b"2").status == 200
    else:
        assert client.get("/default/k").body == b"1"
    assert time.monotonic() - started >= 0.4


def test_trickle(server, client):
    """The body comes slowly, complete."""
    server.put("k", BODY[:5000])
    server.inject(Fault.trickle(10_000))
    started = time.monotonic()
    assert client.get("/default/k").body == BODY[:5000]
    assert time.monotonic() - started >= 0.4


def test_lose(server, client):
    """200, and nothing is stored."""
    server.put("k", b"old")
    server.inject(Fault.lose(key="k"))
    assert client.get("/default/k").body == b"old"
    assert client.put("/default/k", b"new").status == 200
    assert server.read("k") == b"old"
