"""``mlflow server --artifacts-destination exa+bfs://…``: clients without plugin or password."""

from __future__ import annotations

import json
import re

import mlflow
import requests
from mlflow import MlflowClient
from mlflow_bucketfs_testing import MlflowServerProcess
from packaging.version import Version

# An older server can serve only files with ASCII names.
_NAMES = ["a.txt", "plus+x", "with space.bin"]
_NAMES += ["ümlaut"] if Version(mlflow.__version__) >= Version("3.15") else []
_CLIENT = """
import importlib.metadata, json, os, pathlib, sys
from mlflow import MlflowClient
client = MlflowClient()
run_id = client.create_run("0").info.run_id
source = pathlib.Path("source", "sub")
source.mkdir(parents=True)
for name in json.loads(sys.argv[1]):
    source.joinpath(name).write_bytes(name.encode() * 1000)
client.log_artifacts(run_id, "source", "data")
target = pathlib.Path("target")
target.mkdir()
client.download_artifacts(run_id, "data", str(target))
schemes = importlib.metadata.entry_points(group="mlflow.artifact_repository")
print(json.dumps({
    "run_id": run_id,
    "plugins": [entry.name for entry in schemes],
    "environment": sorted(name for name in os.environ if name.startswith("EXA_")),
    "listed": [info.path for info in client.list_artifacts(run_id, "data/sub")],
    "same": all(
        source.joinpath(p.name).read_bytes() == p.read_bytes()
        for p in target.joinpath("data", "sub").iterdir()
    ),
    "downloaded": len(list(target.joinpath("data", "sub").iterdir())),
}))
"""


def test_a_client_needs_neither_plugin_nor_password(
    proxying_mlflow_server, plain_python, run_command, proxied
):
    """The server stores in BucketFS for a client that has only mlflow-skinny."""
    env = {"MLFLOW_TRACKING_URI": proxying_mlflow_server.uri}
    command = [*plain_python, "-c", _CLIENT, json.dumps(_NAMES)]
    result = json.loads(run_command(command, env).splitlines()[-1])
    assert result["plugins"] == []
    assert result["environment"] == []
    assert result["listed"] == [f"data/sub/{name}" for name in _NAMES]
    assert (result["same"], result["downloaded"]) == (True, len(_NAMES))
    stored = [key for key in proxied.keys() if result["run_id"] in key]
    assert len(stored) == len(_NAMES)


def test_deleting_through_the_proxy_deletes_in_bucketfs(proxying_mlflow_server, proxied):
    """DELETE of the proxy's REST API removes the objects of this run only."""
    client = MlflowClient(proxying_mlflow_server.uri)
    runs = [client.create_run("0").info.run_id for _ in range(2)]
    for run_id in runs:
        client.log_text(run_id, "text", "folder/file.txt")
    url = f"{proxying_mlflow_server.uri}/api/2.0/mlflow-artifacts/artifacts"
    response = requests.delete(f"{url}/0/{runs[0]}/artifacts/folder", timeout=60)
    assert response.status_code == requests.codes.ok
    kept = [key for key in proxied.keys() if "folder/file.txt" in key]
    assert [run_id for run_id in runs if any(run_id in key for key in kept)] == [runs[1]]


def test_the_proxy_answers_404_for_a_missing_artifact(proxying_mlflow_server):
    """The proxy answers a missing artifact with 404, not with an internal error."""
    url = f"{proxying_mlflow_server.uri}/api/2.0/mlflow-artifacts/artifacts/0/no/such/file.txt"
    assert requests.get(url, timeout=60).status_code == requests.codes.not_found


def test_the_log_has_the_reason_of_a_503():
    """Without BucketFS, clients get 503, and the server's log has the reason."""
    nowhere = "exa+bfs://127.0.0.1:9/s/b"
    env = {"EXA_BUCKETFS_PASSWORD": "write", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    with MlflowServerProcess(artifacts_destination=nowhere, workers=1, env=env) as server:
        url = f"{server.uri}/api/2.0/mlflow-artifacts/artifacts/0/file.txt"
        response = requests.put(url, data=b"text", timeout=60)
        assert response.status_code == requests.codes.unavailable
        log = server.log_path.read_text(encoding="utf-8")
    assert re.search("Answering with status 503: .*: no connection to 127.0.0.1:9.", log)
