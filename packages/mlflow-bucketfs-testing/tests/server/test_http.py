"""General HTTP behaviour: connections, framing, host names, old and unusual clients."""

from __future__ import annotations

import socket
from contextlib import nullcontext

import pytest
from mlflow_bucketfs_testing.server import BucketFSServer, IllegalNameError
from mlflow_bucketfs_testing.server.protocol import HostNames


def raw(server, request, *, timeout_s=5.0):
    """Send bytes; return all bytes received until the server closes or the timeout ends."""
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
    """Connections stay open, also after errors."""
    for path in ("/default/none", "/default", "/none", "/default/a//b"):
        client.get(path)
    client.ask("PUT", "/default/k", bytes(3_000_000), user="w", password="wrong")
    client.put("/default/k", b"1")
    assert len(server.requests) == 6
    assert server.requests.connections == 1


def test_continue_is_sent_before_the_body(server):
    """``Expect: 100-continue`` is answered before the body is read."""
    head = (
        b"PUT /default/k HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic dzp3cml0ZQ==\r\n"
        b"Expect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((server.host, server.port), timeout=60) as connection:
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"abc")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert server.read("k") == b"abc"


def test_refused_without_continue(server):
    """An unauthorized PUT with ``Expect: 100-continue`` gets 401 instead of 100."""
    head = (
        b"PUT /default/k HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        b"Content-Length: 3000000\r\n\r\n"
    )
    with socket.create_connection((server.host, server.port), timeout=60) as connection:
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_h2c_offer_is_ignored(server, caplog):
    """An offer to upgrade, as Java's client sends it, is ignored without a warning."""
    offer = (
        b"Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
    )
    put = (
        b"PUT /default/k HTTP/1.1\r\nAuthorization: Basic dzp3cml0ZQ==\r\n"
        b"Content-Length: 3\r\n" + offer + b"\r\nabc"
    )
    get = b"GET /default/k HTTP/1.1\r\n" + offer + b"\r\n"
    with socket.create_connection((server.host, server.port), timeout=60) as connection:
        connection.sendall(put)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        connection.sendall(get)
        response = b""
        while not response.endswith(b"\r\n\r\nabc"):
            response += connection.recv(1000)
    assert not caplog.records


def test_absolute_form_is_accepted(server):
    """A request in absolute form, as sent to a proxy, is answered in the same way."""
    server.put("k", b"abc")
    request = (
        b"GET http://localhost:1/default/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    assert raw(server, request).endswith(b"\r\n\r\nabc")


def test_old_protocol_version(server):
    """HTTP/1.0 clients get a body that is not chunked."""
    server.put("k", b"abc")
    assert raw(server, b"GET /default/k HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nabc")
    response = raw(server, b"GET /default HTTP/1.0\r\n\r\n")
    assert response.endswith(b"\r\n\r\nk\n")
    assert b"chunked" not in response


def test_garbage_is_400(server):
    """Bytes that are not HTTP are answered with 400."""
    assert raw(server, b"\x00\x01\x02 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")


NAMES_OF_THE_SERVER = [
    "localhost",
    "LocalHost:2580",
    "localhost.",
    "127.0.0.1",
    "127.3.2.1:80",
    "[::1]:2580",
]
FOREIGN_NAMES = [
    "rebound.example:{port}",
    "10.0.0.1",
    "exacluster.local",
    "localhost.evil.example",
    "",
    "[::2]",
]


@pytest.mark.parametrize("host", NAMES_OF_THE_SERVER)
def test_own_names_are_accepted(client, host):
    """A client on loopback may use every name of loopback, with any port."""
    assert client.get("/default", headers={"Host": host}).status == 200


@pytest.mark.parametrize("host", FOREIGN_NAMES)
def test_foreign_names_are_400(server, client, host):
    """A request with a foreign host name (DNS rebinding) is refused and changes nothing."""
    server.put("k", b"1")
    host = host.format(port=server.port)
    for method, path in [("GET", "/"), ("PUT", "/default/k"), ("DELETE", "/default/k")]:
        response = client.ask(method, path, b"", user="w", password="write", headers={"Host": host})
        assert response.status == 400
        assert f"400: {host!r} is not a host name of this server".encode() in response.body
        assert b"--allowed-host" in response.body
    assert server.requests.count(status=400) == 3
    assert server.read("k") == b"1"


def test_the_host_of_the_absolute_form_is_checked(server):
    """In absolute form, the URL's host is checked and not the header (RFC 9112, 3.2.2)."""
    for host, header, status in [
        ("localhost", "evil.example", 200),
        ("evil.example", "localhost", 400),
    ]:
        head = f"GET http://{host}/default HTTP/1.1\r\nHost: {header}\r\nConnection: close\r\n\r\n"
        assert raw(server, head.encode()).startswith(b"HTTP/1.1 %d " % status)


def test_more_names_can_be_given(connect):
    """Names with or without port, and patterns, are accepted besides the server's own names."""
    names = ["host.docker.internal", "*.example.com", "other:2580", "[2001:db8::1]:80"]
    expected = {
        **dict.fromkeys(
            ["host.docker.internal:1", "a.EXAMPLE.com", "other:2580", "localhost"], 200
        ),
        **dict.fromkeys(["[2001:db8::1]:80", "127.0.0.2"], 200),
        **dict.fromkeys(["example.com", "other", "2:80", "xhost.docker.internal"], 400),
    }
    with BucketFSServer(host="127.0.0.2", allowed_hosts=names) as server:
        client = connect(server)
        found = {name: client.get("/", headers={"Host": name}).status for name in expected}
    assert found == expected


@pytest.mark.parametrize(
    ("host", "local_address", "scheme", "accepted"),
    [
        ("172.17.0.1:2580", "172.17.0.1", "http", True),  # a container connects to its gateway
        ("172.17.0.1", "::ffff:172.17.0.1", "http", True),
        ("[fe80::1]", "fe80::1", "http", True),
        ("172.17.0.2", "172.17.0.1", "http", False),
        ("localhost", "172.17.0.1", "http", False),
        ("127.0.0.1", "::ffff:127.0.0.1", "http", True),
        ("exacluster.local:2581", "172.17.0.1", "https", True),
        ("exacluster.local:2581", "127.0.0.1", "http", False),
        (None, "172.17.0.1", "http", True),
    ],
)
def test_names_of_a_server_on_all_addresses(host, local_address, scheme, accepted):
    """A client may use the address it is connected to, and over HTTPS the certificate's name."""
    names = HostNames("::", "exacluster.local", ())
    with nullcontext() if accepted else pytest.raises(IllegalNameError, match="--allowed-host"):
        names.check(host, local_address, scheme)
