"""Tests of the choice between the mount and HTTP."""

from __future__ import annotations

import io
import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings
from mlflow_bucketfs_plugin.mount import find_mounted_bucket
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_testing.server import Fault

MODEL = f"1/models/m-{'0a' * 16}/artifacts"
FILES = {"MLmodel": b"flavors: {}\n", "model.pkl": b"pickle", "code/x.py": b"", ".hidden": b"h"}


@pytest.fixture(autouse=True)
def _no_password(monkeypatch):
    monkeypatch.delenv("EXA_BUCKETFS_PASSWORD")


def test_fallback(server, mounted, local, monkeypatch):
    """With the fallback, missing files and incomplete models are read over HTTP."""
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_FALLBACK", "http")
    repo = BucketFSArtifactRepository(mounted.artifact_uri)
    server.mount_paused = True
    server.delete(f"root/{MODEL}/MLmodel")
    server.mount_paused = False
    server.mount_paused = True
    server.put_many([(f"root/{MODEL}/MLmodel", FILES["MLmodel"]), ("root/late/f", b"l")])
    assert Path(repo.download_artifacts("plots/a.png")).read_bytes() == b"12345"
    assert server.requests.connections == 0
    assert [(i.path, i.file_size) for i in repo.list_artifacts("plots")] == [("plots/a.png", 5)]
    assert (server.requests.listings, len(server.requests)) == (1, 1)
    assert local.read(Path(repo.download_artifacts(MODEL))) == FILES
    assert Path(repo.download_artifacts("late/f")).read_bytes() == b"l"
    assert [i.path for i in repo.list_artifacts("late")] == ["late/f"]
    assert repo.get_local_path("late/f") is None
    with pytest.raises(MlflowException) as caught:
        repo.download_artifacts("missing")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert "EXA_BUCKETFS_MOUNT_FALLBACK" not in str(caught.value)


def test_fallback_for_an_incomplete_model(server, mounted, local, monkeypatch, caplog):
    """With the fallback, a model with a missing part is read and listed over HTTP."""
    named = {"MLmodel": b"flavors: {a: {data: weights}}\n"}
    server.put(f"root/{MODEL}/MLmodel", named["MLmodel"])
    server.mount_paused = True
    server.put(f"root/{MODEL}/weights", b"w")
    with pytest.raises(MlflowException, match=f"{MODEL}/weights does not exist"):
        mounted.download_artifacts(MODEL)
    assert server.requests.connections == 0
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_FALLBACK", "http")
    repo = BucketFSArtifactRepository(mounted.artifact_uri)
    complete = {**FILES, **named, "weights": b"w"}
    assert local.read(Path(repo.download_artifacts(MODEL))) == complete
    assert f"{MODEL}/weights" in [i.path for i in repo.list_artifacts(MODEL)]
    assert f"{MODEL}/weights does not exist" in caplog.text


WRITES = {
    "file": lambda repo, local: repo.log_artifact(local.write({"new": b"1"}) / "new"),
    "directory": lambda repo, local: repo.log_artifacts(local.write({"new": b"1"})),
    "stream": lambda repo, _: repo.log_artifact_from_stream(io.BytesIO(b"1"), "new"),
    "delete": lambda repo, _: repo.delete_artifacts("notes.txt"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_own_writes_are_seen(server, mounted, local, monkeypatch, write):
    """After its first write, a process reads the bucket over HTTP."""
    server.mount_paused = True
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", "write")
    writer = BucketFSArtifactRepository(f"{mounted.artifact_uri}/")
    write(writer, local)
    for repo in (writer, mounted):
        listed = [i.path for i in repo.list_artifacts()]
        assert listed == sorted({key.split("/")[1] for key in server.keys()})
        assert len(listed) in {2, 4}
        assert repo.get_local_path("plots") is None
        assert Path(repo.download_artifacts("plots/a.png")).read_bytes() == b"12345"
    assert server.requests.listings >= 4


@pytest.mark.usefixtures("no_requests")
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_write_that_cannot_happen_changes_nothing(mounted, local, write):
    """A write refused because of a missing password leaves reads on the mount."""
    with pytest.raises(MlflowException, match="EXA_BUCKETFS_PASSWORD"):
        write(mounted, local)
    assert len(mounted.list_artifacts()) == 3


IN_THE_WAY = MlflowException, "/notes.txt': a file of this name is in the way"
NOTHING_WRITTEN = {
    "empty directory": (lambda repo, local: repo.log_artifacts(local.write({})), None),
    "missing file": (
        lambda repo, local: repo.log_artifact(local.root / "missing"),
        (FileNotFoundError, "missing"),
    ),
    "file in the way": (
        lambda repo, local: repo.log_artifact(local.write({"new": b"1"}) / "new", "notes.txt"),
        IN_THE_WAY,
    ),
    "file in the way of a directory": (
        lambda repo, local: repo.log_artifacts(local.write({"new": b"1"}), "notes.txt"),
        IN_THE_WAY,
    ),
    "file in the way of a stream": (
        lambda repo, _: repo.log_artifact_from_stream(io.BytesIO(b"1"), "new", "notes.txt"),
        IN_THE_WAY,
    ),
    "deletion of nothing": (lambda repo, _: repo.delete_artifacts("missing"), None),
}


@pytest.mark.parametrize(("write", "refusal"), NOTHING_WRITTEN.values(), ids=NOTHING_WRITTEN)
def test_write_that_writes_nothing(server, mounted, local, monkeypatch, write, refusal):  # noqa: PLR0917
    """If a write stores nothing, reads stay on the mount."""
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", "write")
    with pytest.raises(refusal[0], match=refusal[1]) if refusal else nullcontext():
        write(mounted, local)
    assert server.requests.count(method="PUT") == server.requests.count(method="DELETE") == 0
    assert mounted.get_local_path("plots") is not None


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_rejected_password_changes_nothing(mounted, local, monkeypatch, write):
    """If BucketFS rejects the password of a write, reads stay on the mount."""
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", "wrong")
    with pytest.raises(MlflowException) as error:
        write(mounted, local)
    assert error.value.error_code == "PERMISSION_DENIED"
    assert mounted.get_local_path("plots") is not None


def test_links_are_not_written_through(server, mounted, temporary_directory, monkeypatch):
    """A download over HTTP into a directory of links replaces them; the mount is not changed."""
    source, model = Path(mounted.get_local_path(MODEL)), Path(mounted.download_artifacts(MODEL))
    assert (model / "model.pkl").is_symlink()
    server.mount_paused = True
    server.put(f"root/{MODEL}/model.pkl", b"newer")
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", "/nowhere")
    repo = BucketFSArtifactRepository(mounted.artifact_uri)
    target = str(model).removesuffix(f"/{MODEL}")
    assert temporary_directory in Path(target).parents
    assert repo.download_artifacts(MODEL, target) == str(model)
    assert (model / "model.pkl").read_bytes() == b"newer"
    assert (source / "model.pkl").read_bytes() == b"pickle"


@pytest.mark.parametrize("explicit", [True, False], ids=["explicit root", "default root"])
@pytest.mark.parametrize("in_server", [True, False], ids=["server", "client"])
def test_servers_need_an_explicit_root(mounted, monkeypatch, explicit, in_server):
    """A tracking server uses a mount, which checks no password, only if its root is explicit."""
    settings = replace(ConnectionSettings.from_env(), mount_root_is_explicit=explicit)
    if in_server:
        monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", mounted.artifact_uri)
    found = find_mounted_bucket(BucketFSUri.parse(mounted.artifact_uri), settings, [])
    assert (found is not None) is (explicit or not in_server)


def test_host_policy_comes_before_the_mount(mounted, monkeypatch):
    """A tracking server refuses a host that is not allowed, even if its bucket is mounted."""
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "exa+bfs://elsewhere:1/s/b")
    with pytest.raises(MlflowException, match="EXA_BUCKETFS_ALLOWED_HOSTS"):
        BucketFSArtifactRepository(mounted.artifact_uri)


def test_mount_hosts(make_server, server, mounted, monkeypatch, caplog):
    """Only buckets of listed hosts are read from the mount."""
    other = make_server(bucket=server.buckets[0].name)
    other.put("root/notes.txt", b"other cluster")
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_HOSTS", f"unrelated,127.0.0.1:{server.port}")
    with caplog.at_level(logging.INFO, "mlflow_bucketfs_plugin"):
        for uri, data in ((mounted.artifact_uri, b"n"), (other.uri(path="root"), b"other cluster")):
            repo = BucketFSArtifactRepository(uri)
            assert Path(repo.download_artifacts("notes.txt")).read_bytes() == data
    assert (server.requests.connections, other.requests.connections) == (0, 1)
    assert "are read from" not in caplog.text


@pytest.mark.usefixtures("no_requests")
def test_use_of_the_mount_is_logged_once(mounted, bucket_on_mount, caplog):
    """Without a list of hosts, the URI and its mounted directory are logged once."""
    with caplog.at_level(logging.INFO, "mlflow_bucketfs_plugin"):
        for _ in range(3):
            BucketFSArtifactRepository(mounted.artifact_uri).list_artifacts()
    reported = [r.getMessage() for r in caplog.records if "are read from" in r.getMessage()]
    assert len(reported) == 1
    assert mounted.artifact_uri in reported[0]
    assert str(bucket_on_mount) in reported[0]
    assert "EXA_BUCKETFS_MOUNT_HOSTS" in reported[0]


@pytest.mark.usefixtures("no_requests")
def test_unmounted_bucket_has_no_local_path(server, mounted, monkeypatch):
    """A bucket without a directory below the mount root is not read from the mount."""
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", str(server.mount_root / "nowhere"))
    assert BucketFSArtifactRepository(mounted.artifact_uri).get_local_path("notes.txt") is None


def _not_mounted(server, monkeypatch):
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", str(server.mount_root / server.service))
    return f"{server.service}/{server.buckets[0].name} does not exist"


def _other_hosts(server, monkeypatch):
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_HOSTS", "elsewhere")
    return f"127.0.0.1:{server.port} is not in EXA_BUCKETFS_MOUNT_HOSTS"


def _fallback_for_a_missing_part(server, monkeypatch):
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_FALLBACK", "http")
    server.put(f"root/{MODEL}/MLmodel", b"flavors: {a: {data: weights}}\n")
    return f"{MODEL}/weights does not exist, but"


def _fallback_for_a_missing_file(server, monkeypatch):
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_FALLBACK", "http")
    server.mount_paused = True
    server.delete(f"root/{MODEL}/MLmodel")
    server.mount_paused = False
    return f"{MODEL} does not exist"


@pytest.mark.parametrize(
    "prepare",
    [_not_mounted, _other_hosts, _fallback_for_a_missing_part, _fallback_for_a_missing_file],
)
def test_error_over_http_names_the_reason_on_the_mount(server, mounted, monkeypatch, prepare):
    """An error over HTTP contains the reason why the mount was not read."""
    reason = prepare(server, monkeypatch)
    server.inject(Fault.status(403, times=None))
    with pytest.raises(MlflowException, match="403") as caught:
        mounted.download_artifacts(MODEL)
    assert caught.value.error_code == "PERMISSION_DENIED"
    assert reason in str(caught.value)
    assert str(caught.value).count("In a UDF, set variables by os.environ before") == 1


def test_error_without_any_mount_has_no_such_reason(server, mounted, monkeypatch):
    """If no bucket is mounted, as outside of UDFs, errors do not mention a mount."""
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", "/nowhere")
    server.inject(Fault.status(403, times=None))
    with pytest.raises(MlflowException, match="403") as caught:
        mounted.download_artifacts(MODEL)
    assert "mount" not in str(caught.value)
