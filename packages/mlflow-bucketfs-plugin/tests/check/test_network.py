"""Tests of ``mlflow-bucketfs check``: the connection to the server."""

from __future__ import annotations

import http.server
import threading
import time

import pytest
from mlflow_bucketfs_testing.server import BucketFSServer, Fault


def test_unknown_host(check):
    """A host name that does not resolve fails, and the mount is still checked."""
    checked = check("exa+bfs://bucketfs.invalid/bfsdefault/default")
    assert checked.names("failed") == ["resolve"]
    assert checked.names("ok")[-1] == "mount"
    assert checked["delete"]["summary"] == "needs the step 'resolve', which failed"


def test_server_down(check):
    """A closed port fails quickly, and the default ports are reported."""
    started = time.monotonic()
    # a separate address: at 127.0.0.1, a BucketFS may use the default ports
    checked = check("exa+bfs://127.25.80.1:9/bfsdefault/default")
    assert checked.names("failed") == ["connect"]
    assert "2580" in checked["connect"]["remedy"]
    default = "Since Exasol 8.29, only port 2581 for HTTPS is open by default."
    assert checked["connect"]["remedy"].endswith(default)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("scheme", "proposed"),
    [
        ("exa+bfs", "exa+bfs://127.25.80.2:2580/bfsdefault/default/a"),
        ("exa+bfss", "exa+bfss://127.25.80.2:2581/bfsdefault/default/a"),
    ],
)
def test_wrong_port_while_both_usual_ones_are_open(scheme, proposed, check):
    """If both default ports are open, the one for the URI's scheme is proposed."""
    with BucketFSServer(host="127.25.80.2", port=2580, tls_port=2581):
        checked = check(f"{scheme}://127.25.80.2:9/bfsdefault/default/a")
    assert checked.names("failed") == ["connect"]
    assert checked["connect"]["remedy"].endswith(f"Try {proposed}")


def test_usual_port_for_http_is_closed(check):
    """If only the port for HTTPS is open, as since Exasol 8.29, it is proposed."""
    with BucketFSServer(host="127.25.80.3", tls_port=2581):
        checked = check("exa+bfs://127.25.80.3:2580/bfsdefault/default")
    assert checked.names("failed") == ["connect"]
    proposed = "exa+bfss://127.25.80.3:2581/bfsdefault/default"
    assert checked["connect"]["remedy"].endswith(f"Try {proposed}")


def test_service_with_another_name(server, check):
    """A service name that cannot be checked over HTTP is reported, and no step fails."""
    uri = f"exa+bfs://127.0.0.1:{server.port}/models/default"
    checked = check(uri)
    assert checked.exit_code == 0
    assert checked["service"]["result"] == "ok"
    assert "'models' is not checked" in checked["service"]["remedy"]
    assert "/buckets/models/default" in checked["service"]["remedy"]
    assert check(server.uri())["service"]["remedy"] is None


def test_service_whose_bucket_is_mounted(check):
    """If the bucket is mounted below the service's name, no advice is reported."""
    with BucketFSServer(service="models") as server:
        root = str(server.mount_root)
        checked = check(server.uri(), password="write", EXA_BUCKETFS_MOUNT_ROOT=root)
    assert checked.exit_code == 0
    assert checked["mount"]["details"]["exists"] is True
    assert checked["service"]["remedy"] is None


def test_server_that_never_answers(server, check):
    """A server that stalls fails after the timeout from the environment."""
    server.inject(Fault.stall(60, times=None))
    checked = check(server.uri(), MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT="0.2")
    assert checked.names("failed") == ["service"]
    assert "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT" in checked["service"]["summary"]


class HtmlHandler(http.server.BaseHTTPRequestHandler):
    """A handler that answers every request with a page."""

    def do_GET(self):
        """Send the page."""
        self.send_response(200)
        self.send_header("Content-Length", "22")
        self.end_headers()
        self.wfile.write(b"<h1>It works!</h1>\n\n\n\n")

    def log_message(self, *arguments):
        """Log nothing."""


def test_wrong_port_with_another_service(check):
    """A web server that is not BucketFS is reported."""
    with http.server.HTTPServer(("127.0.0.1", 0), HtmlHandler) as other:
        thread = threading.Thread(target=other.serve_forever, args=(0.01,))
        thread.start()
        try:
            checked = check(f"exa+bfs://127.0.0.1:{other.server_port}/bfsdefault/default")
        finally:
            other.shutdown()
            thread.join()
    assert checked.names("failed") == ["service"]
    assert "not BucketFS" in checked["service"]["summary"]


def test_proxy_is_reported_without_its_password(server, check, closed_port):
    """A proxy from the environment is reported without its password."""
    port = closed_port
    checked = check(server.uri(), HTTP_PROXY=f"http://me:proxy-secret@127.0.0.1:{port}")
    assert checked.names("failed") == ["connect"]
    assert checked["resolve"]["details"]["proxy"] == f"the proxy 127.0.0.1:{port}"
    assert "NO_PROXY" in checked["connect"]["remedy"]
    assert "proxy-secret" not in checked.output


def test_proxy_that_cannot_be_parsed(server, check):
    """The password in a malformed proxy URL is not shown."""
    checked = check(server.uri(), HTTP_PROXY="http://me:proxy/secret@proxy.example.com")
    assert checked.names("failed") == ["resolve"]
    assert "secret" not in checked.output
