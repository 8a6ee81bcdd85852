"""Operations to run under faults, and the state that each must leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mlflow_bucketfs_core import Bucket

CONTENT = bytes(range(256)) * 1200
LARGE_BYTES = 48 << 20


@dataclass(frozen=True)
class Operation:
    """An operation on a bucket that contains ``d/there`` and ``d/small``.

    Attributes:
        run: performs it; takes a bucket and a directory for local files.
        method: HTTP method of its request.
        local: names of the files that it leaves in the directory.
        stored: changed objects, as key and content; ``None`` for a deletion.
    """

    run: Callable[[Bucket, Path], None]
    method: str
    local: frozenset[str] = frozenset()
    stored: tuple[tuple[str, bytes | None], ...] = ()

    def __call__(self, bucket, directory):
        """Perform the operation."""
        self.run(bucket, directory)

    def check(self, server, directory):
        """Assert that the operation had its effects and no others."""
        expected = {"d/there": CONTENT, "d/small": b"", **dict(self.stored)}
        present = {key: content for key, content in expected.items() if content is not None}
        assert {key: server.read(key) for key in server.keys()} == present
        assert {path.name for path in directory.iterdir()} == self.local


def download(bucket, directory):
    """Replace an older file."""
    bucket.download_file("d/there", directory / "x")
    assert (directory / "x").read_bytes() == CONTENT


def upload_file(bucket, directory):
    """Upload from a file."""
    (directory / "source").write_bytes(CONTENT)
    bucket.upload_file("d/new", directory / "source")


def upload_stream(bucket, directory):
    """Upload a stream that fits into the buffer."""
    del directory
    bucket.upload_stream("d/new", iter([CONTENT[:1000], CONTENT[1000:]]))


def delete(bucket, directory):
    """Delete an existing object."""
    del directory
    bucket.delete("d/there")


def list_keys(bucket, directory):
    """List the folder."""
    del directory
    assert sorted(bucket.keys("d")) == ["d/small", "d/there"]


def exists(bucket, directory):
    """Look up an existing object."""
    del directory
    assert bucket.exists("d/small")


def upload_large(bucket, directory):
    """Upload more than the buffers of both sockets hold."""
    del directory
    bucket.upload_bytes("d/new", bytes(LARGE_BYTES))


NEW = (("d/new", CONTENT),)
OPERATIONS = {
    "download": Operation(download, "GET", local=frozenset({"x"})),
    "exists": Operation(exists, "GET"),
    "list_keys": Operation(list_keys, "GET"),
    "upload_file": Operation(upload_file, "PUT", local=frozenset({"source"}), stored=NEW),
    "upload_stream": Operation(upload_stream, "PUT", stored=NEW),
    "upload_large": Operation(upload_large, "PUT", stored=(("d/new", bytes(LARGE_BYTES)),)),
    "delete": Operation(delete, "DELETE", stored=(("d/there", None),)),
}


@pytest.fixture
def download():
    """The operation ``download``."""
    return OPERATIONS["download"]


@pytest.fixture
def operation(request):
    """The operation of the test's parameter."""
    return OPERATIONS[request.param]


@pytest.fixture
def prepare(server):
    """Store the objects, make the folder known, and clear the recorded requests."""

    def go(bucket, target=server):
        target.put_many([("d/there", CONTENT), ("d/small", b"")])
        bucket.prepare_uploads(["d/new"])
        target.requests.clear()
        return bucket

    return go


@pytest.fixture
def prepared(prepare, bucket):
    """The prepared bucket over HTTP."""
    return prepare(bucket)


@pytest.fixture(params=["http", "https"])
def either(request, server, settings, prepare):
    """The prepared bucket over HTTP and over HTTPS."""
    if request.param == "http":
        return prepare(Bucket(server.uri(), settings))
    pinned = replace(settings, cert_fingerprint=server.certificate_fingerprint)
    return prepare(Bucket(server.tls_uri(), pinned))
