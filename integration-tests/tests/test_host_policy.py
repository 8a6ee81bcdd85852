"""A client cannot make the server, or ``mlflow gc``, send the password to another host."""

from __future__ import annotations

import base64
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_core import BucketFSUri


class Listener:
    """A foreign server on this host, which records the bytes that it receives."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    connection.settimeout(5)
                    self.received.append(connection.recv(4096))

    def close(self) -> None:
        """Stop listening."""
        # shutdown wakes the thread in accept; close alone does not
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def stranger() -> Iterator[Listener]:
    """A foreign server on the host of BucketFS, on another port."""
    listener = Listener()
    yield listener
    listener.close()


@pytest.mark.parametrize(
    "location",
    [
        "exa+bfs://127.0.0.1:{port}/bfsdefault/default/x",
        "exabfs://127.0.0.1:{port}/bfsdefault/default/x",
        "exa+bfss://127.0.0.1:{port}/bfsdefault/default/x",
        "exa+bfs://LOCALHOST:{port}/bfsdefault/default/x",
        "exa+bfs://127.0.0.1:{own}@127.0.0.1:{port}/bfsdefault/default/x",
        "exa+bfs://127.0.0.1:{own}\\@127.0.0.1:{port}/bfsdefault/default/x",
    ],
    ids=["other port", "alias", "https", "upper case", "userinfo", "backslash"],
)
def test_the_server_does_not_connect_to_a_clients_location(
    location, stranger, mlflow_tracking_uri, artifact_root, bucketfs_target
):
    """Listing and reading artifacts of a foreign location is refused without a connection."""
    client = MlflowClient(mlflow_tracking_uri)
    own = BucketFSUri.parse(artifact_root).port
    artifact_location = location.format(port=stranger.port, own=own)
    try:
        name = f"foreign {artifact_location}"
        experiment = client.create_experiment(name, artifact_location=artifact_location)
        run_id = client.create_run(experiment).info.run_id
    except MlflowException:
        # MLflow itself refuses some of these; then there is nothing to read
        run_id = None
    if run_id is not None:
        for path in ("ajax-api/2.0/mlflow/artifacts/list", "get-artifact"):
            response = requests.get(
                f"{mlflow_tracking_uri}/{path}",
                params={"run_id": run_id, "path": "x"},
                timeout=60,
            )
            # before MLflow 3.15, get-artifact answers every error with 500
            assert response.status_code in {requests.codes.bad_request, requests.codes.server_error}
            assert bucketfs_target.password not in response.text.split()
    assert stranger.received == []


@pytest.fixture
def foreign_database(tmp_path, stranger):
    """A tracking database with a deleted run whose artifacts are on the foreign server."""
    uri = f"sqlite:///{tmp_path / 'foreign.db'}"
    client = MlflowClient(uri)
    location = f"exa+bfs://127.0.0.1:{stranger.port}/bfsdefault/default/x"
    run_id = client.create_run(client.create_experiment("x", location)).info.run_id
    client.delete_run(run_id)
    return uri


def test_gc_does_not_connect_to_hosts_that_are_not_allowed(
    foreign_database, stranger, tmp_path, bucketfs_target
):
    """``mlflow gc`` sends no password over plain HTTP to a host that is allowed for HTTPS."""
    allowed = f"{BucketFSUri.parse(bucketfs_target.uri).authority},127.0.0.1:{stranger.port}"
    completed = _gc(
        foreign_database,
        tmp_path,
        {**bucketfs_target.environment, "EXA_BUCKETFS_ALLOWED_HOSTS": allowed},
    )
    assert completed.returncode != 0
    remedy = f"add exa+bfs://127.0.0.1:{stranger.port} to EXA_BUCKETFS_ALLOWED_HOSTS"
    assert remedy in completed.stderr
    assert stranger.received == []


def _gc(database, directory, env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("EXA_", "MLFLOW_"))}
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", database]
    return subprocess.run(
        command,
        env={**clean, "MLFLOW_TRACKING_URI": database, **env},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_password_is_in_no_database(
    database_uri, mlflow_server, client, run_id, bucketfs_target
):
    """Neither the tracking database nor the server's log contains the password."""
    client.log_text(run_id, "text", "file.txt")
    with closing(sqlite3.connect(database_uri.removeprefix("sqlite:///"))) as connection:
        dump = "\n".join(connection.iterdump())
    user, password = bucketfs_target.user, bucketfs_target.password
    basic = base64.b64encode(f"{user}:{password}".encode()).decode().rstrip("=")
    assert f"'{password}'" not in dump
    assert basic not in dump + mlflow_server.log_path.read_text()
