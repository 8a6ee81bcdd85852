"""HTTP as any server must speak it: connections, framing, old and odd clients."""

from __future__ import annotations

import socket


def raw(server, request, *, timeout_s=5.0):
    """Send bytes, return all bytes that come until the server closes or is silent."""
    received = b""
    with socket.create_connection((server.host, server.port), timeout=timeout_s) as connection:
        connection.sendall(request)
        try:
            while data := connection.recv(65536):
                received += data
        except TimeoutError:
            pass
    return received


def test_one_connection_serves_many_requests(server, client):
    """Connections are kept, also after errors."""
    for path in ("/default/none", "/default", "/none", "/default/a//b"):
        client.get(path)
    client.ask("PUT", "/default/k", bytes(3_000_000), user="w", password="wrong")
    client.put("/default/k", b"1")
    assert len(server.requests) == 6
    assert server.requests.connections == 1


def test_continue_is_sent_before_the_body(server):
    """``Expect: 100-continue`` is answered, then the body is taken."""
    head = (
        b"PUT /default/k HTTP/1.1\r\nHost: x\r\nAuthorization: Basic dzp3cml0ZQ==\r\n"
        b"Expect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"abc")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert server.read("k") == b"abc"


def test_refused_without_continue(server):
    """Who may not write is told so instead of being asked to send the body."""
    head = (
        b"PUT /default/k HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Content-Length: 3000000\r\n\r\n"
    )
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_h2c_offer_is_ignored(server, caplog):
    """An offer to upgrade, as Java's client makes, is ignored without a word."""
    offer = (
        b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
    )
    put = (
        b"PUT /default/k HTTP/1.1\r\nAuthorization: Basic dzp3cml0ZQ==\r\n"
        b"Content-Length: 3\r\n" + offer + b"\r\nabc"
    )
    get = b"GET /default/k HTTP/1.1\r\n" + offer + b"\r\n"
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(put)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        connection.sendall(get)
        answer = b""
        while not answer.endswith(b"\r\n\r\nabc"):
            answer += connection.recv(1000)
    assert not caplog.records


def test_absolute_form_is_accepted(server):
    """A request as sent to a proxy means the same."""
    server.put("k", b"abc")
    request = b"GET http://x:1/default/k HTTP/1.1\r\nHost: x:1\r\nConnection: close\r\n\r\n"
    assert raw(server, request).endswith(b"\r\n\r\nabc")


def test_old_protocol_version(server):
    """HTTP/1.0 clients get a body that ends with the connection."""
    server.put("k", b"abc")
    assert raw(server, b"GET /default/k HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nabc")
    answer = raw(server, b"GET /default HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nk\n")
    assert b"chunked" not in answer


def test_garbage_is_400(server):
    """What is not HTTP is refused, and the server stays up."""
    assert raw(server, b"\x00\x01\x02 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
