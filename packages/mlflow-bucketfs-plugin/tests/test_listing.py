"""Tests of ``list_artifacts``."""

from __future__ import annotations

import pytest
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository


def entries(repo, path=None):
    """Return the path and kind of every entry."""
    return [(info.path, info.is_dir) for info in repo.list_artifacts(path)]


@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "shuffled"])
def test_one_level_sorted(make_server, shuffled):
    """A listing has one level, sorted by path, files and folders without trailing slash."""
    server = make_server(shuffle_listing=shuffled)
    server.put_many(
        (f"root/{name}", b"1") for name in ("z", "d/e/f", "a", "d/b", "D", "d.txt", "ä", "d/e/g")
    )
    repo = BucketFSArtifactRepository(server.uri(path="root"))
    expected = [("D", False), ("a", False), ("d", True), ("d.txt", False), ("z", False)]
    assert entries(repo) == [*expected, ("ä", False)]
    assert entries(repo, "d") == [("d/b", False), ("d/e", True)]
    assert entries(repo, "d/e") == [("d/e/f", False), ("d/e/g", False)]


def test_one_request_and_no_sizes(server, repo):
    """A listing is one request, and has no sizes, because BucketFS lists none."""
    server.put_many((f"root/{a}/{b}", b"1") for a in range(30) for b in range(10))
    listed = repo.list_artifacts()
    assert len(listed) == 30
    assert all(isinstance(info, FileInfo) and info.file_size is None for info in listed)
    assert (server.requests.listings, len(server.requests)) == (1, 1)


@pytest.mark.parametrize("path", ["file", "missing", "d/x", "d/missing", "fi", "d/x/y", "root"])
def test_nothing_for_files_and_for_what_is_missing(server, repo, path):
    """A file and a missing path have an empty listing; MLflow interprets that as a file."""
    server.put_many([("root/file", b"1"), ("root/d/x", b"2")])
    assert repo.list_artifacts(path) == []


def test_empty_root(repo):
    """An empty root has an empty listing."""
    assert repo.list_artifacts() == []
    assert repo.list_artifacts("") == []


@pytest.mark.parametrize("path", ["d/", "d//", "/d"], ids=["one", "two", "leading"])
def test_slashes_around_do_not_matter(server, repo, path):
    """A path with slashes around it lists the same entries under the same paths."""
    server.put_many([("root/d/x", b"1"), ("root/d/e/y", b"2")])
    assert entries(repo, path) == entries(repo, "d") == [("d/e", True), ("d/x", False)]


def test_siblings_with_the_same_beginning(server, repo):
    """A folder's listing does not contain siblings: ``foo`` is not ``foobar``."""
    server.put_many([("root/foobar/x", b""), ("root/foo.txt", b""), ("rootless/foo/x", b"")])
    assert entries(repo, "foo") == []
    assert entries(repo) == [("foo.txt", False), ("foobar", True)]
    server.put("root/foo/y", b"")
    assert entries(repo, "foo") == [("foo/y", False)]


def test_key_that_is_file_and_folder(server, repo):
    """If BucketFS holds d and d/x, d is one entry, a folder."""
    server.put_many([("root/d/x", b"1"), ("root/d", b"2")])
    assert entries(repo) == [("d", True)]
    assert entries(repo, "d") == [("d/x", False)]


@pytest.mark.parametrize("path", ["..", "d/../..", "d/./x", "a\nb"], ids=repr)
def test_path_that_could_escape(server, repo, path):
    """A path out of the root is refused before anything is sent."""
    with pytest.raises(MlflowException) as caught:
        repo.list_artifacts(path)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert server.requests.connections == 0


def test_double_slashes_in_old_locations(server):
    """A location with //, as of old experiments, has the same artifacts as one with /."""
    server.put("a/b/f", b"1")
    repo = BucketFSArtifactRepository(server.uri(path="a//b/"))
    assert entries(repo) == [("f", False)]


def test_private_bucket(make_server, monkeypatch):
    """A private bucket needs the read password; without one, the error names the variable."""
    server = make_server(public=False)
    server.put("root/f", b"1")
    monkeypatch.setenv("EXA_BUCKETFS_USER", "r")
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", "read")
    assert entries(BucketFSArtifactRepository(server.uri(path="root"))) == [("f", False)]
    monkeypatch.delenv("EXA_BUCKETFS_PASSWORD")
    with pytest.raises(MlflowException, match="EXA_BUCKETFS_PASSWORD") as caught:
        BucketFSArtifactRepository(server.uri(path="root")).list_artifacts()
    assert caught.value.error_code == "UNAUTHENTICATED"
