"""HTTPS: the certificates that are trusted, and the errors for the others."""

from __future__ import annotations

import ssl
import warnings
from dataclasses import replace

import pytest
from mlflow_bucketfs_core import Bucket, ConnectionSettings
from mlflow_bucketfs_core.errors import ConfigurationError, TlsError
from mlflow_bucketfs_testing.server import BucketFSServer


@pytest.fixture(scope="module")
def localhost_server():
    """A server whose certificate has the name and address of its URIs."""
    with BucketFSServer(tls_port=0, tls_certificate="localhost") as server:
        server.put("there", b"1")
        yield server


@pytest.fixture
def connect(server):
    """Make a bucket of the shared server over HTTPS, with environment variables."""
    server.put("there", b"1")

    def go(**variables):
        return Bucket(server.tls_uri(), ConnectionSettings.from_env(variables))

    return go


def test_certificates_are_verified_by_default(server, connect):
    """A self-signed certificate is refused after one attempt; the error names the variables."""
    with pytest.raises(TlsError, match="self-signed") as caught:
        connect().keys()
    assert "EXA_BUCKETFS_CA_BUNDLE" in str(caught.value)
    assert "EXA_BUCKETFS_CERT_FINGERPRINT" in str(caught.value)
    assert server.requests.connections <= 1
    assert len(server.requests) == 0


def test_a_trusted_certificate_for_another_name_is_refused(server, connect):
    """A trusted certificate for another name is refused; the error names the variable."""
    with pytest.raises(TlsError, match=r"EXA_BUCKETFS_TLS_HOSTNAME=exacluster\.local"):
        connect(EXA_BUCKETFS_CA_BUNDLE=str(server.certificate_file)).keys()


def test_bundle_and_name_make_exasols_certificate_work(server, connect):
    """With bundle and name, a certificate for ``exacluster.local`` is accepted."""
    bucket = connect(
        EXA_BUCKETFS_CA_BUNDLE=str(server.certificate_file),
        EXA_BUCKETFS_TLS_HOSTNAME="exacluster.local",
    )
    assert bucket.keys() == ["there"]


def test_the_name_alone_is_not_enough(connect):
    """A certificate is not trusted by its name alone."""
    with pytest.raises(TlsError, match="self-signed"):
        connect(EXA_BUCKETFS_TLS_HOSTNAME="exacluster.local").keys()


def test_a_wrong_name_is_refused(server, connect):
    """A name that is not in the certificate is refused."""
    bucket = connect(
        EXA_BUCKETFS_CA_BUNDLE=str(server.certificate_file),
        EXA_BUCKETFS_TLS_HOSTNAME="other.local",
    )
    with pytest.raises(TlsError, match="for another name"):
        bucket.keys()


@pytest.mark.parametrize("form", [str, str.upper, "sha256:{}".format])
def test_the_right_fingerprint_is_enough(server, connect, form):
    """A pinned certificate needs neither authority nor name."""
    pinned = connect(EXA_BUCKETFS_CERT_FINGERPRINT=form(server.certificate_fingerprint))
    assert pinned.keys() == ["there"]


@pytest.mark.parametrize("trust", ["pinned", "unverified"])
def test_authorities_that_are_not_needed_are_not_loaded(server, connect, monkeypatch, trust):
    """The system's authorities, which take 20 ms per connection, are not loaded."""
    variables = {
        "pinned": {"EXA_BUCKETFS_CERT_FINGERPRINT": server.certificate_fingerprint},
        "unverified": {"EXA_SSL_CERT_VALIDATION": "no"},
    }
    loaded = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: loaded.append(1))
    assert connect(**variables[trust]).keys() == ["there"]
    assert loaded == []


@pytest.mark.parametrize("validation", ["yes", "no"])
def test_a_wrong_fingerprint_is_refused(connect, validation):
    """A certificate with another fingerprint is refused, even without verification."""
    bucket = connect(EXA_BUCKETFS_CERT_FINGERPRINT="0" * 64, EXA_SSL_CERT_VALIDATION=validation)
    with pytest.raises(TlsError, match="not the one in EXA_BUCKETFS_CERT_FINGERPRINT"):
        bucket.keys()


def test_a_fingerprint_does_not_replace_a_bundle(localhost_server, server, connect):
    """With a fingerprint and a bundle, the certificate must match both."""
    bucket = connect(
        EXA_BUCKETFS_CERT_FINGERPRINT=server.certificate_fingerprint,
        EXA_BUCKETFS_CA_BUNDLE=str(localhost_server.certificate_file),
    )
    with pytest.raises(TlsError):
        bucket.keys()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_certificate_for_the_real_name_needs_only_the_bundle(localhost_server, host):
    """A certificate with the name of the URI needs no other setting than the bundle."""
    settings = ConnectionSettings(ca_bundle=str(localhost_server.certificate_file))
    uri = f"exa+bfss://{host}:{localhost_server.tls_port}/bfsdefault/default"
    assert Bucket(uri, settings).keys() == ["there"]


def test_the_bundle_of_requests_is_honoured(localhost_server, monkeypatch):
    """``REQUESTS_CA_BUNDLE`` is used if no bundle for BucketFS is set."""
    uri = localhost_server.tls_uri()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(localhost_server.certificate_file))
    assert Bucket(uri, ConnectionSettings()).keys() == ["there"]


def test_our_bundle_wins_over_that_of_requests(localhost_server, server, monkeypatch):
    """The bundle for BucketFS is used instead of ``REQUESTS_CA_BUNDLE``."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(localhost_server.certificate_file))
    ours = ConnectionSettings(ca_bundle=str(server.certificate_file))
    with pytest.raises(TlsError):
        Bucket(localhost_server.tls_uri(), ours).keys()


@pytest.mark.parametrize(
    ("variable", "kind"),
    [("EXA_BUCKETFS_CA_BUNDLE", "ours"), ("REQUESTS_CA_BUNDLE", "requests")],
)
def test_a_missing_bundle_names_its_variable(server, monkeypatch, variable, kind):
    """The error of a missing bundle names its path and its variable."""
    monkeypatch.setenv(variable, f"/no/such/{kind}.pem")
    with pytest.raises(ConfigurationError, match=variable) as caught:
        Bucket(server.tls_uri()).keys()
    assert f"/no/such/{kind}.pem" in str(caught.value)


@pytest.mark.parametrize("variable", ["EXA_BUCKETFS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_bundle_without_certificates_is_a_configuration_error(
    server, monkeypatch, tmp_path, variable
):
    """A bundle without certificates is reported after one attempt, with its variable."""
    (tmp_path / "empty.pem").write_text("not a certificate")
    monkeypatch.setenv(variable, str(tmp_path / "empty.pem"))
    with pytest.raises(
        ConfigurationError, match=f"{variable}=.*empty.pem.* cannot be used"
    ) as caught:
        Bucket(server.tls_uri()).keys()
    assert f"127.0.0.1:{server.tls_port}" not in str(caught.value)
    assert caught.value.variable == variable
    assert server.requests.connections <= 1


def test_settings_for_tls_do_not_affect_plain_http(server, settings):
    """The same settings work for HTTP and for HTTPS."""
    both = replace(
        settings,
        ca_bundle=str(server.certificate_file),
        tls_hostname="exacluster.local",
        cert_fingerprint=server.certificate_fingerprint,
    )
    assert Bucket(server.uri(), both).keys() == []
    assert Bucket(server.tls_uri(), both).keys() == []


def test_verification_can_be_switched_off(connect):
    """Without verification, requests succeed without a warning of urllib3."""
    bucket = connect(EXA_SSL_CERT_VALIDATION="no")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bucket.keys() == ["there"]


def test_switching_verification_off_warns_once(server, run_python):
    """All requests, threads and buckets of a process log one warning."""
    code = """
    import sys, threading, warnings
    warnings.simplefilter("always")
    from mlflow_bucketfs_core import Bucket, ConnectionSettings
    def use(user):
        bucket = Bucket(sys.argv[1], ConnectionSettings(user=user, verify_tls=False))
        for _ in range(5):
            bucket.keys()
    threads = [threading.Thread(target=use, args=(f"user{n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    """
    _, err = run_python(
        "import logging\nlogging.basicConfig()\n" + code.replace("\n    ", "\n"), server.tls_uri()
    )
    assert server.requests.listings == 25
    lines = [line for line in err.splitlines() if "EXA_SSL_CERT_VALIDATION" in line]
    assert len(lines) == 1
    assert lines[0].startswith("WARNING:mlflow_bucketfs_core")
    assert "InsecureRequestWarning" not in err


@pytest.mark.parametrize("scheme", ["exa+bfs", "exa+bfss"])
def test_safe_settings_do_not_warn(server, run_python, scheme):
    """Without TLS, and with a pinned certificate, no warning is logged."""
    code = """
    import logging, sys
    logging.basicConfig()
    from mlflow_bucketfs_core import Bucket, ConnectionSettings
    uri, fingerprint = sys.argv[1:]
    pinned = fingerprint if uri.startswith("exa+bfss") else None
    Bucket(uri, ConnectionSettings(verify_tls=False, cert_fingerprint=pinned)).keys()
    """
    uri = server.uri() if scheme == "exa+bfs" else server.tls_uri()
    assert run_python(code, uri, server.certificate_fingerprint) == ("", "")
