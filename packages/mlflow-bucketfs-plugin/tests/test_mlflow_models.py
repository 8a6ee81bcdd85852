"""Tests of models logged and loaded by MLflow, over HTTP and from a read-only mount."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer
from sklearn.linear_model import LinearRegression

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")

# every URI contains escapes that must stay as they are
FOLDER = "ml%41flow/a%20b"
KINDS = ("runs", "version", "alias", "latest", "logged model", "raw")


@dataclass
class Logged:
    """A model y = 2x + 1, its server, its URIs, and its keys in the order of upload."""

    server: BucketFSServer
    tracking_uri: str
    uris: dict[str, str]
    keys: list[str]


@pytest.fixture(scope="module")
def logged(tracking_uri):
    """Log a scikit-learn model as a user does, once for all tests."""
    bucket = BucketConfig("test-mlflow-models")
    with BucketFSServer((bucket,)) as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("EXA_BUCKETFS_PASSWORD", "write")
        environment.setenv("MLFLOW_TRACKING_URI", tracking_uri)
        client = MlflowClient()
        experiment_id = client.create_experiment("models", server.uri(path=FOLDER))
        model = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
        with mlflow.start_run(experiment_id=experiment_id) as run:
            info = mlflow.sklearn.log_model(
                model,
                name="model",
                registered_model_name="churn",
                pip_requirements=["scikit-learn"],
            )
        client.set_registered_model_alias("churn", "champion", "1")
        uploaded = [record.key for record in server.requests if record.method == "PUT"]
        location = client.get_logged_model(info.model_id).artifact_location
        uris = (
            f"runs:/{run.info.run_id}/model",
            "models:/churn/1",
            "models:/churn@champion",
            "models:/churn/latest",
            f"models:/{info.model_id}",
            location,
        )
        yield Logged(server, tracking_uri, dict(zip(KINDS, uris, strict=True)), uploaded)


@pytest.fixture(autouse=True)
def _tracking(environment, logged):
    environment.setenv("MLFLOW_TRACKING_URI", logged.tracking_uri)
    logged.server.requests.clear()


def test_mlmodel_was_uploaded_last(logged):
    """The keys are below the location that MLflow set, and MLmodel was uploaded last."""
    assert sorted(logged.keys) == logged.server.keys()
    assert all(key.startswith(f"{FOLDER}/models/m-") for key in logged.keys)
    mlmodels = [key for key in logged.keys if key.endswith("/MLmodel")]
    assert mlmodels == logged.keys[-1:]


@pytest.mark.parametrize("kind", KINDS)
def test_loads_over_http(logged, kind):
    """Each kind of URI loads the model, with one listing (runs:/ two) and one GET per file."""
    model = mlflow.sklearn.load_model(logged.uris[kind])
    assert model.predict([[2.0]]) == pytest.approx([5.0])
    requests = logged.server.requests
    assert requests.listings == (2 if kind == "runs" else 1)
    assert len(requests) - requests.listings == len(logged.keys)
    assert requests.count(status=200) == len(requests)


def test_raw_uri_as_model_source(logged):
    """A version created from a raw URI, with escapes in it, loads by its name."""
    version = MlflowClient().create_model_version("churn", logged.uris["raw"])
    model = mlflow.pyfunc.load_model(f"models:/churn/{version.version}")
    assert model.predict([[2.0]]) == pytest.approx([5.0])
    MlflowClient().delete_model_version("churn", version.version)


def test_parts_of_a_model(logged):
    """Files within a model are listed and downloaded by each kind of URI that can name them."""
    for kind, uri in logged.uris.items():
        names = [i.path.rpartition("/")[2] for i in mlflow.artifacts.list_artifacts(uri)]
        assert names == sorted(key.rpartition("/")[2] for key in logged.keys)
        if kind != "logged model":
            path = mlflow.artifacts.download_artifacts(f"{uri}/MLmodel")
            assert "model_id" in Path(path).read_text()


LOADING = """
import errno, json, os, sys
from pathlib import Path

import mlflow

report = {}
for number, (kind, uri) in enumerate(json.loads(sys.argv[1]).items()):
    os.environ["EXA_BUCKETFS_PASSWORD"] = "wrong" if number % 2 else ""
    directory = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    report[kind] = {
        "copied": sorted(p.name for p in directory.iterdir() if not p.is_symlink()),
        "predicted": mlflow.pyfunc.load_model(uri).predict([[2.0]]).tolist(),
        "listed": len(mlflow.artifacts.list_artifacts(artifact_uri=uri)),
    }
try:
    Path(os.environ["EXA_BUCKETFS_MOUNT_ROOT"], "written").touch()
except OSError as error:
    report["writing"] = errno.errorcode[error.errno]
print(json.dumps(report))
"""
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def run_with_read_only(directory, *command, **variables):
    """Run a command that sees a directory mounted read-only, or skip if that is impossible."""
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, str(directory)]
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("mounting read-only needs `unshare` and permission to make namespaces")
    return subprocess.run(
        [*prefix, *command],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
        check=True,
        timeout=600,
    ).stdout


def test_loads_from_a_read_only_mount(logged):
    """Each kind of URI loads from the mount without a request; only ``runs:/`` copies all files.

    The password is missing or wrong.
    """
    output = run_with_read_only(
        logged.server.mount_root,
        *(sys.executable, "-c", LOADING, json.dumps(logged.uris)),
        EXA_BUCKETFS_MOUNT_ROOT=str(logged.server.mount_root),
    )
    report = json.loads(output.splitlines()[-1])
    assert report.pop("writing") == "EROFS"
    assert list(report) == list(KINDS)
    # MLflow writes registered_model_meta into the directory that it gets for models:/
    assert "registered_model_meta" in report["version"]["copied"]
    for kind, result in report.items():
        copied = len(logged.keys) if kind == "runs" else 1  # MLflow passes a dst_path for runs:/
        assert len(set(result.pop("copied")) - {"registered_model_meta"}) == copied
        assert result == {"predicted": pytest.approx([5.0]), "listed": len(logged.keys)}
    assert logged.server.requests.connections == 0


FALLING_BACK = """
import os, sys
import mlflow
from mlflow_bucketfs_core import load_model_with_fallback

uri, *mounts = sys.argv[1:]
for mount in mounts:
    os.environ["EXA_BUCKETFS_MOUNT_ROOT"] = mount
    try:
        mlflow.sklearn.load_model(uri)
    except Exception as error:
        print("refused:", type(error).__name__)
    model = load_model_with_fallback(uri, mlflow.sklearn.load_model)
    print("predicted:", model.predict([[2.0]])[0])
"""


def test_a_damaged_model_on_the_mount_is_loaded_over_http(logged, tmp_path):
    """``load_model_with_fallback`` loads a model over HTTP that is damaged on the mount."""
    mounts = {name: tmp_path / name for name in ("damaged", "not arrived")}
    for mount in mounts.values():
        shutil.copytree(logged.server.mount_root, mount)
    for part in list(mounts["damaged"].rglob("model.*")):
        part.write_bytes(b"damaged")
    for mlmodel in list(mounts["not arrived"].rglob("MLmodel")):
        shutil.rmtree(mlmodel.parent)
    output = subprocess.run(
        [sys.executable, "-c", FALLING_BACK, logged.uris["raw"], *mounts.values()],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
        check=True,
        timeout=600,
    ).stdout
    lines = [line.partition(": ") for line in output.splitlines()[-4:]]
    assert [name for name, _, _ in lines] == ["refused", "predicted"] * 2
    assert [float(value) for _, _, value in lines[1::2]] == pytest.approx([5.0, 5.0])
    assert logged.server.requests.listings == 2
