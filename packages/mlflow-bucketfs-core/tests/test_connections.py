"""Number of requests and connections of a bucket, also with many threads and streams."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from mlflow_bucketfs_core import Bucket
from mlflow_bucketfs_core.http import pool


def test_one_request_per_operation_on_one_connection(server, bucket, tmp_path):
    """Each operation sends one request, and all share one connection."""
    for number in range(5):
        bucket.upload_bytes(f"counted/{number}", b"x" * 100_000)
    bucket.keys("counted")
    for number in range(5):
        bucket.download_file(f"counted/{number}", tmp_path / "x")
        bucket.exists("nothing")
        bucket.delete(f"counted/{number}")
    assert server.requests.count(method="PUT") == 5
    assert server.requests.listings == 2  # one of keys(), and one before the first upload
    assert server.requests.count(method="DELETE") == 5
    assert len(server.requests) == 5 + 2 + 15
    assert server.requests.connections == 1


def test_instances_share_connections(server, settings):
    """All instances of a bucket share one connection."""
    for number in range(5):
        Bucket(server.uri(), settings).exists(f"x{number}")
        Bucket(server.uri(path="folder"), replace(settings)).exists("y")
    assert server.requests.connections == 1


def test_one_listing_per_folder_and_process(server, settings):
    """One listing checks many folders for files in the way, for all instances."""
    buckets = [Bucket(server.uri(), settings) for _ in range(2)]
    buckets[0].prepare_uploads(f"once{n}/deep/er/file" for n in range(50))
    assert server.requests.listings == 1
    for number in range(50):
        buckets[number % 2].upload_bytes(f"once{number}/deep/er/file", b"")
        buckets[number % 2].upload_bytes(f"once{number}/file", b"")
    assert server.requests.listings == 1
    buckets[0].upload_bytes("at the root", b"")
    assert server.requests.listings == 1
    buckets[0].upload_bytes("once0/new/file", b"")
    assert server.requests.listings == 2


def test_many_threads_share_one_bucket(server, settings):
    """Threads share at most ``max_workers`` connections, and get their own contents."""
    bucket = Bucket(server.uri(), replace(settings, max_workers=4))

    def work(number):
        content = b"%d" % number * 5000
        bucket.upload_bytes(f"threads/{number}", content)
        assert b"".join(bucket.iter_content(f"threads/{number}")) == content
        assert f"threads/{number}" in bucket.keys("threads")
        return bucket.exists(f"threads/{number}")

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(work, range(100)))
    puts = {record.connection for record in server.requests if record.method == "PUT"}
    assert len(puts) <= 4
    assert len(server.keys()) == 100


def test_a_stream_may_use_the_bucket_it_is_uploaded_to(server, settings):
    """The source of an upload can use the same bucket without waiting for its connection."""
    content = os.urandom(10_000_000)
    server.put("original", content)
    bucket = Bucket(server.uri(), replace(settings, max_workers=1))

    def source():
        for block in bucket.iter_content("original"):
            bucket.exists("original")
            yield block

    copying = threading.Thread(target=bucket.upload_stream, args=("copy", source()), daemon=True)
    copying.start()
    copying.join(30)
    assert not copying.is_alive()
    assert server.read("copy") == content


def test_unread_streams_do_not_block_requests(server, settings):
    """Downloads that are not read to their end do not block other requests."""
    server.put("large", bytes(5_000_000))
    bucket = Bucket(server.uri(), replace(settings, max_workers=1))
    streams = [bucket.iter_content("large") for _ in range(5)]
    begun = [len(next(stream)) for stream in streams]
    assert bucket.keys() == ["large"]
    for first, stream in zip(begun, streams, strict=True):
        assert first < 5_000_000
        assert first + sum(map(len, stream)) == 5_000_000


def test_no_request_waits_forever_for_another(server, settings, monkeypatch):
    """A file whose ``read`` uses the bucket gets a connection beyond the limit."""
    monkeypatch.setattr(pool, "_MAX_WAIT_FOR_CONNECTION_S", 0.1)
    bucket = Bucket(server.uri(), replace(settings, max_workers=1))

    class Dependent(io.BytesIO):
        def read(self, amount=-1):
            bucket.exists("another")
            return super().read(amount)

    uploading = threading.Thread(
        target=bucket.upload_fileobj, args=("x", Dependent(b"1")), daemon=True
    )
    uploading.start()
    uploading.join(30)
    assert not uploading.is_alive()
    assert server.read("x") == b"1"
    assert server.requests.connections == 2
