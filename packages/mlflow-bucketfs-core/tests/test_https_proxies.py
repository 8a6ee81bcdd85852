"""Proxies over HTTPS, whose certificates are verified."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress

import pytest
from mlflow_bucketfs_core import Bucket, ConnectionSettings
from mlflow_bucketfs_core.errors import TlsError
from mlflow_bucketfs_testing.server.tls import generate_certificate

URIS = ["exa+bfs://bucketfs.invalid/s/default", "exa+bfss://bucketfs.invalid/s/default"]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Self-signed certificates by the name that they are for."""
    return {
        name: generate_certificate(name, tmp_path_factory.mktemp(name))
        for name in ("localhost", "exacluster.local")
    }


def relay(secured, target):
    """Forward bytes in both directions, until one side ends."""
    with suppress(OSError):
        while True:
            both = [secured, target]
            for source in [secured] if secured.pending() else select.select(both, [], [])[0]:
                data = source.recv(65536)
                if not data:
                    return
                (target if source is secured else secured).sendall(data)


@pytest.fixture
def start_proxy(server, certificates, monkeypatch):
    """Start a proxy that connects to the server, and set its URL in the environment.

    Returns the first bytes of each of its connections.
    """
    asked = []
    threads = []
    connections = []

    def serve(client, context):
        with client, suppress(OSError):
            secured = context.wrap_socket(client, server_side=True)
            connections.append(secured)
            with secured:
                asked.append(secured.recv(65536))
                is_tunnel = asked[-1].startswith(b"CONNECT")
                port = server.tls_port if is_tunnel else server.port
                with socket.create_connection(("127.0.0.1", port)) as target:
                    if is_tunnel:
                        secured.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    else:
                        target.sendall(asked[-1])
                    relay(secured, target)

    def accept(context):
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(client, context)))
                threads[-1].start()

    def start(name="localhost"):
        context = certificates[name].server_context()
        threads.append(threading.Thread(target=accept, args=(context,)))
        threads[0].start()
        for variable in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(variable, f"https://127.0.0.1:{listener.getsockname()[1]}")
        return asked

    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield start
        listener.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()


@pytest.fixture
def bundle(server, certificates, tmp_path):
    """The certificates of the proxy and the server in one file."""
    files = [certificates["localhost"].file, server.certificate_file]
    (tmp_path / "bundle.pem").write_bytes(b"".join(file.read_bytes() for file in files))
    return str(tmp_path / "bundle.pem")


@pytest.mark.parametrize("uri", URIS)
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "EXA_BUCKETFS_CA_BUNDLE"])
def test_a_trusted_proxy_is_used(bundle, start_proxy, monkeypatch, uri, variable):
    """The authority of a proxy may be in either CA bundle."""
    asked = start_proxy()
    monkeypatch.setenv(variable, bundle)
    monkeypatch.setenv("EXA_BUCKETFS_TLS_HOSTNAME", "exacluster.local")
    bucket = Bucket(uri, ConnectionSettings.from_env())
    assert bucket.keys() == []
    assert not bucket.exists("x")
    assert len(asked) == 1


@pytest.mark.parametrize("uri", URIS)
@pytest.mark.parametrize("pinned", [False, True], ids=["", "pinned"])
def test_an_untrusted_proxy_is_refused(server, start_proxy, uri, pinned):
    """An untrusted proxy gets no request, whether or not BucketFS's certificate is pinned."""
    asked = start_proxy()
    pin = {"cert_fingerprint": server.certificate_fingerprint} if pinned else {}
    bucket = Bucket(uri, ConnectionSettings(password="write", **pin))
    with pytest.raises(TlsError, match=r"self-signed.*REQUESTS_CA_BUNDLE"):
        bucket.upload_bytes("x", b"1")
    assert asked == []


@pytest.mark.parametrize("uri", URIS)
def test_a_proxy_with_another_name_is_refused(server, certificates, start_proxy, monkeypatch, uri):
    """The host name in the settings is not accepted for the proxy."""
    asked = start_proxy("exacluster.local")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates["exacluster.local"].file))
    settings = ConnectionSettings(
        tls_hostname="exacluster.local", cert_fingerprint=server.certificate_fingerprint
    )
    with pytest.raises(TlsError, match="REQUESTS_CA_BUNDLE"):
        Bucket(uri, settings).keys()
    assert asked == []


@pytest.mark.parametrize("uri", URIS)
def test_verification_of_proxies_can_be_switched_off(start_proxy, uri):
    """``EXA_SSL_CERT_VALIDATION=no`` applies to proxies, too."""
    asked = start_proxy()
    assert Bucket(uri, ConnectionSettings(verify_tls=False)).keys() == []
    assert len(asked) == 1
