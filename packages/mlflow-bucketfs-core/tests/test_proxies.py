"""Proxies from environment variables: their use, and the data that they get."""

from __future__ import annotations

import socket
import threading
import traceback
from contextlib import nullcontext, suppress
from functools import partial

import pytest
from mlflow_bucketfs_core import Bucket, ConnectionSettings
from mlflow_bucketfs_core.errors import (
    BucketFSError,
    ConfigurationError,
    ServerUnavailableError,
    TlsError,
)
from mlflow_bucketfs_core.http import pool

# more than the buffers of all sockets hold
LARGE_BYTES = 48 << 20
UNKNOWN = "exa+bfss://bucketfs.invalid/bfsdefault/default"


def test_an_http_proxy_is_used(server, settings, monkeypatch):
    """A host that only the proxy resolves is reached through it."""
    server.put("there", b"1")
    monkeypatch.setenv("HTTP_PROXY", server.url)
    bucket = Bucket("exa+bfs://bucketfs.invalid/bfsdefault/default", settings)
    assert bucket.keys() == ["there"]
    bucket.upload_bytes("a b#c", b"2")
    assert server.read("a b#c") == b"2"


def test_no_proxy_is_honoured(server, settings, monkeypatch):
    """Hosts in ``NO_PROXY`` are connected to directly."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "bucketfs.invalid,127.0.0.1")
    with pytest.raises(ServerUnavailableError, match="does not resolve"):
        Bucket("exa+bfs://bucketfs.invalid/bfsdefault/default", settings).keys()
    assert server.requests.connections == 0


def connect_by_http(client):
    """Answer CONNECT, and return the request."""
    asked = client.recv(65536)
    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    return asked


def connect_by_socks(client):
    """Answer a SOCKS5 client (RFC 1928), and return its request."""
    client.recv(65536)
    client.sendall(b"\x05\x00")  # without a password
    asked = client.recv(65536)
    client.sendall(b"\x05\x00\x00\x01" + bytes(6))  # connected
    return asked


@pytest.fixture
def tunnel(server):
    """Start a proxy to the server's HTTPS port, for CONNECT or for SOCKS.

    With an event to hold, it stops reading for five seconds within the first large upload.
    """
    asked = []
    held = []
    threads = []

    def pump(source, target):
        passed = 0
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                passed += len(data)
                if held and passed > (1 << 20):
                    held.pop().wait(5)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def serve(client, connect):
        with client, socket.create_connection(("127.0.0.1", server.tls_port)) as target:
            asked.append(connect(client))
            back = threading.Thread(target=pump, args=(target, client))
            back.start()
            pump(client, target)
            back.join()

    def accept(connect):
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(client, connect), daemon=True))
                threads[-1].start()

    def make(connect, hold=None):
        held.extend([hold] if hold else [])
        threads.append(threading.Thread(target=accept, args=(connect,)))
        threads[-1].start()
        return f"127.0.0.1:{listener.getsockname()[1]}", asked

    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield make
        listener.shutdown(socket.SHUT_RDWR)
    threads[0].join()


def test_an_https_proxy_is_a_tunnel(server, settings, monkeypatch, tunnel):
    """The proxy gets host and port, without password and key; TLS settings still apply."""
    proxy, asked = tunnel(connect_by_http)
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy}")
    variables = {
        "EXA_BUCKETFS_PASSWORD": "write",
        "EXA_BUCKETFS_CERT_FINGERPRINT": server.certificate_fingerprint,
    }
    bucket = Bucket(UNKNOWN, ConnectionSettings.from_env(variables))
    bucket.upload_bytes("tunnelled", b"1")
    assert server.keys() == ["tunnelled"]
    assert asked[0].startswith(b"CONNECT bucketfs.invalid:2581 HTTP/1.")
    assert b"authorization" not in asked[0].lower()
    with pytest.raises(BucketFSError, match="not the one in EXA_BUCKETFS_CERT_FINGERPRINT"):
        Bucket(UNKNOWN, ConnectionSettings(cert_fingerprint="0" * 64)).keys()
    with pytest.raises(BucketFSError, match="self-signed"):
        Bucket(UNKNOWN, settings).keys()


@pytest.mark.parametrize(
    ("options", "trusted"),
    [
        (lambda server: {"cert_fingerprint": server.certificate_fingerprint}, True),
        (lambda _: {"cert_fingerprint": "0" * 64}, False),
        (
            lambda server: {
                "ca_bundle": str(server.certificate_file),
                "tls_hostname": "exacluster.local",
            },
            True,
        ),
        (lambda server: {"ca_bundle": str(server.certificate_file)}, False),
        (lambda _: {}, False),
    ],
    ids=["fingerprint", "other fingerprint", "name", "other name", "unknown"],
)
def test_certificates_are_verified_through_a_socks_proxy(
    server, monkeypatch, tunnel, options, trusted
):
    """The password is sent only to a server with a trusted certificate."""
    proxy, asked = tunnel(connect_by_socks)
    monkeypatch.setenv("ALL_PROXY", f"socks5h://{proxy}")
    bucket = Bucket(UNKNOWN, ConnectionSettings(password="write", **options(server)))
    with nullcontext() if trusted else pytest.raises(TlsError):
        bucket.upload_bytes("tunnelled", b"1")
    assert server.keys() == ["tunnelled"] * trusted
    assert b"bucketfs.invalid" in asked[0]


@pytest.mark.parametrize(
    ("scheme", "connect"), [("socks5h", connect_by_socks), ("http", connect_by_http)]
)
def test_a_proxy_may_pause_within_an_upload(server, monkeypatch, tunnel, scheme, connect):
    """Sending has the idle timeout, not the short one for connecting."""
    monkeypatch.setattr(pool, "Timeouts", partial(pool.Timeouts, connect_s=2.0))
    proxy, _ = tunnel(connect, hold=threading.Event())
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://{proxy}")
    pinned = {"cert_fingerprint": server.certificate_fingerprint}
    bucket = Bucket(UNKNOWN, ConnectionSettings(password="write", max_retries=0, **pinned))
    bucket.upload_bytes("large", bytes(LARGE_BYTES))
    assert server.keys() == ["large"]


@pytest.mark.parametrize(
    ("proxy", "error"),
    [
        pytest.param("http://user:Geheim@127.0.0.1:1", ServerUnavailableError, id="nobody"),
        pytest.param("http://user:Geheim@127.0.0.1:99999", ConfigurationError, id="bad-port"),
        pytest.param("http://user:Geheim@[x", ConfigurationError, id="bad-host"),
        pytest.param("http://", ConfigurationError, id="no-host"),
    ],
)
def test_a_bad_proxy_is_reported_without_its_password(server, settings, monkeypatch, proxy, error):
    """The error of a bad proxy names the variables, without the proxy's password."""
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(error, match="HTTP_PROXY") as caught:
        Bucket(server.uri(), settings).keys()
    assert "Geheim" not in "".join(traceback.format_exception(caught.value))
