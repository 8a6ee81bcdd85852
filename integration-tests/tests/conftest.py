"""Servers and clients for the tests of the complete system.

The options select the servers: the embedded BucketFS or that of an Exasol (``--backend``), a new
MLflow server or a running one (``--mlflow-server``).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow_bucketfs_core import Bucket, BucketFSUri, ConnectionSettings
from mlflow_bucketfs_core.uri import is_bucketfs_uri
from mlflow_bucketfs_testing import BucketFSServer, factories
from mlflow_bucketfs_testing.config import BucketFSTarget

# The server stores the artifacts of its clients, which do not access BucketFS.
proxying_mlflow_server = factories.mlflow_server(
    artifacts_destination="{bucketfs_uri}/proxied", reuse=False
)


class Folder:
    """The objects below a URI in BucketFS, read over HTTP."""

    def __init__(self, uri: str, environment: dict[str, str]) -> None:
        self._uri = BucketFSUri.parse(uri)
        self._bucket = Bucket(self._uri, ConnectionSettings.from_env(environment))

    def keys(self) -> list[str]:
        """Return the keys of the objects, relative to the folder."""
        found = self._bucket.keys(self._uri.path)
        return sorted(key.removeprefix(f"{self._uri.path}/") for key in found)

    def read(self, key: str) -> bytes:
        """Return the content of an object, by its key relative to the folder."""
        return b"".join(self._bucket.iter_content(self._uri.joinpath(key).path))


@pytest.fixture(scope="session")
def folder_at(bucketfs_target: BucketFSTarget) -> Callable[[str], Folder]:
    """Return a function that opens a URI, which may be in another BucketFS (--mlflow-server)."""

    def look(uri: str) -> Folder:
        ours = dict(bucketfs_target.environment)
        is_ours = uri.startswith(bucketfs_target.uri)
        return Folder(uri, ours if is_ours else {**ours, **os.environ})

    return look


@pytest.fixture(scope="session")
def proxied(bucketfs_uri: str, folder_at: Callable[[str], Folder]) -> Folder:
    """The folder that `proxying_mlflow_server` stores to."""
    return folder_at(f"{bucketfs_uri}/proxied")


@pytest.fixture(scope="session")
def artifact_root(mlflow_tracking_uri: str) -> str:
    """The artifact location of `mlflow_server`; skip if it is not in BucketFS."""
    location: str = MlflowClient(mlflow_tracking_uri).get_experiment("0").artifact_location
    if not is_bucketfs_uri(location):
        pytest.skip(
            f"the MLflow server at {mlflow_tracking_uri} stores artifacts at {location}, not in "
            f"BucketFS: start it with --default-artifact-root exa+bfs://…"
        )
    return location


@pytest.fixture(scope="session")
def embedded_store(artifact_root: str, bucketfs_server: BucketFSServer) -> BucketFSServer:
    """The embedded BucketFS, for tests that need its mount or its request log."""
    if not artifact_root.startswith(bucketfs_server.uri()):
        pytest.skip(f"{artifact_root} is not in the embedded BucketFS, which has a mount and a log")
    return bucketfs_server


@pytest.fixture(scope="session")
def database_uri(mlflow_server) -> str:
    """The tracking database of `mlflow_server`, to act as its operator."""
    if mlflow_server.backend_store_uri is None:
        pytest.skip("the database of a server given by --mlflow-server is not known")
    uri: str = mlflow_server.backend_store_uri
    return uri


@pytest.fixture
def client(
    artifact_root: str, mlflow_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[MlflowClient]:
    """A client of `mlflow_server` in this process, configured only by its environment."""
    del artifact_root  # requested because it may skip
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Not mlflow.set_experiment, whose setting cannot be unset in this process.
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    mlflow.set_tracking_uri(mlflow_environment["MLFLOW_TRACKING_URI"])
    yield MlflowClient()
    # Other tests of this process select their server by the environment.
    mlflow.set_tracking_uri(None)


@pytest.fixture
def client_env(mlflow_client_env: dict[str, str]) -> dict[str, str]:
    """All variables that a client in a separate process with an empty environment needs."""
    # with --mlflow-server, mlflow_client_env omits credentials that are set in the environment
    credentials = ("EXA_BUCKETFS_USER", "EXA_BUCKETFS_PASSWORD")
    given = {name: os.environ[name] for name in credentials if name in os.environ}
    return {**given, **mlflow_client_env}


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    """A new run of the default experiment."""
    run_id: str = client.create_run("0").info.run_id
    return run_id


@pytest.fixture
def unique() -> str:
    """A random part for names, so that runs of the tests on one MLflow server do not collide."""
    return uuid.uuid4().hex[:8]


@pytest.fixture
def database(bucketfs_target: BucketFSTarget, request: pytest.FixtureRequest):
    """A connection to the Exasol that ``--backend`` selects, in a new schema.

    It skips if no database listens. A database that refuses the login is a failure.
    """
    if bucketfs_target.backend != "onprem":
        pytest.skip("SQL needs a database: --backend=onprem")
    import pyexasol  # noqa: PLC0415 -- comes with pytest-exasol-slc

    exasol = request.getfixturevalue("exasol_config")
    # waits for a started container
    parameters = request.getfixturevalue("backend_aware_onprem_database_params")
    try:
        socket.create_connection((exasol.host, exasol.port), timeout=30).close()
    except ConnectionRefusedError:
        pytest.skip(f"SQL needs a database, but none listens at {exasol.host}:{exasol.port}")
    with pyexasol.connect(**parameters) as connection:
        schema = f"MLFLOW_BUCKETFS_{uuid.uuid4().hex[:8].upper()}"
        connection.execute(f"CREATE SCHEMA {schema}")
        yield connection
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture(scope="session")
def plain_python() -> list[str]:
    """Return the command of a Python with mlflow-skinny of the same version and no plugin."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on the path: pip install uv")
    requirement = f"mlflow-skinny=={mlflow.__version__}"
    base = [uv, "run", "--isolated", "--no-project", "--quiet", "--python", sys.base_prefix]
    return [*base, "--with", requirement, "python"]


@pytest.fixture
def run_command(tmp_path: Path):
    """Return a function that runs a command in an empty directory and returns its output."""

    def run(command: list[str], env: dict[str, str]) -> str:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("EXA_", "MLFLOW_"))}
        completed = subprocess.run(
            command, env=clean | env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    return run
