"""Tests of incomplete models on the mount: the errors that MLflow's functions raise."""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow_bucketfs_core import load_model_with_fallback, mounted_path
from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer
from sklearn.linear_model import LinearRegression

# MLflow 3.8 has no skops
FORMATS = [
    f for f in ("skops", "cloudpickle") if f in mlflow.sklearn.SUPPORTED_SERIALIZATION_FORMATS
]
KINDS = ("runs", "version", "alias", "logged model", "raw")


@dataclass
class Stored:
    """A model that this process has not written, and its URIs."""

    server: BucketFSServer
    format: str
    uris: dict[str, str]

    @property
    def part(self):
        """The name of the file with the serialized model."""
        return {"skops": "model.skops", "cloudpickle": "model.pkl"}[self.format]


@pytest.fixture(scope="module", params=FORMATS)
def stored(request, tracking_uri, tmp_path_factory):
    """Register a model whose files were saved by MLflow, but stored without it.

    After an upload, this process would no longer read from the mount.
    """
    bucket = BucketConfig(f"test-damaged-{request.param}")
    name = f"damaged-{request.param}"
    directory = tmp_path_factory.mktemp("saved") / "model"
    model = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
    mlflow.sklearn.save_model(
        model, directory, serialization_format=request.param, pip_requirements=["scikit-learn"]
    )
    with BucketFSServer((bucket,)) as server:
        client = MlflowClient(tracking_uri)
        experiment_id = client.create_experiment(name, server.uri(path="mlflow"))
        run_id = client.create_run(experiment_id).info.run_id
        logged = client.create_logged_model(experiment_id, "model", run_id)
        client.finalize_logged_model(logged.model_id, "READY")
        client.create_registered_model(name)
        client.create_model_version(name, logged.artifact_location, run_id)
        client.set_registered_model_alias(name, "champion", "1")
        folder = logged.artifact_location.split("/", 5)[5]
        server.put_many((f"{folder}/{p.name}", p.read_bytes()) for p in directory.iterdir())
        uris = (
            f"runs:/{run_id}/model",
            f"models:/{name}/1",
            f"models:/{name}@champion",
            f"models:/{logged.model_id}",
            logged.artifact_location,
        )
        yield Stored(server, request.param, dict(zip(KINDS, uris, strict=True)))


@pytest.fixture
def model(stored, tracking_uri, environment, tmp_path, temporary_directory):
    """The model's directory on a mount that the test may damage; nothing connects to BucketFS."""
    mount = tmp_path / "mount"
    assert temporary_directory.is_dir()  # MLflow leaves its downloads there
    shutil.copytree(stored.server.mount_root, mount)
    environment.setenv("EXA_BUCKETFS_MOUNT_ROOT", str(mount))
    environment.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    environment.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    environment.delenv("EXA_BUCKETFS_PASSWORD")
    stored.server.requests.clear()
    yield Path(mounted_path(stored.uris["raw"]))
    assert stored.server.requests.connections == 0


DAMAGES = {
    "missing": (Path.unlink, "does not exist"),
    "empty": (lambda path: path.write_bytes(b""), "is truncated or damaged"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:90]), "is truncated or damaged"),
    "other content": (lambda path: path.write_bytes(b"damaged"), "is truncated or damaged"),
}
WAYS = {
    "pyfunc": mlflow.pyfunc.load_model,
    "sklearn": mlflow.sklearn.load_model,
    "download": mlflow.artifacts.download_artifacts,
}


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("runs", "pyfunc"),
        ("version", "sklearn"),
        ("alias", "download"),
        ("logged model", "pyfunc"),
        ("raw", "sklearn"),
        ("runs", "download"),
    ],
)
def test_complete(stored, model, caplog, kind, way):
    """A complete model loads from each kind of URI, without a warning."""
    with caplog.at_level(logging.INFO, "mlflow_bucketfs_plugin"):
        WAYS[way](stored.uris[kind])
    reported = [r for r in caplog.records if r.name.startswith("mlflow_bucketfs")]
    assert [r.levelname for r in reported if str(model) in r.getMessage()] == ["INFO"]
    assert not [r for r in reported if r.levelno >= logging.WARNING]


# Damages are found before the kind of URI and the way of loading matter. So each damage of each
# file is tested with one kind and way that load, a download, and runs:/, for which MLflow hides the
# error; all pairs of kinds and ways occur.
@pytest.mark.parametrize(
    ("of", "damage", "kind", "way"),
    [
        ("part", "missing", "version", "pyfunc"),
        ("part", "missing", "alias", "download"),
        ("part", "missing", "runs", "sklearn"),
        ("part", "empty", "alias", "sklearn"),
        ("part", "empty", "logged model", "download"),
        ("part", "empty", "runs", "pyfunc"),
        ("part", "truncated", "logged model", "pyfunc"),
        ("part", "truncated", "raw", "download"),
        ("part", "truncated", "runs", "sklearn"),
        ("part", "other content", "raw", "sklearn"),
        ("part", "other content", "version", "download"),
        ("part", "other content", "runs", "download"),
        ("MLmodel", "missing", "raw", "pyfunc"),
        ("MLmodel", "missing", "logged model", "download"),
        ("MLmodel", "missing", "runs", "pyfunc"),
        ("MLmodel", "empty", "version", "sklearn"),
        ("MLmodel", "empty", "raw", "download"),
        ("MLmodel", "empty", "runs", "download"),
        ("MLmodel", "truncated", "alias", "pyfunc"),
        ("MLmodel", "truncated", "version", "download"),
        ("MLmodel", "truncated", "runs", "sklearn"),
        ("MLmodel", "other content", "logged model", "sklearn"),
        ("MLmodel", "other content", "alias", "download"),
        ("MLmodel", "other content", "runs", "pyfunc"),
    ],
)
def test_damaged(stored, model, caplog, *, of, damage, kind, way):
    """The error, or the log for ``runs:/``, names the mounted path and the reason."""
    path = model / (stored.part if of == "part" else of)
    inflict, reason = DAMAGES[damage]
    inflict(path)
    with caplog.at_level(logging.WARNING), pytest.raises(mlflow.MlflowException) as caught:
        WAYS[way](stored.uris[kind])
    reported = str(caught.value) if kind != "runs" else "\n".join(caplog.messages)
    assert str(path) in reported
    assert reason in reported


@pytest.mark.parametrize("kind", ["runs", "raw"])
def test_truncated_with_a_valid_end(stored, model, caplog, kind):
    """A truncated part with a valid end is reported by the model's size, before it is loaded."""
    path = model / stored.part
    ends = {"model.pkl": b".", "model.skops": b"PK\x05\x06" + bytes(18)}
    path.write_bytes(path.read_bytes()[:90] + ends[stored.part])
    with caplog.at_level(logging.WARNING), pytest.raises((UnpicklingError, KeyError)):
        mlflow.pyfunc.load_model(stored.uris[kind])
    assert f"The files in {model} have " in caplog.text


def test_loads_without_its_environment(stored, model, caplog):
    """A model loads without the files of its environment."""
    for name in ("conda.yaml", "python_env.yaml", "requirements.txt"):
        (model / name).unlink()
    with caplog.at_level(logging.WARNING, "mlflow_bucketfs_plugin"):
        mlflow.pyfunc.load_model(stored.uris["raw"])
    assert not [r for r in caplog.records if r.name.startswith("mlflow_bucketfs")]


def test_missing_model_is_logged_once(stored, model, caplog):
    """For ``runs:/``, a model whose files are all missing is logged once."""
    shutil.rmtree(model)
    with caplog.at_level(logging.WARNING), pytest.raises(mlflow.MlflowException):
        mlflow.pyfunc.load_model(stored.uris["runs"])
    (reported,) = [r.getMessage() for r in caplog.records if r.name.startswith("mlflow_bucketfs")]
    assert f"{model} does not exist" in reported


@pytest.mark.parametrize("damage", ["missing", "other content"])
def test_both_failures_are_reported(stored, model, caplog, environment, damage):
    """If both attempts of ``load_model_with_fallback`` fail, both errors are reported."""
    environment.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    unreachable = f"exa+bfs://127.0.0.1:9/{stored.uris['raw'].split('/', 3)[3]}"
    inflict, _ = DAMAGES[damage]
    inflict(model / stored.part)
    with caplog.at_level(logging.WARNING), pytest.raises(mlflow.MlflowException) as caught:
        load_model_with_fallback(unreachable, mlflow.sklearn.load_model)
    assert f"Cannot load {unreachable} from {model}, trying HTTP: " in caplog.text
    error = caught.value
    while error.__context__:
        error = error.__context__
    assert f"{type(error).__name__}: {error}" in caplog.text


UNREADABLE = """
import logging, os, shutil, sys, tempfile
from pathlib import Path
import mlflow, mlflow.pyfunc, mlflow.sklearn
from mlflow_bucketfs_core import load_model_with_fallback, local_path_or_uri, mounted_path
from sklearn.linear_model import LinearRegression

logging.basicConfig(format="%(message)s", stream=sys.stdout)
root = Path(tempfile.mkdtemp())
root.chmod(0o755)
tempfile.tempdir = str(root / "tmp")
(root / "tmp").mkdir()
(root / "tmp").chmod(0o777)
bucket = root / "s" / "b"
uri = "exa+bfs://127.0.0.1:9/s/b/model"
os.environ["EXA_BUCKETFS_MOUNT_ROOT"] = str(root)
os.chdir("/")
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
model = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
mlflow.sklearn.save_model(
    model,
    bucket / "model",
    serialization_format="cloudpickle",
    pip_requirements=["scikit-learn"],
)
mlflow.pyfunc.load_model(uri)
print(bucket)
for locked in ("model/model.pkl", "model/MLmodel", "model", ""):
    print("locked:", locked)
    path = bucket / locked
    mode = path.stat().st_mode
    path.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65534)
    for use in (
        mlflow.pyfunc.load_model,
        mlflow.sklearn.load_model,
        mlflow.artifacts.download_artifacts,
        lambda uri: mlflow.artifacts.download_artifacts(uri, dst_path=tempfile.mkdtemp()),
        mlflow.artifacts.list_artifacts,
        lambda uri: mlflow.sklearn.load_model(local_path_or_uri(uri)),
        lambda uri: load_model_with_fallback(uri, mlflow.sklearn.load_model),
    ):
        try:
            print(len(use(uri)), "listed")
        except mlflow.MlflowException as error:
            print("HTTP failed:", "no connection" in str(error))
        except OSError as error:
            print(error)
    os.seteuid(os.getuid())
    path.chmod(mode)
shutil.rmtree(root)
"""


def test_unreadable(run_python):
    """Every way of reading an unreadable path names it, with the reason."""
    bucket, *lines = run_python(UNREADABLE, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0").splitlines()
    groups = "\n".join(lines).split("locked: ")[1:]
    for group, named in zip(
        groups,
        # a folder is named itself, or by the file that MLflow needs of it
        ("/model/model.pkl", "/model/MLmodel", "/model", "/model"),
        strict=True,
    ):
        _, *reported = group.splitlines()
        # given a path, MLflow 3.8 treats an unreadable folder as an empty one
        refused = re.compile(
            rf"\[Errno 13\] Permission denied: '{bucket}{named}"
            rf"|No such file or directory: '{bucket}{named}/MLmodel'"
        )
        listed = [] if named == "/model" else ["5 listed"]
        assert [line for line in reported if not refused.search(line)] == [
            *listed,
            "HTTP failed: True",
        ]
        where = f"exa+bfs://127.0.0.1:9/s/b/model from {bucket}/model, trying HTTP: "
        assert sum(line.startswith(f"Cannot load {where}") for line in reported) == 1
        # with a dst_path, as for runs:/
        hidden = [line for line in reported if line.startswith("Cannot read exa+bfs://")]
        assert len(hidden) == 1
