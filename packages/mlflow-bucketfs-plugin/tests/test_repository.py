"""Tests of the repository's constructor, environment and root."""

from __future__ import annotations

import io
import os

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository


def test_constructor_sends_nothing_and_needs_no_password(server, monkeypatch):
    """The constructor sends no request and needs no password."""
    monkeypatch.delenv("EXA_BUCKETFS_PASSWORD")
    for uri in (server.uri(path="root"), "exa+bfss://no-such-host.invalid:1/s/b/p"):
        BucketFSArtifactRepository(uri, tracking_uri="sqlite://", registry_uri="sqlite://")
    assert server.requests.connections == 0


def test_repr_shows_the_uris_and_no_password(monkeypatch):
    """The repr of a repository, which MLflow logs, has the URIs and not the password."""
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", "top-secret")
    repo = BucketFSArtifactRepository("exa+bfs://h:1/s/b", "sqlite:///t.db", "sqlite:///r.db")
    assert repr(repo) == (
        "BucketFSArtifactRepository(artifact_uri='exa+bfs://h:1/s/b', "
        "tracking_uri='sqlite:///t.db', registry_uri='sqlite:///r.db')"
    )
    assert "top-secret" not in str(vars(repo))


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("exa+bfs://w:top-secret@h:1/s/b", id="password"),
        pytest.param("exa+bfs://h:1/s/b?x=1", id="query"),
        pytest.param("exa+bfs://h:1/s/b#x", id="fragment"),
        pytest.param("exa+bfs://h:1/s/b/../c", id="parent"),
        pytest.param("exa+bfs://h:x/s/b", id="port"),
        pytest.param("exa+bfs://h\\evil:1/s/b", id="backslash"),
        pytest.param("exa+bfs://", id="no host"),
    ],
)
def test_bad_uri_is_refused_at_once(uri):
    """An invalid URI is refused by the constructor, without showing its password."""
    with pytest.raises(MlflowException) as caught:
        BucketFSArtifactRepository(uri)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert "top-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EXA_SSL_CERT_VALIDATION", "maybe"),
        ("EXA_BUCKETFS_MAX_WORKERS", "0"),
        ("EXA_BUCKETFS_MOUNT_ROOT", "buckets"),
        ("EXA_BUCKETFS_MOUNT_FALLBACK", "yes"),
        ("EXA_BUCKETFS_ALLOWED_HOSTS", "http://h:1"),
        ("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "soon"),
    ],
)
def test_bad_variable_is_refused_at_once(monkeypatch, name, value):
    """A variable with an invalid value is refused by the constructor."""
    monkeypatch.setenv(name, value)
    with pytest.raises(MlflowException, match=name) as caught:
        BucketFSArtifactRepository("exa+bfs://h:1/s/b")
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_workers_follow_the_variable(monkeypatch):
    """The number of workers follows EXA_BUCKETFS_MAX_WORKERS."""
    monkeypatch.setenv("EXA_BUCKETFS_MAX_WORKERS", "3")
    repo = BucketFSArtifactRepository("exa+bfs://h:1/s/b")
    assert repo.max_workers == 3
    monkeypatch.setenv("EXA_BUCKETFS_MAX_WORKERS", "4")
    assert repo.max_workers == 4


def test_a_password_set_after_a_failure_is_seen_by_the_same_run(
    server, new_experiment, environment
):
    """A password set after a failure takes effect, although MLflow reuses the repository."""
    environment.delenv("EXA_BUCKETFS_PASSWORD")
    client = MlflowClient()
    run = client.create_run(new_experiment(server.uri(path="root"))).info.run_id
    with pytest.raises(MlflowException, match="set EXA_BUCKETFS_PASSWORD"):
        client.log_text(run, "text", "f.txt")
    environment.setenv("EXA_BUCKETFS_PASSWORD", "wrong")
    with pytest.raises(MlflowException, match="EXA_BUCKETFS_PASSWORD") as caught:
        client.log_text(run, "text", "f.txt")
    assert caught.value.error_code == "PERMISSION_DENIED"
    environment.setenv("EXA_BUCKETFS_PASSWORD", "write")
    client.log_text(run, "text", "f.txt")
    assert [i.path for i in client.list_artifacts(run)] == ["f.txt"]


CALLS = {
    "log_artifact": lambda repo, file: repo.log_artifact(file),
    "log_artifacts": lambda repo, file: repo.log_artifacts(file.parent),
    "stream": lambda repo, _: repo.log_artifact_from_stream(io.BytesIO(b"1"), "f"),
    "list_artifacts": lambda repo, _: repo.list_artifacts(),
    "download_artifacts": lambda repo, _: repo.download_artifacts("f"),
    "_download_file": lambda repo, file: repo._download_file("f", file.parent / "copy"),
    "get_local_path": lambda repo, _: repo.get_local_path("f"),
    "delete_artifacts": lambda repo, _: repo.delete_artifacts("f"),
    "max_workers": lambda repo, _: repo.max_workers,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_reads_the_environment_once(server, repo, local, environment, call):
    """A change of the environment, also for the host policy, takes effect in the next call."""
    server.put("root/f", b"1")
    file = local.write({"f": b"1"}) / "f"
    reads = []

    class Environment(type(os.environ)):
        def get(self, key, default=None):
            reads.append(key)
            return super().get(key, default)

    environment.setattr(os.environ, "__class__", Environment)
    call(repo, file)
    assert reads.count("EXA_BUCKETFS_USER") == 1
    connections = server.requests.connections
    for name, value in (
        ("EXA_BUCKETFS_ALLOWED_HOSTS", "elsewhere"),
        ("EXA_BUCKETFS_MAX_WORKERS", "many"),
    ):
        with environment.context() as changed:
            changed.setenv(name, value)
            with pytest.raises(MlflowException, match=name) as caught:
                call(repo, file)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert server.requests.connections == connections


@pytest.mark.parametrize(
    "missing_from_root", [1, 2], ids=["root without bucket", "root without service"]
)
def test_root_may_end_before_the_bucket(server, local, missing_from_root):
    """All methods accept a root that ends before the bucket, and paths that begin with it."""
    segments = [server.service, server.buckets[0].name]
    prefix = "/".join(segments[2 - missing_from_root :])
    root = server.uri().removesuffix(f"/{prefix}")
    assert root.count("/") == 4 - missing_from_root
    repo = BucketFSArtifactRepository(root)
    repo.log_artifacts(local.write({"a.txt": b"a", "d/b.txt": b"b"}), prefix)
    repo.log_artifact(local.write({"c.txt": b"c"}, "more") / "c.txt", f"{prefix}/d")
    assert server.keys() == ["a.txt", "d/b.txt", "d/c.txt"]
    assert [(i.path, i.is_dir) for i in repo.list_artifacts(prefix)] == [
        (f"{prefix}/a.txt", False),
        (f"{prefix}/d", True),
    ]
    target = local.directory()
    assert repo.download_artifacts(f"{prefix}/d", str(target)) == f"{target}/{prefix}/d"
    assert (target / prefix / "d" / "c.txt").read_bytes() == b"c"
    repo.delete_artifacts(f"{prefix}/d/")
    assert server.keys() == ["a.txt"]


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda repo: repo.list_artifacts(), id="list"),
        pytest.param(lambda repo: repo.download_artifacts(""), id="download"),
        pytest.param(lambda repo: repo.delete_artifacts(), id="delete"),
        pytest.param(lambda repo: repo.get_local_path(""), id="local path"),
    ],
)
def test_root_without_bucket_is_refused_when_used(server, use):
    """A URI without a bucket is refused when it is used, with the usual names as a remedy."""
    repo = BucketFSArtifactRepository(f"exa+bfs://127.0.0.1:{server.port}/bfsdefault")
    with pytest.raises(MlflowException, match=r"names no bucket.*bfsdefault/default") as caught:
        use(repo)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert server.requests.connections == 0


def test_one_repository_serves_all_runs(server, local, tmp_path):
    """One repository of a proxying server stores the artifacts of all runs."""
    repo = BucketFSArtifactRepository(server.uri(path="proxied/"))
    for run in ("1/aa/artifacts", "1/aab/artifacts"):
        repo.log_artifact(local.write({"f.txt": run.encode()}) / "f.txt", f"{run}/model")
    assert [i.path for i in repo.list_artifacts("1/aa/artifacts/")] == ["1/aa/artifacts/model"]
    repo.download_artifacts("1/aa/artifacts", str(tmp_path))
    assert local.read(tmp_path / "1") == {"aa/artifacts/model/f.txt": b"1/aa/artifacts"}
    repo.delete_artifacts("1/aa/artifacts/")
    assert server.keys() == ["proxied/1/aab/artifacts/model/f.txt"]
