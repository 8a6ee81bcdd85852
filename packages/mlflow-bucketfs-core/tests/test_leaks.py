"""Passwords in logs and errors, and headers that must not be sent."""

from __future__ import annotations

import base64
import logging
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from mlflow_bucketfs_core import Bucket, ConnectionSettings
from mlflow_bucketfs_core.errors import (
    AuthenticationError,
    BucketFSError,
)
from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer, Fault

SECRET = "Geheim%41:ß/@x"
FORMS = [
    SECRET,
    "Geheim",
    *(
        base64.b64encode(f"{user}:{SECRET}".encode(code)).decode()
        for user in "rw"
        for code in ("utf-8", "latin-1")
    ),
    base64.b64encode(SECRET.encode()).decode().rstrip("="),
]


def test_the_password_is_in_no_log_error_or_repr(caplog, tmp_path):
    """No log at DEBUG, exception or ``repr`` contains the password, for all kinds of faults."""
    caplog.set_level(logging.DEBUG)
    config = BucketConfig("default", public=False, write_password=SECRET)
    seen = []
    faults = (
        None,
        Fault.reset_before_body(times=2),
        Fault.status(403),
        Fault.status(302, location="http://127.0.0.1:1/"),
        Fault.status(503, times=2),
        Fault.truncate(1, method="GET", times=2),
    )
    with BucketFSServer([config], tls_port=0) as server:
        server.put("d/x", b"1")
        targets = (
            (server.uri(), {}),
            (server.uri(), {"user": "r"}),
            (server.tls_uri(), {"cert_fingerprint": server.certificate_fingerprint}),
            (server.tls_uri(), {}),
            (server.tls_uri(), {"verify_tls": False}),
            (f"exa+bfs://127.0.0.1:{server.tls_port}/s/default", {}),
            (f"exa+bfss://127.0.0.1:{server.port}/s/default", {}),
            ("exa+bfs://127.0.0.1:1/s/default", {}),
            (server.uri().replace("/default", "/nowhere"), {}),
        )
        for number, (uri, options) in enumerate(targets):
            settings = ConnectionSettings(
                password=SECRET, backoff_factor=0.0, backoff_jitter=0.0, max_retries=1, **options
            )
            bucket = Bucket(uri, settings)
            view = bucket.as_path("d/x")
            seen += [repr(settings), repr(bucket), repr(view), str(view), repr(view.bucket_api)]
            operations = (
                bucket.keys,
                lambda bucket=bucket: bucket.upload_bytes("d/x", b"1"),
                lambda bucket=bucket: bucket.download_file("d/x", tmp_path / "x"),
                lambda bucket=bucket: bucket.delete("d/x"),
                lambda bucket=bucket: list(bucket.iter_content("d/x")),
            )
            # each target starts with the next operation, so that all pairs of the three occur
            for turn, fault in enumerate(faults, start=number):
                if fault:
                    server.inject(fault)
                try:
                    operations[turn % len(operations)]()
                except BucketFSError as error:
                    seen += ["".join(traceback.format_exception(error)), repr(error)]
                server.faults.clear()
    assert len(seen) > 120
    assert len(caplog.records) > 100
    everything = "\n".join([*seen, caplog.text, *(repr(vars(record)) for record in caplog.records)])
    assert [form for form in FORMS if form in everything] == []


def test_without_a_password_no_user_is_sent(server):
    """Without a password, no credentials are sent, not even the user."""
    Bucket(server.uri(), ConnectionSettings(user="r")).keys()
    assert server.requests[-1].user is None


def test_netrc_is_never_read(server, monkeypatch, tmp_path):
    """Passwords of other programs for the host are not sent."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login w password write\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    assert requests.get(f"{server.url}/private", timeout=10).status_code == 200
    server.inject(Fault.status(302, location=f"{server.url}/default", bucket="default"))
    bucket = Bucket(server.uri("private"), ConnectionSettings())
    with pytest.raises(AuthenticationError):
        bucket.keys()
    with pytest.raises(BucketFSError, match="redirects"):
        Bucket(server.uri("default"), ConnectionSettings()).keys()
    assert [record.user for record in server.requests] == ["w", None, None]


@pytest.fixture
def recorder():
    """A server that sets cookies and records the headers of all requests."""
    headers = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            headers.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Set-Cookie", "session=1; Path=/")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"a\n")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield http.server_port, headers
        http.shutdown()
        thread.join()


def test_cookies_are_not_sent_back(recorder):
    """Cookies of a server or proxy are not sent back."""
    port, headers = recorder
    bucket = Bucket(f"exa+bfs://127.0.0.1:{port}/s/b", ConnectionSettings())
    for _ in range(2):
        assert bucket.keys() == ["a"]
    with requests.Session() as session:
        for _ in range(2):
            session.get(f"http://127.0.0.1:{port}/b", timeout=10)
    assert [header.get("Cookie") for header in headers] == [None, None, None, "session=1"]


def test_requests_have_few_headers(recorder):
    """Requests ask for bodies without compression, and identify neither user nor machine."""
    port, headers = recorder
    Bucket(f"exa+bfs://127.0.0.1:{port}/s/b", ConnectionSettings()).keys()
    assert {name.lower(): value for name, value in headers[0].items()} == {
        "host": f"127.0.0.1:{port}",
        "user-agent": "mlflow-bucketfs",
        "accept-encoding": "identity",
        "accept": "*/*",
    }
