"""Real clients: curl and exasol-bucketfs."""

from __future__ import annotations

import subprocess

import pytest
from exasol.bucketfs import BucketFsError, Service, as_bytes
from mlflow_bucketfs_testing.server import BucketFSServer


def curl(*args):
    """Run curl and return its standard output."""
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "20", *map(str, args)],
        check=True,
        capture_output=True,
    ).stdout


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_curl(server, tmp_path, size):
    """The documented commands work: upload, list, download, delete."""
    local = tmp_path / "local.bin"
    local.write_bytes(bytes(size))
    url = f"{server.url}/default/dir/x.bin"
    status = ["--write-out", "%{http_code}", "--output"]
    assert curl("--user", "w:write", "--upload-file", local, *status, "/dev/null", url) == b"200"
    assert curl(f"{server.url}/default") == b"dir/x.bin\n"
    assert curl(*status, tmp_path / "back.bin", url) == b"200"
    assert (tmp_path / "back.bin").read_bytes() == bytes(size)
    assert curl("--user", "w:write", "--request", "DELETE", *status, "/dev/null", url) == b"200"
    assert server.keys() == []


def test_curl_without_body(server):
    """A PUT without ``-T`` stores a file of size zero, as Exasol's knowledge base warns."""
    curl("--user", "w:write", "--request", "PUT", f"{server.url}/default/oops.jar")
    assert server.read("oops.jar") == b""


def test_curl_wrong_password(server, tmp_path):
    """A wrong password is refused with 403 before the body of a large file is sent."""
    local = tmp_path / "local.bin"
    local.write_bytes(bytes(3_000_000))
    output = curl(
        *("--user", "w:wrong", "--upload-file", local, "--write-out", "%{http_code}"),
        *("--header", "Expect: 100-continue", "--output", "/dev/null"),
        f"{server.url}/default/x",
    )
    assert output == b"403"
    assert server.requests[-1].bytes_received == 0
    assert server.keys() == []


def test_exasol_bucketfs(server):
    """Exasol's client lists buckets and keys, uploads, downloads and deletes."""
    credentials = {name: {"username": "w", "password": "write"} for name in ("default", "private")}
    service = Service(server.url, credentials)
    assert set(service.buckets) == {"default", "private"}
    bucket = service["default"]
    assert set(bucket.files) == set()
    bucket.upload("dir/a.tar.gz", b"bytes")
    bucket.upload("dir/chunked", (part for part in (b"one", b"two")))
    assert set(bucket.files) == {"dir/a.tar.gz", "dir/chunked"}
    assert as_bytes(bucket.download("dir/a.tar.gz")) == b"bytes"
    assert as_bytes(bucket.download("dir/chunked")) == b"onetwo"
    bucket.delete("dir/a.tar.gz")
    assert server.keys() == ["dir/chunked"]


def test_exasol_bucketfs_wrong_password(server):
    """Exasol's client reports a wrong password."""
    credentials = {"private": {"username": "w", "password": "wrong"}}
    bucket = Service(server.url, credentials)["private"]
    for call in (
        lambda: bucket.files,
        lambda: bucket.upload("x", b""),
        lambda: bucket.delete("x"),
        lambda: as_bytes(bucket.download("x")),
    ):
        with pytest.raises(BucketFsError):
            call()


def test_exasol_bucketfs_over_tls():
    """Exasol's client verifies the certificate for localhost."""
    with BucketFSServer(tls_port=0, tls_certificate="localhost") as server:
        service = Service(
            f"https://localhost:{server.tls_port}",
            {"default": {"username": "w", "password": "write"}},
            verify=str(server.certificate_file),
        )
        service["default"].upload("k", b"bytes")
        assert as_bytes(service["default"].download("k")) == b"bytes"
