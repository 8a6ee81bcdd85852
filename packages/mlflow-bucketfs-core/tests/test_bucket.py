"""``Bucket`` on a server that does what it should: names, sizes, requests, passwords, threads."""

from __future__ import annotations

import io
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from mlflow_bucketfs_core import Bucket, ConnectionSettings
from mlflow_bucketfs_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    BucketNotFoundError,
    InvalidKeyError,
    InvalidUriError,
    MissingCredentialsError,
    ObjectNotFoundError,
    PathBlockedError,
)
from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer, Fault

ODD_NAMES = [
    "a#b",
    "q?x",
    "p%41",
    "plus+x",
    "with space",
    "ümläut",
    "模型",
    ".hidden",
    "per%cent",
    "semi;colon",
    "am&p=1",
    "~",
    "com,ma",
    "m.tar.gz",
    "noextension",
    " blanks ",
    "back\\slash",
    "e\u0301",
    "[b]{c}|^`\"'<>",
    "...",
    "%2e%2e",
    "x" * 255,
]


@pytest.fixture(params=["http", "https"])
def any_bucket(request, server, settings):
    """The public bucket over HTTP and over HTTPS."""
    if request.param == "http":
        return Bucket(server.uri(), settings)
    pinned = replace(settings, cert_fingerprint=server.certificate_fingerprint)
    return Bucket(server.tls_uri(), pinned)


@pytest.mark.parametrize("name", ODD_NAMES, ids=[ascii(name)[:20] for name in ODD_NAMES])
def test_odd_names_go_up_and_come_down(server, any_bucket, tmp_path, name):
    """Whatever a file is called, that is its key, its line in the listing and its content."""
    key = f"dir {name}/{name}"[-300:] if len(name) < 255 else f"long/{name}"
    content = os.urandom(100)
    (tmp_path / "up").write_bytes(content)
    any_bucket.upload_file(key, tmp_path / "up")
    assert server.read(key) == content
    assert server.keys() == [key]
    assert any_bucket.keys() == [key]
    assert any_bucket.exists(key)
    any_bucket.download_file(key, tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == content
    any_bucket.delete(key)
    assert server.keys() == []


@pytest.mark.parametrize("size", [0, 1, 65_536, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 9_000_000])
def test_any_size_goes_up_and_comes_down(server, any_bucket, tmp_path, size):
    """Content is the same at sizes around every block, by every way up and down."""
    content = random.Random(size).randbytes(size)  # noqa: S311 -- not a secret
    (tmp_path / "up").write_bytes(content)
    any_bucket.upload_file("sizes/file", tmp_path / "up")
    any_bucket.upload_bytes("sizes/bytes", content)
    any_bucket.upload_fileobj("sizes/seekable", io.BytesIO(content))
    any_bucket.upload_stream(
        "sizes/stream", (content[i : i + 700_000] for i in range(0, size, 700_000))
    )
    for key in server.keys():
        assert server.read(key) == content
    assert len(server.keys()) == 4
    any_bucket.download_file("sizes/file", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == content
    assert b"".join(any_bucket.iter_content("sizes/file")) == content


def test_content_called_gzip_is_not_decoded(server, bucket, tmp_path):
    """Stored bytes come back as they are, although BucketFS calls ``.gz`` files encoded."""
    server.put("a.tar.gz", b"not even gzip")
    bucket.download_file("a.tar.gz", tmp_path / "a.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == b"not even gzip"


def test_downloads_without_a_length_are_complete(settings, tmp_path):
    """A server that sends chunks instead of a length is read to the end."""
    with BucketFSServer(content_length=False) as server:
        server.put("a", b"x" * 3_000_000)
        Bucket(server.uri(), settings).download_file("a", tmp_path / "a")
    assert (tmp_path / "a").stat().st_size == 3_000_000


class Pipe(io.RawIOBase):
    """A binary file that cannot be rewound and gives little at a time."""

    def __init__(self, content):
        self._content = io.BytesIO(content)

    def readable(self):
        """Say that it can be read."""
        return True

    def read(self, size=-1):
        """Give less than asked for."""
        return self._content.read(min(size, 1000) if size >= 0 else 1000)


@pytest.mark.parametrize("skip", [0, 5, 100, 200])
def test_file_objects_are_sent_from_their_position(server, bucket, skip):
    """What was read before, or lies before the position, is not sent; beyond the end is nothing."""
    content = bytes(range(100))
    seekable = io.BytesIO(content)
    seekable.seek(skip)
    bucket.upload_fileobj("position/seekable", seekable)
    pipe = Pipe(content)
    pipe.read(skip)
    bucket.upload_fileobj("position/pipe", pipe)
    assert server.read("position/seekable") == content[skip:]
    assert server.read("position/pipe") == content[skip:]


def test_prefixes_end_at_a_slash(server, bucket):
    """Listing ``foo`` shows ``foo`` and what is below it, not ``foobar``."""
    server.put_many(
        (key, b"") for key in ["foo", "foo/a", "foo/b/c", "foobar", "foobar/d", "x/foo"]
    )
    assert sorted(bucket.keys("foo")) == ["foo", "foo/a", "foo/b/c"]
    assert sorted(bucket.keys("/foo/b//")) == ["foo/b/c"]
    assert bucket.keys("fo") == []
    assert len(bucket.keys()) == 6


def test_existence_is_that_of_the_object(server, bucket):
    """A folder, or another key's beginning, does not exist as an object."""
    server.put("d/x", b"1")
    assert bucket.exists("d/x")
    assert not bucket.exists("d")
    assert not bucket.exists("d/x2")


def test_deleting_twice_is_no_error(server, bucket):
    """Deleting what is not there succeeds and deletes nothing else."""
    server.put_many([("d", b"1"), ("d2", b"1"), ("d/x", b"1")])
    for _ in range(2):
        bucket.delete("d")
    assert server.keys() == ["d/x", "d2"]


@pytest.mark.parametrize("key", ["", "/", "a/../b", "a\nb"])
def test_impossible_keys_are_refused_before_any_request(server, bucket, tmp_path, key):
    """No request is sent for what cannot be a key."""
    for operation in (
        lambda: bucket.upload_bytes(key, b""),
        lambda: bucket.download_file(key, tmp_path / "x"),
        lambda: bucket.delete(key),
        lambda: bucket.exists(key),
        lambda: next(bucket.iter_content(key)),
    ):
        with pytest.raises(InvalidKeyError):
            operation()
    assert len(server.requests) == 0


def test_a_bucket_needs_its_name():
    """A URI that ends before the bucket makes no bucket."""
    with pytest.raises(InvalidUriError, match="names no bucket"):
        Bucket("exa+bfs://h/s", ConnectionSettings())


def test_settings_come_from_the_environment_by_default(server, monkeypatch):
    """Without settings, the variables count."""
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", "write")
    Bucket(server.uri()).upload_bytes("env", b"1")
    assert server.read("env") == b"1"


# Requests and connections


def test_one_request_per_operation_on_one_connection(server, bucket, tmp_path):
    """Nothing costs more than its one request, and all share a connection."""
    for number in range(5):
        bucket.upload_bytes(f"counted/{number}", b"x" * 100_000)
    bucket.keys("counted")
    for number in range(5):
        bucket.download_file(f"counted/{number}", tmp_path / "x")
        bucket.exists("nothing")
        bucket.delete(f"counted/{number}")
    assert server.requests.count(method="PUT") == 5
    assert server.requests.listings == 2  # the one asked for, and one before the first upload
    assert server.requests.count(method="DELETE") == 5
    assert len(server.requests) == 5 + 2 + 15
    assert server.requests.connections == 1


def test_instances_share_connections(server, settings):
    """Making a bucket for each call costs nothing."""
    for number in range(5):
        Bucket(server.uri(), settings).exists(f"x{number}")
        Bucket(server.uri(path="folder"), replace(settings)).exists("y")
    assert server.requests.connections == 1


def test_one_listing_per_folder_and_process(server, settings):
    """The question whether a file is in the way is asked once, even for many folders at once."""
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
    """Threads get their own contents over at most as many connections as there are workers."""
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
    """Copying from bucket to bucket does not wait for its own connection."""
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


def test_abandoned_streams_block_nobody(server, settings):
    """Whoever stops reading a download does not keep others from the bucket."""
    server.put("large", bytes(5_000_000))
    bucket = Bucket(server.uri(), replace(settings, max_workers=1))
    streams = [bucket.iter_content("large") for _ in range(5)]
    for stream in streams:
        next(stream)
    assert bucket.keys() == ["large"]
    for stream in streams:
        assert sum(map(len, stream)) < 5_000_000


# A file in the way


@pytest.mark.parametrize("behaviour", ["lose", "hang", "error"])
def test_a_file_in_the_way_is_named(settings, behaviour):
    """``d/x`` is refused with the name of the file ``d``, whatever the server would do with it."""
    with BucketFSServer(file_in_the_way=behaviour) as server:
        server.put("top/d", b"file")
        bucket = Bucket(server.uri(), settings)
        for key in ("top/d/x", "top/d/e/x"):
            with pytest.raises(PathBlockedError, match="default/top/d'"):
                bucket.upload_bytes(key, b"lost")
        with pytest.raises(NotADirectoryError):
            bucket.prepare_uploads(["top/a", "top/d/x"])
        assert server.keys() == ["top/d"]
        assert server.requests.count(method="PUT") == 0
        bucket.upload_bytes("top/dd/x", b"fine")


def test_a_folder_that_becomes_a_file_is_noticed(server, bucket):
    """What this process knows about a folder ends when it writes a file of its name."""
    bucket.upload_bytes("turn/d/x", b"1")
    bucket.delete("turn/d/x")
    bucket.upload_bytes("turn/d", b"now a file")
    with pytest.raises(PathBlockedError, match="turn/d'"):
        bucket.upload_bytes("turn/d/x", b"lost")
    bucket.delete("turn/d")
    bucket.upload_bytes("turn/d/x", b"again")
    assert server.read("turn/d/x") == b"again"


def test_a_file_and_a_folder_of_one_name_block_further_uploads(server, bucket):
    """Where ``d/x`` was there first, ``d`` may be written, and nothing below it after that."""
    bucket.upload_bytes("both/d/x", b"1")
    bucket.upload_bytes("both/d", b"2")
    assert server.keys() == ["both/d", "both/d/x"]
    with pytest.raises(PathBlockedError):
        bucket.upload_bytes("both/d/y", b"lost")


def test_a_folder_seen_while_a_file_of_its_name_is_uploaded_is_forgotten(
    own_server, settings, wait_until
):
    """What a listing showed before an upload ended does not count after it."""
    own_server.inject(Fault.stall(1, at="upload", key="race/d"))
    bucket = Bucket(own_server.uri(), settings)
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(bucket.upload_bytes, "race/d", b"file")
        wait_until(lambda: not len(own_server.faults))
        bucket.upload_bytes("race/d/x", b"1")
        upload.result(30)
    with pytest.raises(PathBlockedError, match="race/d'"):
        bucket.upload_bytes("race/d/y", b"lost")


# Passwords


@pytest.mark.parametrize(
    ("name", "login", "refusals"),
    [
        pytest.param("default", ("w", None), (None, MissingCredentialsError), id="public-none"),
        pytest.param("default", ("r", "read"), (None, AccessDeniedError), id="public-read"),
        pytest.param("default", ("w", "wrong"), (None, AccessDeniedError), id="public-wrong"),
        pytest.param("default", ("w", "write"), (None, None), id="public-write"),
        pytest.param(
            "private",
            ("w", None),
            (AuthenticationError, MissingCredentialsError),
            id="private-none",
        ),
        pytest.param("private", ("r", "read"), (None, AccessDeniedError), id="private-read"),
        pytest.param("private", ("w", "wrong"), (AccessDeniedError,) * 2, id="private-wrong"),
        pytest.param("private", ("r", "write"), (AccessDeniedError,) * 2, id="private-user"),
        pytest.param("private", ("w", "write"), (None, None), id="private-write"),
    ],
)
def test_who_may_do_what(server, tmp_path, name, login, refusals):
    """Each refusal is the error that says so, with the variables to set, after one request."""
    server.put("there", b"1", bucket=name)
    bucket = Bucket(server.uri(name), ConnectionSettings(*login))
    reading = [
        bucket.keys,
        lambda: bucket.exists("there"),
        lambda: bucket.download_file("there", tmp_path / "x"),
    ]
    writing = [lambda: bucket.upload_bytes("new", b"1"), lambda: bucket.delete("there")]
    for operations, error in zip((reading, writing), refusals, strict=True):
        for operation in operations:
            server.requests.clear()
            if error is None:
                operation()
                continue
            with pytest.raises(error, match="EXA_BUCKETFS_PASSWORD") as caught:
                operation()
            assert isinstance(caught.value, PermissionError)
            assert len(server.requests) == (error is not MissingCredentialsError)


def test_nothing_is_read_off_a_stream_without_a_password(server):
    """The source of an upload is untouched when the upload cannot work."""
    source = iter([b"1"])
    with pytest.raises(MissingCredentialsError):
        Bucket(server.uri(), ConnectionSettings()).upload_stream("x", source)
    assert next(source) == b"1"


@pytest.mark.parametrize("password", ["ß模", "a:b", " x ", "p%41@/#?", "\udcff"], ids=ascii)
def test_any_password_works(settings, password):
    """Passwords are sent as UTF-8, and bytes of the environment that are not UTF-8 as they are."""
    expected = password.encode("utf-8", "surrogateescape")
    try:
        known = expected.decode()
    except UnicodeDecodeError:
        known = expected.decode("latin-1")
    with BucketFSServer([BucketConfig("default", write_password=known)]) as server:
        Bucket(server.uri(), replace(settings, password=password)).upload_bytes("x", b"1")
        assert server.keys() == ["x"]


def test_a_missing_bucket_is_told(server, settings, tmp_path):
    """Listing and uploading name the bucket that is not there; a missing object is not found."""
    bucket = Bucket(server.uri().replace("/default", "/nowhere"), settings)
    for operation in (bucket.keys, lambda: bucket.upload_bytes("x", b"")):
        with pytest.raises(BucketNotFoundError, match="'nowhere'"):
            operation()
    assert not bucket.exists("x")
    with pytest.raises(ObjectNotFoundError):
        bucket.download_file("x", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_the_repr_shows_the_uri(bucket):
    """A bucket can be logged."""
    assert repr(bucket) == f"Bucket('{bucket.uri}')"
