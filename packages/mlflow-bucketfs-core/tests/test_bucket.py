"""``Bucket`` on a server without faults: names, sizes, positions and keys."""

from __future__ import annotations

import io
import pickle
import random
import sys
from dataclasses import replace

import pytest
from mlflow_bucketfs_core import Bucket, ConnectionSettings
from mlflow_bucketfs_core.errors import (
    BucketNotFoundError,
    InvalidKeyError,
    InvalidUriError,
    ObjectNotFoundError,
)
from mlflow_bucketfs_testing.server import BucketFSServer, Fault

# Names that some layer between this package and the disk of a BucketFS might change. The plugin's
# tests have fewer, for the layers between MLflow and this package.
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


def test_odd_names_are_transferred_unchanged(server, bucket, tmp_path):
    """A file with an odd name keeps name and content, in its key and in the listing."""
    contents = {f"dir {name[:40]}/{name}": name.encode() * 2 for name in ODD_NAMES}
    for key, content in contents.items():
        (tmp_path / "up").write_bytes(content)
        bucket.upload_file(key, tmp_path / "up")
    assert {key: server.read(key) for key in server.keys()} == contents
    assert sorted(bucket.keys()) == sorted(contents)
    for key, content in contents.items():
        assert bucket.keys(key) == [key]
        assert bucket.exists(key)
        bucket.download_file(key, tmp_path / "down")
        assert (tmp_path / "down").read_bytes() == content
    for key in list(contents):
        bucket.delete(key)
        del contents[key]
        assert server.keys() == sorted(contents)


@pytest.fixture
def any_bucket(request, server, settings):
    """The public bucket over HTTP, or over HTTPS."""
    if request.param == "http":
        return Bucket(server.uri(), settings)
    pinned = replace(settings, cert_fingerprint=server.certificate_fingerprint)
    return Bucket(server.tls_uri(), pinned)


@pytest.mark.parametrize(
    ("any_bucket", "size"),
    [
        ("http", 0),
        ("http", 1),
        ("http", 65_536),
        ("http", (1 << 20) - 1),
        ("http", 1 << 20),
        ("http", (1 << 20) + 1),
        ("http", 9_000_000),
        # TLS splits the body into records of another size
        ("https", 0),
        ("https", 9_000_000),
    ],
    indirect=["any_bucket"],
)
def test_any_size_is_transferred_unchanged(server, any_bucket, tmp_path, size):
    """Content with a size around a block is unchanged after each kind of transfer."""
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


def test_content_marked_as_gzip_is_not_decoded(server, bucket, tmp_path):
    """A ``.gz`` file is downloaded as it was stored, although BucketFS marks it as encoded."""
    server.put("a.tar.gz", b"not even gzip")
    bucket.download_file("a.tar.gz", tmp_path / "a.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == b"not even gzip"


def test_downloads_without_a_length_are_complete(settings, tmp_path):
    """A chunked response without a length is downloaded completely."""
    with BucketFSServer(content_length=False) as server:
        server.put("a", b"x" * 3_000_000)
        Bucket(server.uri(), settings).download_file("a", tmp_path / "a")
    assert (tmp_path / "a").stat().st_size == 3_000_000


class Pipe(io.RawIOBase):
    """A binary file that cannot be rewound and returns at most 1000 bytes per read."""

    def __init__(self, content):
        self._content = io.BytesIO(content)

    def readable(self):
        """Return ``True``."""
        return True

    def read(self, size=-1):
        """Return at most 1000 bytes."""
        return self._content.read(min(size, 1000) if size >= 0 else 1000)


@pytest.mark.parametrize("skip", [0, 5, 100, 200])
def test_file_objects_are_sent_from_their_position(server, bucket, skip):
    """A file object is uploaded from its position on."""
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
    """Listing ``foo`` returns ``foo`` and the keys below it, not ``foobar``."""
    server.put_many(
        (key, b"") for key in ["foo", "foo/a", "foo/b/c", "foobar", "foobar/d", "x/foo"]
    )
    assert sorted(bucket.keys("foo")) == ["foo", "foo/a", "foo/b/c"]
    assert sorted(bucket.keys("/foo/b//")) == ["foo/b/c"]
    assert bucket.keys("fo") == []
    assert len(bucket.keys()) == 6


def test_only_objects_exist(server, bucket):
    """A folder, or the beginning of another key, does not exist as an object."""
    server.put("d/x", b"1")
    assert bucket.exists("d/x")
    assert not bucket.exists("d")
    assert not bucket.exists("d/x2")


def test_deleting_twice_is_not_an_error(server, bucket):
    """Deleting a missing object succeeds, and deletes nothing else."""
    server.put_many([("d", b"1"), ("d2", b"1"), ("d/x", b"1")])
    for _ in range(2):
        bucket.delete("d")
    assert server.keys() == ["d/x", "d2"]


def test_deleting_in_a_missing_bucket_is_an_error(server, settings):
    """A deletion in a missing bucket raises an error, unlike one of a missing object."""
    bucket = Bucket(server.uri().replace("/default", "/nowhere"), settings)
    with pytest.raises(BucketNotFoundError, match="'nowhere'"):
        bucket.delete("d/x")


def test_a_404_for_a_missing_object_is_not_an_error(server, bucket):
    """A deletion that is answered with 404 succeeds if the bucket can be listed."""
    server.inject(Fault.status(404, method="DELETE"))
    bucket.delete("d/x")
    assert [record.method for record in server.requests] == ["DELETE", "GET"]


@pytest.mark.parametrize("key", ["", "/", "a/../b", "a\nb"])
def test_invalid_keys_are_refused_before_any_request(server, bucket, tmp_path, key):
    """No request is sent for an invalid key."""
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
    """A URI that ends before the bucket is refused."""
    with pytest.raises(InvalidUriError, match="names no bucket"):
        Bucket("exa+bfs://h/s", ConnectionSettings())


def test_settings_come_from_the_environment_by_default(server, monkeypatch):
    """Without settings, the environment variables are used."""
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", "write")
    Bucket(server.uri()).upload_bytes("env", b"1")
    assert server.read("env") == b"1"


def test_a_missing_bucket_is_reported(server, settings, tmp_path):
    """Listing and uploading name a missing bucket; a download reports a missing object."""
    bucket = Bucket(server.uri().replace("/default", "/nowhere"), settings)
    for operation in (bucket.keys, lambda: bucket.upload_bytes("x", b"")):
        with pytest.raises(BucketNotFoundError, match="'nowhere'"):
            operation()
    assert not bucket.exists("x")
    with pytest.raises(ObjectNotFoundError):
        bucket.download_file("x", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_service_is_suggested(server, settings):
    """The error suggests a missing service, unless the URI has Exasol's default service."""
    forgotten = Bucket(f"exa+bfs://127.0.0.1:{server.port}/default/mlflow/run", settings)
    with pytest.raises(BucketNotFoundError, match="no bucket 'mlflow'") as caught:
        forgotten.keys()
    hint = (
        "Is the service missing in the URI? It is exa+bfs://host/service/bucket/path, and "
        "'default' was taken for the service."
    )
    assert str(caught.value).endswith(hint)
    with pytest.raises(BucketNotFoundError, match=r"lists the buckets\.$"):
        Bucket(server.uri().replace("/default", "/nowhere"), settings).keys()


def test_the_reason_is_the_same_for_all_objects(bucket, tmp_path):
    """The reason of an error contains neither operation nor URI."""
    reasons = set()
    for key in ("a", "b"):
        with pytest.raises(ObjectNotFoundError, match=f"{key}: there is no such") as caught:
            bucket.download_file(key, tmp_path / key)
        reasons.add(caught.value.reason)
        assert pickle.loads(pickle.dumps(caught.value)).reason in reasons  # noqa: S301 -- our own
    assert reasons == {"there is no such object (404)."}


def test_the_repr_shows_the_uri(bucket):
    """The ``repr`` of a bucket contains its URI."""
    assert repr(bucket) == f"Bucket('{bucket.uri}')"


def _ours_above(frame):
    """Return the functions of this package on the stack above a frame, the outermost first."""
    names = []
    while frame := frame.f_back:
        if frame.f_globals["__name__"].startswith("mlflow_bucketfs_core"):
            names.insert(0, frame.f_code.co_name)
    return names


def test_an_upload_makes_few_calls(bucket, tmp_path):
    """An upload calls urllib3 through five functions, and validates its key once."""
    (tmp_path / "file").write_bytes(b"1")
    bucket.upload_file("folder/first", tmp_path / "file")  # imports modules, and lists the bucket
    sent, called = [], []

    def note(frame, event, _):
        if event == "call":
            name = frame.f_code.co_name
            called.append(name)
            if name == "urlopen":
                sent.append(_ours_above(frame))

    sys.setprofile(note)
    try:
        bucket.upload_file("folder/second", tmp_path / "file")
    finally:
        sys.setprofile(None)
    assert sent == [["upload_file", "_upload", "run", "attempt", "send"]]
    assert called.count("split_key") == 1
