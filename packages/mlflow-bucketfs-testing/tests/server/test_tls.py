"""The HTTPS listener and its two certificates."""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
import subprocess
from contextlib import suppress

import pytest
from mlflow_bucketfs_testing.server import BucketFSServer


def get_over_tls(server, hostname, *, address="127.0.0.1", flags=None):
    """Send GET / with full verification; return status and the certificate's fingerprint."""
    context = ssl.create_default_context(cafile=server.certificate_file)
    if flags:
        context.verify_flags |= flags
    with (
        socket.create_connection((address, server.tls_port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=hostname) as encrypted,
    ):
        encrypted.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        response = http.client.HTTPResponse(encrypted)
        response.begin()
        certificate = encrypted.getpeercert(binary_form=True)
        return response.status, hashlib.sha256(certificate).hexdigest()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("name", "hostnames"),
    [("exacluster.local", ["exacluster.local"]), ("localhost", ["localhost", "127.0.0.1", "::1"])],
)
def test_certificate_is_accepted(name, hostnames, strict):
    """Verification succeeds for the certificate's names, also with strict rules."""
    with BucketFSServer(tls_port=0, tls_certificate=name) as server:
        for hostname in hostnames:
            flags = ssl.VERIFY_X509_STRICT if strict else None
            response = get_over_tls(server, hostname, flags=flags)
            assert response == (200, server.certificate_fingerprint)
        assert server.tls_url == f"https://127.0.0.1:{server.tls_port}"
        assert server.tls_uri(path="m/x").endswith(f":{server.tls_port}/bfsdefault/default/m/x")


def test_certificate_of_another_name():
    """Verification fails for another host name than that of the certificate."""
    with (
        BucketFSServer(tls_port=0) as server,
        pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
    ):
        get_over_tls(server, "localhost")


def test_certificate_is_unknown():
    """Verification fails if the client does not trust the certificate's file."""
    with (
        BucketFSServer(tls_port=0) as server,
        socket.create_connection(("127.0.0.1", server.tls_port), timeout=60) as plain,
        pytest.raises(ssl.SSLCertVerificationError, match="self-signed"),
    ):
        ssl.create_default_context().wrap_socket(plain, server_hostname="exacluster.local")


def test_openssl_verifies_strictly():
    """OpenSSL's strict check accepts the certificate as its own trust anchor."""
    with BucketFSServer(tls_port=0) as server:
        file = str(server.certificate_file)
        command = ["openssl", "verify", "-x509_strict", "-CAfile", file, file]
        subprocess.run(command, check=True, capture_output=True)
        assert (server.certificate_file.parent / "private-key.pem").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "request_line", [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"x" * 1000]
)
def test_plain_http_on_the_tls_port(request_line):
    """A plain HTTP connection is closed without a response, and the next client is served."""
    with BucketFSServer(tls_port=0) as server:
        with socket.create_connection(("127.0.0.1", server.tls_port), timeout=60) as connection:
            connection.sendall(request_line)
            with suppress(ConnectionResetError):
                assert connection.recv(100) == b""
        assert get_over_tls(server, "exacluster.local")[0] == 200


def test_stop_during_handshake(capfd):
    """Clients that connect and send nothing neither delay the stop nor cause output."""
    with BucketFSServer(tls_port=0) as server:
        silent = [
            socket.create_connection(("127.0.0.1", port), timeout=60)
            for port in (server.port, server.tls_port)
        ]
        assert get_over_tls(server, "exacluster.local")[0] == 200
    for connection in silent:
        assert connection.recv(10) == b""
        connection.close()
    assert capfd.readouterr() == ("", "")


def test_no_listener():
    """Without an HTTPS listener, its attributes raise an error with the remedy."""
    with BucketFSServer() as server:
        for attribute in ("tls_port", "tls_url", "certificate_file", "certificate_fingerprint"):
            with pytest.raises(RuntimeError, match="pass tls_port"):
                getattr(server, attribute)
    with pytest.raises(ValueError, match="choose one of exacluster"):
        BucketFSServer(tls_port=0, tls_certificate="example.org").start()
