"""``mlflow server --default-artifact-root exa+bfs://…`` with clients that have the plugin."""

from __future__ import annotations

import sys

import mlflow
import pytest
import requests
from mlflow_bucketfs_core.uri import is_bucketfs_uri
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

# As in core's tests, whose server is always the embedded one: this test can also run on a real
# BucketFS (see noxfile.py, test:backends).
ODD_NAMES = [
    "a#b",
    "q?x",
    "p%41",
    "plus+x",
    "with space",
    "ümlaut",
    "日本語",
    ".leading",
    "per%cent",
    "semi;colon",
    "am&p=1",
    "~tilde",
    "com,ma",
    "m.tar.gz",
    "noextension",
]


@pytest.fixture
def logged(client, unique):
    """A scikit-learn model, logged and registered with plain MLflow."""
    features, species = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(features, species)
    name = f"iris {unique}"
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(model, name="model", registered_model_name=name)
    version = client.search_model_versions(f"name='{name}'")[0].version
    uris = [
        f"runs:/{run.info.run_id}/model",
        f"models:/{info.model_id}",
        f"models:/{name}/{version}",
        info.artifact_path,
    ]
    return info, uris, features, model.predict(features).tolist()


def test_a_model_loads_by_every_kind_of_uri(logged):
    """``runs:/``, ``models:/m-…``, ``models:/name/version`` and the raw URI predict the same."""
    info, uris, features, expected = logged
    predictions = {uri: mlflow.sklearn.load_model(uri).predict(features).tolist() for uri in uris}
    assert predictions == dict.fromkeys(uris, expected)
    assert is_bucketfs_uri(info.artifact_path)


def test_the_models_files_are_in_bucketfs(logged, folder_at):
    """The model's files are in BucketFS at MLflow's artifact location."""
    names = folder_at(logged[0].artifact_path).keys()
    assert {"MLmodel", "requirements.txt"} <= {*names}


def test_odd_names_survive_the_round_trip(client, run_id, tmp_path):
    """Files with special characters of URLs in their names are downloaded byte-identical."""
    source = tmp_path / "source"
    source.mkdir()
    for index, name in enumerate(ODD_NAMES):
        (source / name).write_bytes(f"{name} {index}\n".encode() * 100)
    client.log_artifacts(run_id, str(source), "odd")
    listed = [info.path for info in client.list_artifacts(run_id, "odd")]
    assert listed == sorted(f"odd/{name}" for name in ODD_NAMES)
    target = tmp_path / "target"
    target.mkdir()
    client.download_artifacts(run_id, "odd", str(target))
    downloaded = {path.name: path.read_bytes() for path in (target / "odd").iterdir()}
    assert downloaded == {path.name: path.read_bytes() for path in source.iterdir()}


def test_an_experiment_chooses_its_own_location(client, bucketfs_uri, folder_at, unique):
    """``create_experiment(artifact_location=…)`` stores at this location only."""
    location = f"{bucketfs_uri}/own place"
    experiment_id = client.create_experiment(f"own place {unique}", artifact_location=location)
    run = client.create_run(experiment_id)
    client.log_text(run.info.run_id, "hello", "notes/hello.txt")
    assert run.info.artifact_uri.startswith(location)
    assert folder_at(location).keys() == [f"{run.info.run_id}/artifacts/notes/hello.txt"]
    assert folder_at(run.info.artifact_uri).read("notes/hello.txt") == b"hello"


def test_the_command_line_logs_lists_and_downloads(client_env, run_id, run_command, tmp_path):
    """``mlflow artifacts`` logs, lists and downloads a file."""
    (tmp_path / "report.txt").write_text("result: 42")
    mlflow_cli = [sys.executable, "-m", "mlflow", "artifacts"]
    log = ["log-artifact", "-r", run_id, "-l", str(tmp_path / "report.txt"), "-a", "reports"]
    run_command([*mlflow_cli, *log], client_env)
    listed = run_command([*mlflow_cli, "list", "-r", run_id], client_env)
    assert '"path": "reports"' in listed
    download = ["download", "-r", run_id, "-a", "reports/report.txt", "-d", str(tmp_path / "down")]
    run_command([*mlflow_cli, *download], client_env)
    assert [p.read_text() for p in tmp_path.rglob("down/**/report.txt")] == ["result: 42"]


def test_the_ui_lists_and_reads_through_the_server(client, run_id, mlflow_tracking_uri):
    """The server's REST API, as its UI calls it, lists a folder and serves a file."""
    client.log_text(run_id, "seen in the browser", "notes/page.txt")
    api = f"{mlflow_tracking_uri}/ajax-api/2.0/mlflow/artifacts/list"
    listing = requests.get(api, params={"run_id": run_id, "path": "notes"}, timeout=60)
    assert [entry["path"] for entry in listing.json()["files"]] == ["notes/page.txt"]
    page = requests.get(
        f"{mlflow_tracking_uri}/get-artifact",
        params={"run_id": run_id, "path": "notes/page.txt"},
        timeout=60,
    )
    assert page.text == "seen in the browser"


def test_the_server_answers_404_for_a_missing_artifact(run_id, mlflow_tracking_uri):
    """A missing artifact is answered with 404, not with an internal error."""
    response = requests.get(
        f"{mlflow_tracking_uri}/get-artifact",
        params={"run_id": run_id, "path": "nothing/here.txt"},
        timeout=60,
    )
    assert response.status_code == requests.codes.not_found
