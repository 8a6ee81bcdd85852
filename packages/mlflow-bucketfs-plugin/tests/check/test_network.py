"""What ``mlflow-bucketfs check`` says of the way to the server."""

from __future__ import annotations

import http.server
import threading
import time

from mlflow_bucketfs_testing.server import Fault


def test_unknown_host(check):
    """A host that nobody knows fails to resolve, and the mount is still looked for."""
    checked = check("exa+bfs://bucketfs.invalid/bfsdefault/default")
    assert checked.names("failed") == ["resolve"]
    assert checked.names("ok")[-1] == "mount"
    assert checked["delete"]["summary"] == "needs the step 'resolve', which failed"


def test_server_down(check, closed_port):
    """A port at which nothing listens fails to connect, soon, and the usual ports are told."""
    started = time.monotonic()
    checked = check(f"exa+bfs://127.0.0.1:{closed_port}/bfsdefault/default")
    assert checked.names("failed") == ["connect"]
    assert "2580" in checked["connect"]["remedy"]
    assert "2581" in checked["connect"]["remedy"]
    assert time.monotonic() - started < 15


def test_server_that_never_answers(server, check):
    """A server that stalls is given up after the time that the environment allows."""
    server.inject(Fault.stall(60, times=None))
    checked = check(server.uri(), MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT="0.2")
    assert checked.names("failed") == ["service"]
    assert "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT" in checked["service"]["summary"]


class HtmlHandler(http.server.BaseHTTPRequestHandler):
    """Answers everything with a page."""

    def do_GET(self):
        """Send the page."""
        self.send_response(200)
        self.send_header("Content-Length", "22")
        self.end_headers()
        self.wfile.write(b"<h1>It works!</h1>\n\n\n\n")

    def log_message(self, *arguments):
        """Be quiet."""


def test_wrong_port_with_another_service(check):
    """A web server that is not BucketFS is recognised as such."""
    with http.server.HTTPServer(("127.0.0.1", 0), HtmlHandler) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            checked = check(f"exa+bfs://127.0.0.1:{other.server_port}/bfsdefault/default")
        finally:
            other.shutdown()
            thread.join()
    assert checked.names("failed") == ["service"]
    assert "not BucketFS" in checked["service"]["summary"]


def test_proxy_is_told_without_its_password(server, check, closed_port):
    """A proxy from the environment is named, and its password is not."""
    port = closed_port
    checked = check(server.uri(), HTTP_PROXY=f"http://me:proxy-secret@127.0.0.1:{port}")
    assert checked.names("failed") == ["connect"]
    assert checked["resolve"]["details"]["proxy"] == f"the proxy 127.0.0.1:{port}"
    assert "NO_PROXY" in checked["connect"]["remedy"]
    assert "proxy-secret" not in checked.output


def test_proxy_that_cannot_be_parsed(server, check):
    """Not even a malformed proxy URL shows a part of its password."""
    checked = check(server.uri(), HTTP_PROXY="http://me:proxy/secret@proxy.example.com")
    assert checked.names("failed") == ["resolve"]
    assert "secret" not in checked.output
