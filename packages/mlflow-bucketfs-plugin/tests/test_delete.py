"""Tests of ``delete_artifacts``."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_testing.server import Fault

KEYS = ("other/x", "root/d/e/y", "root/d/x", "root/d.txt", "root/dd/x", "root/f", "rooted/x")


@pytest.mark.parametrize(
    ("path", "deleted"),
    [
        pytest.param("f", ["root/f"], id="file"),
        pytest.param("f/", ["root/f"], id="file with slash"),
        pytest.param("d", ["root/d/e/y", "root/d/x"], id="folder"),
        pytest.param("d/", ["root/d/e/y", "root/d/x"], id="folder with slash"),
        pytest.param("d/e", ["root/d/e/y"], id="inner folder"),
        pytest.param(None, [k for k in KEYS if k.startswith("root/")], id="root"),
        pytest.param("", [k for k in KEYS if k.startswith("root/")], id="root as empty path"),
        pytest.param("missing", [], id="missing"),
        pytest.param("d/x/y", [], id="below a file"),
    ],
)
def test_delete(server, repo, path, deleted):
    """A file, a folder or the root is deleted without siblings; a second call changes nothing."""
    server.put_many((key, b"1") for key in KEYS)
    for _ in range(2):
        repo.delete_artifacts(path)
        assert server.keys() == sorted(set(KEYS) - set(deleted))
    assert server.requests.count(method="DELETE") == len(deleted)
    assert server.requests.listings == 2


def test_file_and_folder_of_one_name(server, repo):
    """If BucketFS holds d and d/x, both are deleted."""
    server.put_many([("root/d/x", b"1"), ("root/d", b"2")])
    repo.delete_artifacts("d")
    assert server.keys() == []


@pytest.mark.parametrize(
    ("root", "path"),
    [("", None), ("", "/"), ("..", "{bucket}"), ("..", "{bucket}/")],
    ids=["root", "slash", "short root", "short root and slash"],
)
def test_bare_bucket_is_refused(server, root, path):
    """No call empties a bucket, however the URI is split."""
    server.put("precious", b"1")
    bucket = server.buckets[0].name
    uri = server.uri() if not root else server.uri().removesuffix(f"/{bucket}")
    repo = BucketFSArtifactRepository(uri)
    with pytest.raises(MlflowException, match="Refused to delete everything") as caught:
        repo.delete_artifacts(path and path.format(bucket=bucket))
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert server.keys() == ["precious"]
    assert server.requests.connections == 0


def test_path_out_of_the_root_is_refused(server, repo):
    """A path with .. is refused, and nothing is deleted."""
    server.put("other/x", b"1")
    with pytest.raises(MlflowException) as caught:
        repo.delete_artifacts("../other")
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert server.keys() == ["other/x"]


def test_mlmodel_is_deleted_first(server, repo):
    """MLmodel is deleted first, so that no partial model looks complete."""
    names = ("a", "MLmodel", "z", "inner/MLmodel", "inner/z")
    server.put_many((f"root/{name}", b"1") for name in names)
    repo.delete_artifacts()
    deleted = [r.key.removeprefix("root/") for r in server.requests if r.method == "DELETE"]
    assert set(deleted[:2]) == {"MLmodel", "inner/MLmodel"}
    assert sorted(deleted) == sorted(names)


def test_model_whose_mlmodel_cannot_be_deleted_is_kept(server, repo):
    """If MLmodel cannot be deleted, its model is kept, and other models are deleted."""
    names = ("a/MLmodel", "a/x", "a/sub/y", "b/MLmodel", "b/x", "c")
    server.put_many((f"root/{name}", b"1") for name in names)
    server.inject(Fault.status(403, method="DELETE", key="root/a/MLmodel", times=None))
    with pytest.raises(MlflowException, match="root/a/MLmodel: ") as caught:
        repo.delete_artifacts()
    assert caught.value.error_code == "PERMISSION_DENIED"
    assert server.keys() == ["root/a/MLmodel", "root/a/sub/y", "root/a/x"]


def test_one_failure_does_not_stop_the_others(server, repo):
    """The other files are deleted, the error names the rest, and a second call deletes it."""
    server.put_many((f"root/{number}", b"1") for number in range(30))
    server.inject(Fault.status(403, method="DELETE", key="root/7"))
    with pytest.raises(MlflowException, match=r"1 failure.*\n- root/7: "):
        repo.delete_artifacts()
    assert server.keys() == ["root/7"]
    repo.delete_artifacts()
    assert server.keys() == []


def test_transient_failures_are_retried(server, repo):
    """Lost connections and busy responses are retried."""
    server.put_many((f"root/{number}", b"1") for number in range(8))
    server.inject(
        Fault.status(503, method="DELETE"),
        Fault.reset_before_body(method="DELETE"),
        Fault.status(500, method="GET", key=""),
    )
    repo.delete_artifacts()
    assert server.keys() == []


def test_name_can_be_used_again(make_server, local, monkeypatch):
    """Logging to a deleted path, which BucketFS locks for seconds, is retried."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0.01")
    server = make_server()
    server.put("root/f", b"old")
    server.inject(Fault.status(423, method="PUT", times=3))
    repo = BucketFSArtifactRepository(server.uri(path="root"))
    repo.delete_artifacts("f")
    repo.log_artifact(local.write({"f": b"new"}) / "f")
    assert server.read("root/f") == b"new"
