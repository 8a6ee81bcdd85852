"""``ConnectionSettings``: valid and invalid values of every variable."""

from __future__ import annotations

import math

import pytest
from mlflow_bucketfs_core import ConnectionSettings, settings
from mlflow_bucketfs_core.errors import ConfigurationError
from mlflow_bucketfs_core.hosts import HostRule

DIGITS = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("variable", "text", "attribute", "expected"),
    [
        ("EXA_BUCKETFS_USER", "r", "user", "r"),
        ("EXA_BUCKETFS_USER", " w\n", "user", "w"),
        ("EXA_BUCKETFS_PASSWORD", " x ", "password", " x "),
        ("EXA_BUCKETFS_PASSWORD", "a:b", "password", "a:b"),
        ("EXA_BUCKETFS_PASSWORD", "", "password", None),
        ("EXA_SSL_CERT_VALIDATION", "yes", "verify_tls", True),
        ("EXA_SSL_CERT_VALIDATION", "Y", "verify_tls", True),
        ("EXA_SSL_CERT_VALIDATION", " True ", "verify_tls", True),
        ("EXA_SSL_CERT_VALIDATION", "no", "verify_tls", False),
        ("EXA_SSL_CERT_VALIDATION", "n", "verify_tls", False),
        ("EXA_SSL_CERT_VALIDATION", "FALSE", "verify_tls", False),
        ("EXA_SSL_CERT_VALIDATION", "", "verify_tls", True),
        ("EXA_BUCKETFS_CA_BUNDLE", "/a b.pem", "ca_bundle", "/a b.pem"),
        ("EXA_BUCKETFS_CA_BUNDLE", " ", "ca_bundle", None),
        ("EXA_BUCKETFS_TLS_HOSTNAME", "exacluster.local", "tls_hostname", "exacluster.local"),
        ("EXA_BUCKETFS_CERT_FINGERPRINT", DIGITS.upper(), "cert_fingerprint", DIGITS),
        ("EXA_BUCKETFS_CERT_FINGERPRINT", f"sha256:{DIGITS}", "cert_fingerprint", DIGITS),
        (
            "EXA_BUCKETFS_CERT_FINGERPRINT",
            ":".join(DIGITS[i : i + 2] for i in range(0, 64, 2)),
            "cert_fingerprint",
            DIGITS,
        ),
        (
            "EXA_BUCKETFS_ALLOWED_HOSTS",
            "a:1,exa+bfs://b",
            "allowed_hosts",
            (HostRule("a", 1), HostRule("b", plain_http=True)),
        ),
        ("EXA_BUCKETFS_ALLOWED_HOSTS", "", "allowed_hosts", None),
        ("EXA_BUCKETFS_ALLOWED_HOSTS", ",", "allowed_hosts", ()),
        ("EXA_BUCKETFS_MAX_WORKERS", "1", "max_workers", 1),
        ("EXA_BUCKETFS_MAX_WORKERS", " 64 ", "max_workers", 64),
        ("EXA_BUCKETFS_MOUNT_ROOT", "/mnt/", "mount_root", "/mnt"),
        ("EXA_BUCKETFS_MOUNT_ROOT", "/", "mount_root", "/"),
        ("EXA_BUCKETFS_MOUNT_ROOT", "/buckets", "mount_root_is_explicit", True),
        ("EXA_BUCKETFS_MOUNT_ROOT", "", "mount_root_is_explicit", False),
        ("EXA_BUCKETFS_MOUNT_FALLBACK", "http", "mount_fallback_http", True),
        ("EXA_BUCKETFS_MOUNT_FALLBACK", "OFF", "mount_fallback_http", False),
        ("EXA_BUCKETFS_MOUNT_HOSTS", "[::1]", "mount_hosts", (HostRule("::1"),)),
        ("EXA_BUCKETFS_CLIENT_TIMEOUT", "0.5", "client_timeout_s", 0.5),
        ("EXA_BUCKETFS_CLIENT_TIMEOUT", "-1", "client_timeout_s", math.inf),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0", "max_retries", 0),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0.5", "backoff_factor", 0.5),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", " .5 ", "backoff_factor", 0.5),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "2.", "backoff_factor", 2.0),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0", "backoff_jitter", 0.0),
        ("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "90", "transfer_timeout_s", 90.0),
        ("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "-1", "transfer_timeout_s", math.inf),
        ("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "", "transfer_timeout_s", None),
    ],
)
def test_valid_values(variable, text, attribute, expected):
    """Every variable sets its attribute."""
    assert getattr(ConnectionSettings.from_env({variable: text}), attribute) == expected


@pytest.mark.parametrize(
    ("variable", "text", "accepted"),
    [
        ("EXA_BUCKETFS_USER", "w:Geheim", "without ':'"),
        ("EXA_BUCKETFS_USER", "w\nx", "without ':'"),
        ("EXA_SSL_CERT_VALIDATION", "maybe", "yes, y, true, no, n or false"),
        ("EXA_SSL_CERT_VALIDATION", "0", "yes, y, true, no, n or false"),
        ("EXA_BUCKETFS_TLS_HOSTNAME", "a b", "exacluster.local"),
        ("EXA_BUCKETFS_TLS_HOSTNAME", ".local", "exacluster.local"),
        ("EXA_BUCKETFS_TLS_HOSTNAME", "https://exacluster.local", "exacluster.local"),
        ("EXA_BUCKETFS_CERT_FINGERPRINT", DIGITS[1:], "64 hex digits"),
        ("EXA_BUCKETFS_CERT_FINGERPRINT", "g" * 64, "64 hex digits"),
        ("EXA_BUCKETFS_CERT_FINGERPRINT", "٣" * 64, "64 hex digits"),
        ("EXA_BUCKETFS_ALLOWED_HOSTS", "http://a", "host[:port]"),
        ("EXA_BUCKETFS_ALLOWED_HOSTS", "a:1,b:0255800", "EXA_BUCKETFS_ALLOWED_HOSTS: entry 2"),
        ("EXA_BUCKETFS_MAX_WORKERS", "0", "from 1 to 1024"),
        ("EXA_BUCKETFS_MAX_WORKERS", "1_0", "from 1 to 1024"),
        ("EXA_BUCKETFS_MAX_WORKERS", "+1", "from 1 to 1024"),
        ("EXA_BUCKETFS_MAX_WORKERS", "٣", "from 1 to 1024"),
        ("EXA_BUCKETFS_MAX_WORKERS", "9" * 5000, "from 1 to 1024"),
        ("EXA_BUCKETFS_MAX_WORKERS", "1.5", "from 1 to 1024"),
        ("EXA_BUCKETFS_MAX_WORKERS", "1025", "from 1 to 1024"),
        ("EXA_BUCKETFS_MOUNT_ROOT", "buckets", "absolute path"),
        ("EXA_BUCKETFS_MOUNT_ROOT", " /buckets", "without blanks"),
        ("EXA_BUCKETFS_MOUNT_ROOT", "/buckets\n", "without blanks"),
        ("EXA_BUCKETFS_MOUNT_FALLBACK", "yes", "off or http"),
        ("EXA_BUCKETFS_MOUNT_HOSTS", "a/b", "host[:port]"),
        ("EXA_BUCKETFS_CLIENT_TIMEOUT", "0", "-1 for no limit"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "-1", "from 0 to 100"),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "nan", "seconds"),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "inf", "seconds"),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1_0", "seconds"),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1e3", "seconds"),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", ".", "seconds"),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "-0.1", "seconds"),
        ("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "0", "above 0"),
        ("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "-2", "seconds"),
        ("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "1 min", "seconds"),
    ],
)
def test_bad_values(variable, text, accepted):
    """A bad value is reported with the variable's name and the accepted values."""
    with pytest.raises(ConfigurationError) as caught:
        ConnectionSettings.from_env({variable: text})
    assert variable in str(caught.value)
    assert caught.value.variable == variable
    assert accepted in str(caught.value)
    assert "Geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "variable",
    sorted({name for name, _ in settings._VARIABLES.values()} - {"EXA_BUCKETFS_CA_BUNDLE"}),
)
def test_no_value_is_repeated(variable):
    """An error does not contain the value, which may be a misplaced password."""
    secret = "Geheim:/?#% 1"
    with pytest.raises(ConfigurationError, match=variable) as caught:
        ConnectionSettings.from_env({variable: secret})
    assert secret[:6] not in str(caught.value)
    assert caught.value.__context__ is None  # its message would contain the value


def test_nothing_set_gives_the_defaults(monkeypatch):
    """Without variables the settings are the defaults; ``os.environ`` is read by default."""
    assert ConnectionSettings.from_env({}) == ConnectionSettings()
    assert ConnectionSettings.from_env() == ConnectionSettings()
    monkeypatch.setenv("EXA_BUCKETFS_USER", "r")
    assert ConnectionSettings.from_env() == ConnectionSettings(user="r")


def test_the_password_is_in_no_repr():
    """The ``repr`` of the settings does not contain the password."""
    assert "Geheim" not in repr(ConnectionSettings(password="Geheim"))
    assert "Geheim" not in str(ConnectionSettings(password="Geheim"))
