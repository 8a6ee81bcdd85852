"""The HTTPS listener and its two certificates."""

from __future__ import annotations

import datetime as dt
import hashlib
import http.client
import socket
import ssl
import subprocess
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from mlflow_bucketfs_testing.server import BucketFSServer
from mlflow_bucketfs_testing.server.tls import generate_certificate


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


def test_certificate_is_kept_in_the_data_directory(tmp_path):
    """A later server has the same certificate, whose key only the owner can read."""
    key_file = tmp_path / "private-key.pem"
    fingerprints = set()
    for _ in range(2):
        with BucketFSServer(tls_port=0, data_dir=tmp_path) as server:
            assert key_file.stat().st_mode & 0o777 == 0o600
            fingerprints.add(get_over_tls(server, "exacluster.local")[1])
        key_file.chmod(0o644)  # as a copy of the directory may have it
    assert len(fingerprints) == 1


def test_refused_server_keeps_the_certificate(tmp_path):
    """A second server in the same directory is refused, and does not replace the certificate."""
    with BucketFSServer(tls_port=0, data_dir=tmp_path) as server:
        before = server.certificate_file.read_bytes()
        second = BucketFSServer(tls_port=0, data_dir=tmp_path, tls_certificate="localhost")
        with pytest.raises(OSError, match="in use by another embedded BucketFS"):
            second.start()
        assert server.certificate_file.read_bytes() == before


def expire(directory):
    """Replace the certificate by one of the same key that expired yesterday."""
    file = directory / "certificate.pem"
    old = x509.load_pem_x509_certificate(file.read_bytes())
    key_file = directory / "private-key.pem"
    key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    now = dt.datetime.now(dt.timezone.utc)
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), old.serial_number, extensions=[*old.extensions]
    )
    builder = builder.not_valid_before(now - dt.timedelta(days=2))
    expired = builder.not_valid_after(now - dt.timedelta(days=1)).sign(key, hashes.SHA256())
    file.write_bytes(expired.public_bytes(serialization.Encoding.PEM))


def exchange_key(directory):
    """Replace the key by that of another certificate."""
    other = directory / "other"
    other.mkdir()
    generate_certificate("exacluster.local", other).key_file.replace(directory / "private-key.pem")


@pytest.mark.parametrize(
    "damage",
    [
        expire,
        exchange_key,
        lambda directory: (directory / "private-key.pem").unlink(),
        lambda directory: (directory / "private-key.pem").write_bytes(b""),
        lambda directory: (directory / "certificate.pem").write_bytes(b"x"),
        lambda directory: generate_certificate("localhost", directory),
    ],
    ids=["expired", "other key", "no key", "empty key", "no certificate", "other name"],
)
def test_unusable_certificate_is_replaced(tmp_path, damage):
    """A certificate that clients would refuse, or that has no key, is replaced at the start."""
    generate_certificate("exacluster.local", tmp_path)
    damage(tmp_path)
    with BucketFSServer(tls_port=0, data_dir=tmp_path) as server:
        response = get_over_tls(server, "exacluster.local")
        assert response == (200, server.certificate_fingerprint)


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
