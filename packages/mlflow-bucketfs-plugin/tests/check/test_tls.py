"""Tests of ``mlflow-bucketfs check``: certificates."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from contextlib import contextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings
from mlflow_bucketfs_plugin.check.tls import (
    Certificate,
    presented_certificate,
    refused_finding,
)


def users_of(server):
    """Return the users whose password was sent."""
    return {record.user for record in server.requests} - {None}


def test_http_spoken_to_the_tls_port(server, check):
    """Plain HTTP to the HTTPS port is recognised, and the URI to use is reported."""
    checked = check(server.tls_uri().replace("exa+bfss", "exa+bfs"))
    assert checked.names("failed") == ["service"]
    assert checked["service"]["remedy"] == f"Use {server.tls_uri()}"


def test_https_spoken_to_the_http_port(server, check):
    """HTTPS to the HTTP port is recognised without sending the password in the clear."""
    checked = check(server.uri().replace("exa+bfs", "exa+bfss"))
    assert checked.names("failed") == ["tls"]
    assert checked["tls"]["remedy"] == f"Use {server.uri()}"
    assert users_of(server) == set()


def test_self_signed_certificate(server, check):
    """The names in the certificate, its fingerprint and the variables to set are reported."""
    checked = check(server.tls_uri())
    assert checked.names("failed") == ["tls"]
    tls = checked["tls"]
    assert tls["details"]["names"] == ["exacluster.local"]
    assert tls["details"]["issuer"] == "commonName=exacluster.local"
    certificate = x509.load_pem_x509_certificate(server.certificate_file.read_bytes())
    assert tls["details"]["not_after"] == str(certificate.not_valid_after_utc.date())
    fingerprint = tls["details"]["sha256"]
    assert fingerprint.replace(":", "").lower() == server.certificate_fingerprint
    assert "openssl x509" in tls["remedy"]
    assert f"EXA_BUCKETFS_CERT_FINGERPRINT={fingerprint}" in tls["remedy"]
    assert "EXA_BUCKETFS_CA_BUNDLE=" in tls["remedy"]
    assert "EXA_BUCKETFS_TLS_HOSTNAME=exacluster.local" in tls["remedy"]
    assert users_of(server) == set()


def test_remedies_for_a_self_signed_certificate_work(server, check):
    """Both remedies that the check proposes make it pass."""
    fingerprint = check(server.tls_uri())["tls"]["details"]["sha256"]
    pinned = check(server.tls_uri(), EXA_BUCKETFS_CERT_FINGERPRINT=fingerprint)
    assert pinned.exit_code == 0
    assert "FINGERPRINT" in pinned["tls"]["summary"]
    trusted = check(
        server.tls_uri(),
        EXA_BUCKETFS_CA_BUNDLE=str(server.certificate_file),
        EXA_BUCKETFS_TLS_HOSTNAME="exacluster.local",
    )
    assert trusted.exit_code == 0
    assert "CA_BUNDLE" in trusted["tls"]["summary"]


def test_wrong_host_name(server, check):
    """The only remedy for a trusted certificate with another name is EXA_BUCKETFS_TLS_HOSTNAME."""
    checked = check(server.tls_uri(), EXA_BUCKETFS_CA_BUNDLE=str(server.certificate_file))
    assert checked.names("failed") == ["tls"]
    remedy = checked["tls"]["remedy"]
    assert remedy.endswith("EXA_BUCKETFS_TLS_HOSTNAME=exacluster.local")
    assert "FINGERPRINT" not in remedy
    assert users_of(server) == set()


def test_wrong_fingerprint(server, check):
    """A certificate other than the pinned one is reported with its own fingerprint."""
    checked = check(server.tls_uri(), EXA_BUCKETFS_CERT_FINGERPRINT="ab" * 32)
    assert checked.names("failed") == ["tls"]
    fingerprint = checked["tls"]["details"]["sha256"]
    assert f"EXA_BUCKETFS_CERT_FINGERPRINT={fingerprint}" in checked["tls"]["remedy"]
    assert users_of(server) == set()


def test_missing_ca_bundle(server, check):
    """A missing CA bundle is reported as missing, not as a bad certificate."""
    checked = check(server.tls_uri(), EXA_BUCKETFS_CA_BUNDLE="/nowhere.pem")
    assert checked.names("failed") == ["tls"]
    assert "/nowhere.pem" in checked["tls"]["summary"]


def test_verification_switched_off(server, check):
    """Without verification, the check passes with a warning and a remedy."""
    checked = check(server.tls_uri(), EXA_SSL_CERT_VALIDATION="no")
    assert checked.exit_code == 0
    assert checked.names("warning") == ["tls"]
    assert "EXA_BUCKETFS_CERT_FINGERPRINT=" in checked["tls"]["remedy"]


@contextmanager
def tls_listener(directory, *, names, is_ca, days):
    """Run a TLS server with a new certificate.

    Yields:
        Its port, and the date on which the certificate expires.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    now = dt.datetime.now(dt.timezone.utc)
    expires = now + dt.timedelta(days=days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=100))
        .not_valid_after(expires)
        .add_extension(x509.SubjectAlternativeName(map(x509.DNSName, names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / "both.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    def serve():
        while True:
            connection, _ = listener.accept()
            with connection:
                first = connection.recv(1, socket.MSG_PEEK)
                if first == b"Q":
                    return
                if not first:
                    continue
                try:
                    with context.wrap_socket(connection, server_side=True) as wrapped:
                        wrapped.recv(1)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield port, expires.date()
        finally:
            with socket.create_connection(("127.0.0.1", port)) as end:
                end.sendall(b"Q")
            thread.join()


@pytest.mark.parametrize(("is_ca", "days"), [(True, 10), (False, 10), (True, -10), (False, -10)])
def test_any_certificate_can_be_read(tmp_path, is_ca, days):
    """A certificate is decoded whether or not it is a CA's, and also when it has expired."""
    names = ["a.example", "b.example"]
    with tls_listener(tmp_path, names=names, is_ca=is_ca, days=days) as (port, expires):
        certificate = presented_certificate("127.0.0.1", port, "127.0.0.1")
    assert certificate.names == ("a.example", "b.example")
    assert certificate.subject == certificate.issuer == "commonName=somebody"
    assert certificate.not_after == str(expires)


def test_expired_certificate(tmp_path, check):
    """An expired certificate is reported as expired."""
    with tls_listener(tmp_path, names=["localhost"], is_ca=True, days=-10) as (port, _):
        checked = check(
            f"exa+bfss://localhost:{port}/bfsdefault/default",
            EXA_BUCKETFS_CA_BUNDLE=str(tmp_path / "both.pem"),
        )
    assert checked.names("failed") == ["tls"]
    assert "expired" in checked["tls"]["summary"]


def test_names_in_a_certificate_are_not_proposed_to_a_shell():
    """A name that a shell could execute is not part of any remedy."""
    certificate = Certificate("AB:CD", names=("$(reboot)", "*.example.com", "a\x1b[2Jb"))
    finding = refused_finding(
        BucketFSUri.parse("exa+bfss://db/a/b"),
        ConnectionSettings(),
        certificate,
        ValueError("refused"),
        lambda _: False,
    )
    assert "EXA_BUCKETFS_CERT_FINGERPRINT" in str(finding.remedy)
    assert "EXA_BUCKETFS_TLS_HOSTNAME" not in str(finding.remedy)


def test_a_ca_bundle_names_the_variable_to_correct(server, check):
    """The remedy for a missing CA bundle names the variable with its path."""
    for variable in ("EXA_BUCKETFS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        checked = check(server.tls_uri(), **{variable: "/nowhere.pem"})
        assert checked["tls"]["remedy"] == f"Correct or unset {variable}."
