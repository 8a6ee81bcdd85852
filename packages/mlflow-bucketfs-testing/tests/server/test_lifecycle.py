"""Start and stop of the server, its addresses and its output."""

from __future__ import annotations

import gc
import http.client
import socket
import subprocess
import sys
import threading
import time

import pytest
from mlflow_bucketfs_testing.server import (
    BucketConfig,
    BucketFSServer,
    Fault,
    PortInUseError,
    Profile,
)


def test_addresses():
    """The server returns its URLs and URIs."""
    with BucketFSServer((BucketConfig("one"), BucketConfig("two")), service="svc") as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert server.uri() == f"exa+bfs://127.0.0.1:{server.port}/svc/one"
        assert server.uri("two", "a/b") == f"exa+bfs://127.0.0.1:{server.port}/svc/two/a/b"


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6(connect):
    """An IPv6 address is bracketed in URL and URI."""
    with BucketFSServer(host="::1") as server:
        assert server.url == f"http://[::1]:{server.port}"
        assert server.uri() == f"exa+bfs://[::1]:{server.port}/bfsdefault/default"
        assert connect(server).get("/").status == 200


def test_all_addresses():
    """The URL of a server on all addresses is a loopback URL."""
    with BucketFSServer(host="0.0.0.0") as server:  # noqa: S104 -- the tested address
        assert server.url == f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("which", ["port", "tls_port"])
def test_busy_port(which, tmp_path):
    """The error for a busy port contains port and remedy, and the data directory is released."""
    with BucketFSServer() as first:
        second = BucketFSServer(**{which: first.port}, data_dir=tmp_path / "data")
        with pytest.raises(PortInUseError, match=rf"127\.0\.0\.1:{first.port} .*\(0 picks a free"):
            second.start()
        second.stop()
    with BucketFSServer(data_dir=tmp_path / "data") as server:
        assert server.keys() == []


def test_port_is_free_again():
    """The port of a stopped server is free at once, even with old connections."""
    with BucketFSServer() as first:
        connection = http.client.HTTPConnection("127.0.0.1", first.port, timeout=60)
        connection.request("GET", "/")
        connection.getresponse().read()
        port = first.port
    with BucketFSServer(port=port) as second:
        assert second.port == port
    connection.close()


def test_wrong_use():
    """Invalid arguments, and calls in the wrong state, are refused with a reason."""
    server = BucketFSServer()
    with pytest.raises(RuntimeError, match="not running"):
        server.put("k", b"")
    server.stop()
    with server, pytest.raises(RuntimeError, match="running already"):
        server.start()
    with pytest.raises(ValueError, match="one or more"):
        BucketFSServer(())
    with pytest.raises(ValueError, match="one or more"):
        BucketFSServer((BucketConfig("a"), BucketConfig("a")))
    with pytest.raises(ValueError, match="not a bucket name"):
        BucketConfig("a/b")
    with pytest.raises(ValueError, match="not a service name"):
        BucketFSServer(service="..")
    with pytest.raises(ValueError, match="choose one of instant, docker-db"):
        BucketFSServer(profile="fast")


def test_restart():
    """A stopped server without a data directory can be started again, and is empty."""
    server = BucketFSServer()
    for _ in range(2):
        with server:
            assert server.keys() == []
            server.put("k", b"1")


def test_passwords_are_not_shown(server, client):
    """No password is in the request log or in a ``repr``."""
    client.get("/private", user="secret-user", password="secret-password")
    assert "secret-password" not in repr(list(server.requests)) + repr(server.requests)
    assert server.requests[-1].user == "secret-user"
    config = BucketConfig("default")
    assert config.write_password == "write"
    assert repr((config, config.write_password, config.read_password)) == (
        "(BucketConfig(name='default', public=True), '***', '***')"
    )


def test_stop_aborts_all_requests(capfd):
    """Idle, stalled, hanging and partial requests do not delay the stop."""
    threads = threading.active_count()
    with BucketFSServer(file_in_the_way="hang", profile=Profile(put_floor_s=60)) as server:
        server.put_many([("k", bytes(20_000_000)), ("d", b"")])
        server.inject(Fault.stall(3600, key="k"), Fault.stall(3600, at="body", key="k"))
        put = b"PUT /default/%b HTTP/1.1\r\nAuthorization: Basic dzp3cml0ZQ==\r\n"
        requests = [
            b"",
            b"GET / HT",
            b"GET /default/k HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /default/k HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /default/k HTTP/1.1\r\nHost: localhost\r\n\r\n",
            (put % b"d/x") + b"Host: localhost\r\nContent-Length: 0\r\n\r\n",
            (put % b"e") + b"Host: localhost\r\nContent-Length: 9000000\r\n\r\n" + bytes(3_000_000),
        ]
        connections = []
        for request in requests:
            connections.append(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            connections[-1].sendall(request)
        time.sleep(0.3)
        directory = server.mount_root.parent
    for connection in connections:
        connection.close()
    assert threading.active_count() == threads
    assert not directory.exists()
    assert capfd.readouterr() == ("", "")


def test_nothing_is_printed():
    """Requests, errors and the stop write nothing to the console, also without logging set up."""
    script = """
import socket
from mlflow_bucketfs_testing.server import BucketFSServer, Fault
with BucketFSServer(tls_port=0) as server:
    server.put("k", bytes(100000))
    server.inject(Fault.reset_in_body(10), Fault.truncate(10), Fault.truncate(10, framing="close"))
    get = b"GET /default/k HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"
    for request in [get, get, get, b"?\\r\\n\\r\\n"]:
        for port in (server.port, server.tls_port):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(request)
                try:
                    while connection.recv(100000):
                        pass
                except ConnectionResetError:
                    pass
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_client_packages_are_not_imported():
    """The server does not import the client packages."""
    script = """
import sys, mlflow_bucketfs_testing.server
print([name for name in sys.modules
       if name.split(".")[0] in {"mlflow", "mlflow_bucketfs_core", "mlflow_bucketfs_plugin"}])
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_client_that_connects_while_the_server_stops(recwarn):
    """Connections that are accepted during the stop are closed without a warning."""
    for _ in range(100):
        with BucketFSServer() as server:
            clients = [socket.create_connection((server.host, server.port)) for _ in range(3)]
        for client in clients:
            client.close()
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []
