"""Output of pytest for failed operations: local variables without passwords."""

from __future__ import annotations

import base64
import os
import subprocess
import sys

SECRET = "Geheim-4711"
FORMS = [
    SECRET,
    base64.b64encode(f"w:{SECRET}".encode()).decode(),
    base64.b64encode(f"proxyuser:{SECRET}".encode()).decode(),
]

FAILING_TESTS = """
import contextlib, os, socket, threading
import pytest
from mlflow_bucketfs_core import Bucket, ConnectionSettings
from mlflow_bucketfs_core import bucket

bucket.STREAM_BUFFER_BYTES = 1  # longer ones would be printed, too
URI, TLS_URI = os.environ["URI"], os.environ["TLS_URI"]


@contextlib.contextmanager
def server(response):
    def serve():
        connection, _ = listener.accept()
        listener.close()
        with connection:
            connection.recv(65536)
            connection.sendall(response)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"exa+bfs://127.0.0.1:{listener.getsockname()[1]}/s/b"


def test_refused_connection():
    Bucket("exa+bfs://127.0.0.1:1/s/b").upload_bytes("x", b"1")


def test_unknown_host():
    Bucket("exa+bfs://bucketfs.invalid/s/b").keys()


def test_unverified_certificate():
    Bucket(TLS_URI).keys()


def test_wrong_password():
    Bucket(URI).delete("x")


def test_lost_connection():
    with server(b"") as uri:
        Bucket(uri).upload_bytes("x", b"1")


def test_rubbish():
    with server(b"SSH-2.0-OpenSSH_9.9\\r\\n") as uri:
        Bucket(uri).exists("x")


def test_unsent_upload():
    with server(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n") as uri:
        Bucket(uri).upload_bytes("x", Large(32 << 20))


def test_truncated_download(tmp_path):
    with server(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\n1") as uri:
        Bucket(uri).download_file("x", tmp_path / "x")


def test_silent_server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        os.environ["MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT"] = "0.1"
        Bucket(f"exa+bfs://127.0.0.1:{port}/s/b").keys()


class Large(bytes):
    def __repr__(self):
        return "Large()"


class Interrupt(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError, OSError, Interrupt])
def test_failing_source(error):
    def chunks():
        yield b"12"
        raise error("the source failed")

    os.environ["EXA_SSL_CERT_VALIDATION"] = "no"
    Bucket(TLS_URI).upload_stream("x", chunks())


@pytest.mark.parametrize("url", ["http://{}@127.0.0.1:1", "http://{}@127.0.0.1:99999",
                                 "socks5h://{}@127.0.0.1:1", "ftp://{}@127.0.0.1:1"])
def test_proxy(monkeypatch, url):
    login = f"proxyuser:{os.environ['EXA_BUCKETFS_PASSWORD']}"
    monkeypatch.setenv("ALL_PROXY", url.format(login))
    del login
    Bucket("exa+bfss://bucketfs.invalid/s/b").keys()


@pytest.mark.parametrize("name", ["EXA_BUCKETFS_MAX_WORKERS", "EXA_BUCKETFS_CERT_FINGERPRINT"])
def test_bad_setting(monkeypatch, name):
    monkeypatch.setenv(name, "bad")
    ConnectionSettings.from_env()


@pytest.mark.parametrize("name", ["EXA_BUCKETFS_USER", "EXA_BUCKETFS_ALLOWED_HOSTS",
                                  "EXA_BUCKETFS_MOUNT_ROOT", "EXA_BUCKETFS_CERT_FINGERPRINT"])
def test_misplaced_password(monkeypatch, name):
    monkeypatch.setenv(name, f"w:{os.environ['EXA_BUCKETFS_PASSWORD']}")
    Bucket(URI)


def test_password_that_cannot_be_sent():
    password = os.environ["EXA_BUCKETFS_PASSWORD"]
    settings = ConnectionSettings(password=f"{password}\\ud800")
    del password
    Bucket(URI, settings).keys()
"""


def test_pytest_prints_no_password(server, tmp_path):
    """The output has local variables and logs without a password, for all kinds of failures."""
    (tmp_path / "test_failing.py").write_text(FAILING_TESTS)
    environment = {
        **os.environ,
        "URI": server.uri("private"),
        "TLS_URI": server.tls_uri(),
        "EXA_BUCKETFS_PASSWORD": SECRET,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take most of the time
    }
    options = ["-vv", "--showlocals", "--tb=long", "--log-level=DEBUG", "--junit-xml=result.xml"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "."],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    printed = result.stdout + result.stderr + (tmp_path / "result.xml").read_text()
    assert "23 failed" in result.stdout
    assert "passed" not in result.stdout
    assert "NewConnectionError" in printed  # libraries' exceptions are still chained
    assert "the source failed" in printed
    assert [line for line in printed.splitlines() if any(form in line for form in FORMS)] == []
