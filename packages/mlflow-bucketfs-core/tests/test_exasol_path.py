"""``bucket.as_path``: exasol-bucketfs behaves on our transport as on its own."""

from __future__ import annotations

import io
from pathlib import PurePath

import pytest
from exasol.bucketfs import path as exasol_path
from mlflow_bucketfs_core import Bucket, ConnectionSettings
from mlflow_bucketfs_core.errors import ObjectNotFoundError, PathBlockedError

# exasol-bucketfs 2.3.1 uses a class that Python 3.12 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:'collections.abc.ByteString':DeprecationWarning")

KEYS = ["top", "d/a.txt", "d/e/b", "d/e/c.tar.gz", "dd/x", "both", "both/x"]


@pytest.fixture
def theirs(server):
    """Make a path of exasol-bucketfs on its own transport."""

    def go(key=""):
        path = exasol_path.build_path(
            backend="onprem",
            url=server.url,
            bucket_name="default",
            service_name="bfsdefault",
            username="w",
            password="write",
            path=key,
        )
        assert type(path) is exasol_path.BucketPath
        return path

    return go


@pytest.fixture
def filled(server):
    """The server with some objects, each with its key as content."""
    server.put_many((key, key.encode()) for key in KEYS)
    return server


def walked(path):
    """Return the result of walking a path, sorted."""
    return sorted((str(folder), sorted(dirs), sorted(files)) for folder, dirs, files in path.walk())


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("key", ["", *KEYS, "d", "d/e", "dd", "missing", "d/a", "/d"])
def test_both_transports_give_the_same_results(bucket, theirs, key):
    """Queries of a path have the same results on both transports."""
    ours = bucket.as_path(key)
    other = theirs() / key if key else theirs()
    assert str(ours) == str(other)
    for question in ("exists", "is_file", "is_dir", "as_udf_path"):
        assert getattr(ours, question)() == getattr(other, question)()
    if ours.is_dir():
        assert sorted(map(str, ours.iterdir())) == sorted(map(str, other.iterdir()))
        assert walked(ours) == walked(other)
    if ours.is_file():
        assert b"".join(ours.read()) == b"".join(other.read()) == key.encode()


@pytest.mark.parametrize(
    ("data", "stored"),
    [
        pytest.param(b"bytes", b"bytes", id="bytes"),
        pytest.param(bytearray(b"bytes"), b"bytes", id="bytearray"),
        pytest.param([b"by", b"tes"], b"bytes", id="list"),
        pytest.param(io.BytesIO(b"bytes"), b"bytes", id="file"),
        pytest.param(b"", b"", id="empty"),
    ],
)
def test_uploads_can_be_read_by_the_other_transport(bucket, theirs, data, stored):
    """Every type of data that exasol-bucketfs accepts is uploaded."""
    (bucket.as_path("view") / "file").write(data)
    assert b"".join((theirs() / "view" / "file").read()) == stored


def test_uploads_of_the_other_transport_can_be_read(bucket, theirs):
    """A file that exasol-bucketfs's own transport uploaded is read unchanged."""
    (theirs() / "d" / "m.tar.gz").write(b"not gzip")
    assert b"".join(bucket.as_path("d/m.tar.gz").read(chunk_size=3)) == b"not gzip"


@pytest.mark.parametrize("size", [1, 8192, 60_000])
def test_pieces_have_at_most_the_requested_size(server, bucket, size):
    """A path is read in pieces of at most ``chunk_size`` bytes."""
    server.put("large", bytes(range(256)) * 1000)
    pieces = list(bucket.as_path("large").read(chunk_size=size))
    assert max(map(len, pieces)) == size
    assert b"".join(pieces) == server.read("large")


def test_removing(filled, bucket):
    """Files are removed by ``rm``, folders with ``rmdir(recursive=True)``; siblings stay."""
    bucket.as_path("d/a.txt").rm()
    with pytest.raises(OSError, match="not empty"):
        bucket.as_path("d").rmdir()
    bucket.as_path("d").rmdir(recursive=True)
    with pytest.raises(FileNotFoundError):
        bucket.as_path("missing").rm()
    assert filled.keys() == ["both", "both/x", "dd/x", "top"]


def test_errors_are_ours(filled, bucket):
    """A missing object and a file in the way raise this package's errors."""
    with pytest.raises(ObjectNotFoundError):
        b"".join(bucket.as_path("missing").read())
    with pytest.raises(PathBlockedError, match="top'"):
        (bucket.as_path("top") / "x").write(b"lost")
    assert filled.keys() == sorted(KEYS)


def test_odd_names_work_on_our_transport(server, bucket):
    """Names that exasol-bucketfs does not encode are encoded by our transport."""
    for name in ("a#b", "q?x", "p%41", "with space"):
        (bucket.as_path("odd") / name).write(name.encode())
        assert server.read(f"odd/{name}") == name.encode()
    assert {path.name for path in bucket.as_path("odd").iterdir()} == {
        "a#b",
        "q?x",
        "p%41",
        "with space",
    }


def test_all_operations_share_one_connection(server, bucket):
    """All operations of a path share the bucket's connection."""
    path = bucket.as_path("shared")
    for number in range(5):
        (path / f"{number}").write(b"1")
    assert len(list(path.iterdir())) == 5
    path.rmdir(recursive=True)
    assert server.requests.connections == 1


def test_paths_of_one_bucket_are_equal(bucket):
    """Paths are compared by bucket and key."""
    assert bucket.as_path("d/x") == bucket.as_path("d") / "x"
    assert str(bucket.as_path("d/x").relative_to(bucket.as_path("d"))) == "x"


def test_paths_of_two_equal_buckets_are_relative_to_each_other(bucket):
    """Buckets with equal URI and settings are equal, and so are their paths."""
    same = Bucket(bucket.uri, bucket.settings)
    assert same == bucket
    assert hash(same) == hash(bucket)
    assert bucket.as_path("d/e").relative_to(same.as_path("d")) == PurePath("e")
    other = Bucket(bucket.uri, ConnectionSettings(password="other"))
    assert other != bucket
    assert bucket != str(bucket.uri)
