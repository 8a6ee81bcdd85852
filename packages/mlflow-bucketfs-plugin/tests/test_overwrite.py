"""Tests of uploads over existing objects: overwritten models, folders that became files."""

from __future__ import annotations

import signal
import time
from multiprocessing import get_context
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_testing.server import Fault

OLD = {"MLmodel": b"flavors: {old: {}}\n", "a": b"old", "b": b"old"}
NEW = {"MLmodel": b"flavors: {new: {}}\n", "a": b"new", "b": b"new"}
VOID = b"incomplete_upload: An upload over this model began on "


@pytest.fixture
def old_model(server):
    """An earlier upload of another process: a model in ``root/model``."""
    server.put_many((f"root/model/{name}", data) for name, data in OLD.items())


def puts(server):
    """Return the keys of all uploads so far, in the order in which they began."""
    return [r.key.removeprefix("root/") for r in server.requests if r.method == "PUT"]


@pytest.mark.usefixtures("old_model")
def test_an_earlier_mlmodel_goes_first_and_the_new_one_last(server, repo, local):
    """An overwrite replaces MLmodel first, with one more request than a new model."""
    repo.log_artifacts(local.write(NEW), "model")
    assert {name: server.read(f"root/model/{name}") for name in NEW} == NEW
    first, *others, last = puts(server)
    assert (first, sorted(others), last) == ("model/MLmodel", ["model/a", "model/b"], first)
    for count, folder in enumerate(["new", "model/inner"], start=2):
        server.requests.clear()
        repo.log_artifacts(local.root / "files", folder)
        assert sorted(puts(server)) == sorted(f"{folder}/{name}" for name in NEW)
        assert (server.requests.listings, len(server.requests)) == (1, 4), count
    assert server.read("root/model/MLmodel") == NEW["MLmodel"]


@pytest.mark.usefixtures("old_model")
def test_an_overwrite_that_fails_leaves_no_model(server, repo, local, caplog, temporary_directory):
    """MLflow refuses a model after a failed overwrite; logging it again repairs it."""
    server.inject(Fault.status(403, method="PUT", key="root/model/b", times=None))
    with pytest.raises(MlflowException, match=r"- model/b: |- b: ") as caught:
        repo.log_artifacts(local.write(NEW), "model")
    assert "other files failed: MLmodel" in str(caught.value)
    assert server.read("root/model/MLmodel").startswith(VOID)
    for load in (mlflow.pyfunc.load_model, mlflow.sklearn.load_model):
        with pytest.raises(MlflowException, match="Model does not have the"):
            load(f"{repo.artifact_uri}/model")
    assert "MLmodel: An upload over this model began on " in caplog.text
    assert temporary_directory.is_dir()
    server.faults.clear()
    repo.log_artifacts(local.root / "files", "model")
    assert {name: server.read(f"root/model/{name}") for name in NEW} == NEW


# Python 3.12 and later warn of the server's threads, which do not exist in the child
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.usefixtures("old_model")
def test_a_killed_overwrite_leaves_no_model(server, local, bucket_on_mount):
    """After a killed overwrite, MLmodel has no flavors, and the error names its mounted path."""
    stall = Fault.stall(60, at="upload", key="root/model/?")
    server.inject(stall, stall)
    repo = BucketFSArtifactRepository(server.uri(path="root"))
    # forked, because another Python would import MLflow for seconds
    process = get_context("fork").Process(
        target=repo.log_artifacts, args=(local.write(NEW), "model")
    )
    process.start()
    try:
        deadline = time.monotonic() + 60
        while len(server.faults):
            assert process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert server.read("root/model/MLmodel").startswith(VOID)
    assert server.read("root/model/a") == OLD["a"]
    with pytest.raises(MlflowException) as caught:
        mlflow.pyfunc.load_model(f"{repo.artifact_uri}/model")
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    assert f"{bucket_on_mount}/root/model/MLmodel: An upload over " in str(caught.value)


def test_a_model_whose_mlmodel_cannot_be_replaced_is_not_changed(server, repo, local):
    """If MLmodel cannot be replaced, no file of its model or of inner models is uploaded."""
    old = {f"m/{name}": data for name, data in OLD.items()} | {"m/in/MLmodel": b"1", "m/in/x": b"1"}
    server.put_many((f"root/{name}", data) for name, data in old.items())
    server.inject(Fault.status(418, method="PUT", key="root/m/MLmodel", times=None))
    new = {**dict.fromkeys(old, b"2"), "z": b"2", "n/MLmodel": b"2", "n/x": b"2"}
    with pytest.raises(MlflowException, match=r"- m/MLmodel: .*418") as caught:
        repo.log_artifacts(local.write(new))
    (note,) = str(caught.value).splitlines()[2:]
    assert note.startswith("Nothing was uploaded to these models, because their earlier MLmodel ")
    assert note.endswith(": m/MLmodel")
    assert {name: server.read(f"root/{name}") for name in new} == {**new, **old}


def test_models_within_models_are_all_replaced_first(server, repo, local):
    """Each MLmodel in the upload is replaced before the first file, the outer one first."""
    old = dict.fromkeys(("MLmodel", "in/MLmodel", "other/MLmodel"), b"1")
    server.put_many((f"root/{name}", data) for name, data in old.items())
    repo.log_artifacts(local.write(dict.fromkeys(("MLmodel", "in/MLmodel", "x", "in/x"), b"2")))
    first, second, *others = puts(server)
    assert (first, second) == ("MLmodel", "in/MLmodel")
    assert others[-2:] == ["in/MLmodel", "MLmodel"]
    assert server.read("root/other/MLmodel") == b"1"


def test_a_folder_that_became_a_file_is_noticed(server, repo, local):
    """Each upload of a directory checks for a file in the way, also in a known folder."""
    repo.log_artifacts(local.write({"a": b"1"}), "runs")
    server.delete("root/runs/a")
    server.put("root/runs", b"of another process")
    server.requests.clear()
    with pytest.raises(MlflowException, match="root/runs': a file of this name is in the way"):
        repo.log_artifacts(local.write({"b": b"1"}, "other"), "runs")
    assert (server.requests.listings, len(server.requests)) == (1, 1)


def test_an_incomplete_model_is_still_downloaded(server, local):
    """The files of an incomplete model can be downloaded over HTTP."""
    server.put_many([("root/m/MLmodel", VOID + b"today"), ("root/m/a", b"1")])
    repo = BucketFSArtifactRepository(server.uri(path="root"))
    assert local.read(Path(repo.download_artifacts("m"))) == {"MLmodel": VOID + b"today", "a": b"1"}
