"""Resolving the URIs of models, and reading models from BucketFS."""

from __future__ import annotations

import hashlib

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.models import infer_signature
from mlflow_bucketfs_core import BucketFSUri
from mlflow_bucketfs_plugin.models import void_mlmodel
from mlflow_bucketfs_plugin.scoring import ScriptError, ScriptOptions, scoring_script
from mlflow_bucketfs_plugin.scoring.model import fetched_model, locate_model, require_known
from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer, Fault
from sklearn.linear_model import LinearRegression

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")


@pytest.fixture(scope="module")
def logged(tracking_uri):
    """Yield a server with a model that was logged and registered twice, and MLflow's infos."""
    with (
        BucketFSServer((BucketConfig("scoring-models"),)) as server,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("EXA_BUCKETFS_PASSWORD", "write")
        environment.setenv("MLFLOW_TRACKING_URI", tracking_uri)
        client = MlflowClient()
        experiment = client.create_experiment("scoring", server.uri(path="mlflow"))
        model = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
        infos = []
        for _ in range(2):
            with mlflow.start_run(experiment_id=experiment):
                infos.append(
                    mlflow.sklearn.log_model(
                        model,
                        name="model",
                        registered_model_name="scored",
                        pip_requirements=["scikit-learn"],
                        signature=infer_signature([[0.0]], model.predict([[0.0]])),
                    )
                )
        client.set_registered_model_alias("scored", "champion", "1")
        yield server, infos


@pytest.fixture(autouse=True)
def _tracking(environment, tracking_uri):
    environment.setenv("MLFLOW_TRACKING_URI", tracking_uri)


@pytest.mark.parametrize(
    ("uri", "origin", "number"),
    [
        ("models:/scored/2", "models:/scored/2", 1),
        ("models:/scored@champion", "models:/scored/1", 0),
        ("models:/scored/latest", "models:/scored/2", 1),
        ("models:/{0.model_id}", "models:/{0.model_id}", 0),
        ("runs:/{1.run_id}/model", "runs:/{1.run_id}/model", 1),
        ("{0.artifact_path}", "{0.artifact_path}", 0),
    ],
)
def test_each_kind_of_uri(logged, uri, origin, number):
    """Each kind of URI is resolved to the version that MLflow would load."""
    _, infos = logged
    location = locate_model(uri.format(*infos))
    assert location.origin == origin.format(*infos)
    assert location.uri == BucketFSUri.parse(infos[number].artifact_path)
    assert location.mounted == f"/buckets/bfsdefault/scoring-models/{location.uri.path}"


@pytest.mark.parametrize(
    ("uri", "missing"),
    [
        ("models:/nothere/1", "Registered Model with name=nothere not found"),
        ("models:/scored/99", "Model Version .*version=99.* not found"),
        ("models:/scored@prod", "Registered model alias prod not found"),
        ("models:/scored/Production", "No versions of model .* found"),
        (f"models:/m-{'0' * 32}", "Logged model with ID .* not found"),
        ("runs:/abc/model", "Run with id=abc not found"),
    ],
)
@pytest.mark.usefixtures("logged")
def test_unknown_models(uri, missing, tracking_uri):
    """A model that does not exist is an error with the store that was read, and the remedy."""
    match = f"^{missing}. It was looked for in {tracking_uri}. If .* set MLFLOW_TRACKING_URI to"
    for look_up in (locate_model, require_known):
        with pytest.raises(mlflow.MlflowException, match=match):
            look_up(uri)


def test_unknown_model_in_another_registry(environment, tracking_uri):
    """If the registry is not the tracking server, both are in the message."""
    environment.setenv("MLFLOW_REGISTRY_URI", f"{tracking_uri}?timeout=9")
    with pytest.raises(mlflow.MlflowException) as raised:
        locate_model("models:/nothere/1")
    assert f"looked for in {tracking_uri} (registry: {tracking_uri}?***)." in str(raised.value)
    assert "set MLFLOW_TRACKING_URI or MLFLOW_REGISTRY_URI to" in str(raised.value)


@pytest.mark.parametrize("uri", ["models:/m/1", "models:/m@a", "runs:/abc/m"])
def test_unreachable_tracking_server(uri, environment, server):
    """An unreachable tracking server is one sentence with address and remedy, and no password."""
    address = f"127.0.0.1:{server.port}"
    environment.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@{address}")
    server.stop()
    with pytest.raises(mlflow.MlflowException) as raised:
        locate_model(uri)
    assert str(raised.value) == (
        f"The tracking server ***@{address} cannot be reached: Connection refused. "
        "Start it, or set MLFLOW_TRACKING_URI to the right address."
    )


def test_artifacts_of_a_run(server, new_experiment, store_model):
    """A ``runs:`` URI without a logged model is a folder of the run's artifacts."""
    store_model(path="elsewhere/m")
    experiment = new_experiment(server.uri(path="runs"))
    run = MlflowClient().create_run(experiment)
    location = locate_model(f"runs:/{run.info.run_id}/my/model")
    assert location.uri.path == f"runs/{run.info.run_id}/artifacts/my/model"


def test_raw_uris_need_no_tracking_store(store_model, environment, tmp_path):
    """A URI in BucketFS is resolved without a tracking server, and no database is created."""
    environment.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert locate_model(store_model()).uri.path == "m"
    assert not list(tmp_path.iterdir())


def test_version_of_a_raw_uri(server, store_model, new_experiment):
    """A version that was registered from a URI in BucketFS has this location."""
    new_experiment(server.uri(path="x"))
    client = MlflowClient()
    client.create_registered_model("raw")
    version = client.create_model_version("raw", store_model())
    assert locate_model(f"models:/raw/{version.version}").uri == BucketFSUri.parse(
        server.uri(path="m")
    )


def test_files_are_digested(logged):
    """Digests and size are those of all files of the model in the bucket."""
    server, infos = logged
    location = locate_model(infos[0].model_uri)
    with fetched_model(location) as model:
        digests = model.download()
        keys = [key for key in server.keys() if key.startswith(f"{location.uri.path}/")]
        assert {f"{location.uri.path}/{name}": d for name, d in digests.items()} == {
            key: hashlib.sha256(server.read(key)).hexdigest() for key in keys
        }
        assert model.size_bytes == sum(len(server.read(key)) for key in keys)
        assert model.mlmodel_digest == digests["MLmodel"]
        directory = model.directory
    assert not directory.exists()


def test_digests_come_over_http(logged, environment, tmp_path):
    """Digests are computed from BucketFS, not from a mount, which may be another cluster's."""
    server, infos = logged
    location = locate_model(infos[0].model_uri)
    environment.setenv("EXA_BUCKETFS_MOUNT_ROOT", str(tmp_path))
    mounted = tmp_path / "bfsdefault" / "scoring-models" / location.uri.path
    mounted.mkdir(parents=True)
    (mounted / "MLmodel").write_text("flavors: {}", encoding="utf-8")
    with fetched_model(location) as model:
        digest = hashlib.sha256(server.read(f"{location.uri.path}/MLmodel")).hexdigest()
        assert model.download()["MLmodel"] == digest


def test_unverified_scripts_need_the_mlmodel_only(logged):
    """Without verification, only ``MLmodel`` is downloaded."""
    server, infos = logged
    server.requests.clear()
    script = scoring_script(infos[0].model_uri, "S", ScriptOptions(verify=False))
    assert script.spec.files is None
    assert [r.key.rpartition("/")[2] for r in server.requests if r.key] == ["MLmodel"]


def test_errors_in_options_are_raised_before_the_download(logged):
    """An invalid option is an error before other files than ``MLmodel`` are downloaded."""
    server, infos = logged
    server.requests.clear()
    with pytest.raises(ScriptError, match="no feature 'age'"):
        scoring_script(infos[0].model_uri, "S", ScriptOptions(types={"age": "DOUBLE"}))
    assert [r.key.rpartition("/")[2] for r in server.requests if r.key] == ["MLmodel"]


def test_failed_download(store_model, server):
    """A file that cannot be downloaded is an error that names it."""
    uri = store_model()
    server.inject(Fault.status(403, method="GET", key="m/model.pkl", times=None))
    with pytest.raises(mlflow.MlflowException, match=r"model\.pkl"):
        scoring_script(uri, "S")


def test_proxied_artifacts(store_model, server, new_experiment):
    """Proxied artifacts need the server's artifacts destination, which gives the location."""
    store_model(path="root/1/models/m")
    new_experiment(server.uri())
    client = MlflowClient()
    client.create_registered_model("proxied")
    for location in ("mlflow-artifacts:/1/models/m", "mlflow-artifacts://host:5000/1/models/m"):
        version = client.create_model_version("proxied", location).version
        with pytest.raises(ScriptError, match="was started with: --artifacts-destination"):
            locate_model(f"models:/proxied/{version}")
        found = locate_model(
            f"models:/proxied/{version}", artifacts_destination=server.uri(path="root/")
        )
        assert found.uri == BucketFSUri.parse(server.uri(path="root/1/models/m"))
        assert found.origin == f"models:/proxied/{version}"
        with pytest.raises(ScriptError, match=r"s3://b/x is not in BucketFS.*mlflow-bucketfs copy"):
            locate_model(f"models:/proxied/{version}", artifacts_destination="s3://b/x")


@pytest.mark.parametrize(
    "uri", ["s3://bucket/model", "file:///home/model", "/home/model", "hdfs://h/m", "model"]
)
def test_other_stores(uri):
    """A model in another store is refused, with the command that copies it."""
    with pytest.raises(ScriptError, match=f"mlflow-bucketfs copy {uri} exa"):
        locate_model(uri)


def test_secrets_in_other_uris():
    """A password in a URI is not in the message."""
    with pytest.raises(ScriptError) as raised:
        locate_model("https://user:secret@example.com/m")
    assert "secret" not in str(raised.value)


def test_mounted_path(store_model):
    """The path that UDFs see can be set; it must be an absolute path."""
    location = locate_model(store_model(), mounted="/buckets/other/default/m/")
    assert location.mounted == "/buckets/other/default/m"
    for path in ("buckets/m", "/buckets/../m", "/a\nb", "/"):
        with pytest.raises(ScriptError, match="--mounted-path"):
            locate_model(store_model(), mounted=path)


def test_model_with_archives(store_model):
    """A model with an archive, which BucketFS would unpack, is refused with the file's name."""
    uri = store_model(files=["data/words.tar.gz", "fine.zipx"])
    with pytest.raises(ScriptError, match=r"these files: data/words\.tar\.gz\. Log"):
        scoring_script(uri, "S")


@pytest.mark.parametrize(
    ("mlmodel", "reason"),
    [
        (b"flavors: [", "is damaged"),
        (b"- 1", "has no flavor python_function"),
        (b"flavors: {sklearn: {}}", "has no flavor python_function"),
        (void_mlmodel(), "has not been completed"),
        (b"flavors: {python_function: {}}\nsignature: {inputs: '{'}", "its inputs are not a list"),
        (
            b"flavors: {python_function: {}}\nsignature: {inputs: '[1]'}",
            "its inputs are not a list",
        ),
    ],
)
def test_damaged_models(server, mlmodel, reason):
    """An invalid or incomplete ``MLmodel`` is refused with the reason."""
    server.put("m/MLmodel", mlmodel)
    with pytest.raises(ScriptError, match=reason):
        scoring_script(server.uri(path="m"), "S")


def test_no_model(server):
    """A folder without ``MLmodel`` is refused."""
    server.put("m/model.pkl", b"")
    for path in ("m", "m/model.pkl", "nothing", ""):
        with pytest.raises(ScriptError, match="it has no MLmodel"):
            scoring_script(server.uri(path=path), "S")
