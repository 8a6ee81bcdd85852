"""``docs/user/production.md``: PostgreSQL, two workers, files in BucketFS over HTTPS, no mocks.

The commands are taken from the page; only addresses, secrets and numbers are replaced.
"""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from doc_examples.substitutes import free_port
from mlflow import MlflowClient
from mlflow_bucketfs_testing import BucketFSServer, MlflowServerProcess
from mlflow_bucketfs_testing.errors import MlflowServerDiedError
from mlflow_bucketfs_testing.server import BucketConfig
from mlflow_bucketfs_testing.server.tls import generate_certificate

from . import nginx, page
from .deployment import (
    DATABASE_PASSWORD,
    WRITE_PASSWORD,
    Deployment,
    without_settings,
)
from .postgresql import INSTALL, PostgreSQL, program_directory
from .programs import LOADS_AGAIN, LOGS_AND_LOADS, MAKES_OLDER_TABLES

pytest.importorskip("psycopg2", reason="psycopg2 is missing: uv sync --group system")

_PUBLIC_NAME = "mlflow.example.com"
_CLIENTS = 2


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """PostgreSQL with an empty database, and a private bucket."""
    programs = program_directory()
    if programs is None:
        pytest.skip(f"PostgreSQL is missing: {INSTALL}")
    bucket = BucketConfig("default", public=False, write_password=WRITE_PASSWORD)
    with PostgreSQL(programs) as postgresql, BucketFSServer([bucket], tls_port=0) as bucketfs:
        made = Deployment(postgresql, bucketfs, tmp_path_factory.mktemp("production"))
        made.create_user()
        made.create_database()
        yield made


@pytest.fixture(scope="module")
def server(deployment: Deployment) -> Iterator[MlflowServerProcess]:
    """The server that the page starts."""
    with deployment.server() as running:
        yield running


@pytest.fixture(scope="module")
def clients(
    deployment: Deployment, server: MlflowServerProcess, plain_python, tmp_path_factory
) -> list[dict]:
    """Return the results of users that log and load models at the same time."""
    packages = ("scikit-learn", "skops", "pandas", "numpy")
    pinned = (f"--with={name}=={importlib.metadata.version(name)}" for name in packages)
    command = [*plain_python[:-1], *pinned, plain_python[-1], "-c", LOGS_AND_LOADS]
    del server
    running = [
        subprocess.Popen(
            [*command, str(tmp_path_factory.mktemp("data"))],
            env={**without_settings(), "MLFLOW_TRACKING_URI": deployment.uri},
            cwd=tmp_path_factory.mktemp("home"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(_CLIENTS)
    ]
    outputs = [each.communicate() for each in running]
    assert [each.returncode for each in running] == [0] * _CLIENTS, outputs
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def test_clients_need_neither_plugin_nor_password(clients: list[dict], deployment: Deployment):
    """Concurrent clients log and load models, and every file is stored unchanged."""
    for each in clients:
        assert (each["plugins"], each["secrets"], each["same"]) == ([], [], True)
        assert each["data"] == each["logged"] == deployment.stored(each["run_id"])
        assert each["model"] == deployment.stored(each["model_id"])
        assert "MLmodel" in each["model"]


def test_two_workers_serve(server: MlflowServerProcess, clients: list[dict]):
    """The server has the number of workers of its command line."""
    assert clients
    lines = [each.cmdline() for each in psutil.Process(server.pid).children(recursive=True)]
    assert sum("spawn_main" in " ".join(line) for line in lines) == 2


def test_passwords_are_not_visible(
    server: MlflowServerProcess, clients: list[dict], deployment: Deployment
):
    """Neither the process list nor the log nor the database contains a password."""
    assert clients
    basic = base64.b64encode(f"w:{WRITE_PASSWORD}".encode()).decode().rstrip("=")
    uri = f"postgresql://mlflow@{deployment.stand_ins[page.DATABASE]}"
    texts = {
        "process list": "\n".join(
            " ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])
        ),
        "log": server.log_path.read_text(),
        "database": deployment.run(["pg_dump", uri]),
    }
    assert "--artifacts-destination" in texts["process list"]
    assert "Uvicorn running" in texts["log"]
    assert clients[0]["run_id"] in texts["database"]
    secrets = (DATABASE_PASSWORD, WRITE_PASSWORD, basic)
    assert [(name, s) for name, text in texts.items() for s in secrets if s in text] == []


@pytest.mark.parametrize(
    ("host", "origin", "path", "status"),
    [
        (_PUBLIC_NAME, f"https://{_PUBLIC_NAME}", "experiments/search", 200),
        (_PUBLIC_NAME, "https://elsewhere.example.com", "experiments/search", 403),
        ("elsewhere.example.com", None, "experiments/search", 403),
        (f"{_PUBLIC_NAME}:5000", None, "experiments/search", 403),
    ],
    ids=["the documented name", "another site", "another name", "another port"],
)
def test_the_server_answers_to_its_names_only(
    server: MlflowServerProcess, host: str, origin: str | None, path: str, status: int
):
    """The page's --allowed-hosts and --cors-allowed-origins accept only the documented name."""
    headers = {"Host": host, **({"Origin": origin} if origin else {})}
    url = f"{server.uri}/api/2.0/mlflow/{path}"
    response = requests.post(url, json={"max_results": 1}, headers=headers, timeout=60)
    assert response.status_code == status
    health = requests.get(f"{server.uri}/health", headers=headers, timeout=60)
    assert (health.status_code, health.text) == (200, "OK")


def test_gc_deletes_files(clients: list[dict], deployment: Deployment, tmp_path: Path):
    """The unit's command deletes the files of a deleted run and of a deleted model, no others."""
    client = MlflowClient(deployment.uri)
    run_id = client.create_run("0").info.run_id
    client.log_text(run_id, "text", "folder/file.txt")
    model_id = client.create_logged_model("0", source_run_id=run_id).model_id
    (tmp_path / "file.txt").write_text("text", encoding="utf-8")
    client.log_model_artifact(model_id, str(tmp_path / "file.txt"))
    stored = deployment.stored(model_id)
    assert deployment.stored(run_id).keys() == stored.keys() == {"file.txt"}
    gc = ["mlflow", *page.service("Permanently delete runs", deployment.stand_ins)[1:]]
    client.delete_run(run_id)
    deployment.run(gc)
    assert (deployment.stored(run_id), deployment.stored(model_id)) == ({}, stored)
    client.delete_logged_model(model_id)
    deployment.run(gc)
    assert deployment.stored(model_id) == {}
    for each in clients:
        assert deployment.stored(each["run_id"]) == each["data"]
        assert deployment.stored(each["model_id"]) == each["model"]


def test_a_backup_restores_database_and_files(clients: list[dict], deployment: Deployment):
    """A new server with another database and folder has all data of the page's backup."""
    for command in page.commands("pg_dump", deployment.stand_ins):
        deployment.run(command)
    names = {"database": "restored", "folder": "restored"}
    restored = Deployment(deployment.postgresql, deployment.bucketfs, deployment.directory, **names)
    restored.create_database()
    (restore_database,) = page.commands("pg_restore", restored.stand_ins)
    restored.run(restore_database)
    restore_files = page.block("python", "log_artifacts", restored.stand_ins)
    restored.run([sys.executable, "-c", restore_files])
    with restored.server():
        _find_all(clients, restored)


def _find_all(clients: list[dict], deployment: Deployment) -> None:
    """Check that a server has the clients' runs, and that their models load from it."""
    client = MlflowClient(deployment.uri)
    runs = [client.get_run(each["run_id"]) for each in clients]
    assert [run.info.status for run in runs] == ["FINISHED"] * _CLIENTS
    loaded = subprocess.run(
        [sys.executable, "-c", LOADS_AGAIN, *(each["model_id"] for each in clients)],
        env={**without_settings(), "MLFLOW_TRACKING_URI": deployment.uri},
        cwd=deployment.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.stdout == "[0]\n" * _CLIENTS, loaded.stderr


def test_tables_of_an_older_version_are_upgraded(deployment: Deployment):
    """The page's command upgrades the tables; a server that needs it reports the command."""
    names = {"database": "older", "folder": "older"}
    older = Deployment(deployment.postgresql, deployment.bucketfs, deployment.directory, **names)
    older.create_database()
    (upgrade,) = page.commands("mlflow db upgrade", older.stand_ins)
    made, latest = older.run([sys.executable, "-c", MAKES_OLDER_TABLES, upgrade[-1]]).split()
    psql = ["psql", "-Atq", f"postgresql://mlflow@{older.stand_ins[page.DATABASE]}", "-c"]
    version = [*psql, "SELECT version_num FROM alembic_version"]
    assert older.run(version).strip() == made
    older.run(upgrade)
    assert older.run(version).strip() == latest
    # only the number is changed, because the server would create missing tables
    older.run([*psql, f"UPDATE alembic_version SET version_num = '{made}'"])  # noqa: S608
    with pytest.raises(MlflowServerDiedError, match="mlflow db upgrade"), older.server():
        pass


@pytest.mark.parametrize("documented", [True, False], ids=["as documented", "by default"])
@pytest.mark.usefixtures("server")
def test_large_files_pass_the_reverse_proxy(
    deployment: Deployment, tmp_path: Path, *, documented: bool
):
    """With the page's block, nginx forwards a large file, which it refuses by default."""
    program = nginx.program()
    if program is None:
        pytest.skip(f"nginx is missing: {nginx.INSTALL}")
    port = free_port()
    certificate = generate_certificate("localhost", tmp_path)
    block = page.block(
        "nginx",
        "proxy_pass",
        {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/etc/ssl/certs/mlflow.example.com.pem": str(certificate.file),
            "/etc/ssl/private/mlflow.example.com.key": str(certificate.key_file),
            page.SERVER_PORT: str(deployment.port),
            **({} if documented else {"client_max_body_size 0;": ""}),
        },
    )
    data = os.urandom(3_000_000)
    url = f"https://localhost:{port}/api/2.0/mlflow-artifacts/artifacts/0/proxy/x.bin"
    with nginx.running(program, block, port):
        options = {"headers": {"Host": _PUBLIC_NAME}, "verify": str(certificate.file)}
        response = requests.put(url, data=data, timeout=60, **options)
        assert response.status_code == (requests.codes.ok if documented else 413)
        if documented:
            assert requests.get(url, timeout=60, **options).content == data
            assert deployment.bucketfs.read("mlflow/0/proxy/x.bin") == data
