"""The Python of ``docs/user/udfs.md``, and its scripts that score one row at a time."""
# ruff: noqa: S608 -- the statements are the tests' own

from __future__ import annotations

import os
import socketserver
import subprocess
import sys
import threading
from dataclasses import dataclass

import pytest
from mlflow_bucketfs_core import udf_path
from mlflow_bucketfs_testing import UdfError

from . import page
from .executors import Exasol

_FEATURES = "sepal_length, sepal_width, petal_length, petal_width"


# Code of a UDF, before and after the code of the page
_WATCH = """
import sys
opened = []
def watch(event, arguments):
    if event == "open" and str(arguments[0]).endswith("/MLmodel"):
        opened.append(arguments[0])
sys.addaudithook(watch)
"""
_COUNT = """
uncounted = run
def run(ctx):
    result = uncounted(ctx)
    print("models opened:", len(opened), flush=True)
    return result
"""


@dataclass(frozen=True)
class Logged:
    """The location and path of the model that the Python of the page logs, as it prints them."""

    location: str
    path: str


@pytest.fixture(scope="module")
def logged(mlflow_server, mlflow_client_env, bucketfs_uri, tmp_path_factory) -> Logged:
    """Run the Python of the page in its own process, as its reader does."""
    if mlflow_server.backend_store_uri is None:
        pytest.skip("the server of --mlflow-server may have a model `iris` of its own")
    stand_ins = {
        page.LOCATION: f"{bucketfs_uri}/udfs",
        page.TRACKING_SERVER: mlflow_server.uri,
    }
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("EXA_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", page.python(stand_ins)],
        env={**clean, **mlflow_client_env},
        cwd=tmp_path_factory.mktemp("reader"),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    location, path = done.stdout.splitlines()[-2:]
    return Logged(location, path)


def test_the_page_prints_where_the_model_is(logged, bucketfs_uri):
    """The printed location is below that of the experiment; the printed path is that for UDFs."""
    assert logged.location.startswith(f"{bucketfs_uri}/udfs/")
    assert logged.path == str(udf_path(logged.location))


@pytest.mark.parametrize(
    "heading", ["One row at a time, by location", "By path"], ids=["by_location", "by_path"]
)
def test_one_row_at_a_time(logged, udfs, models, bucketfs_server, heading):
    """By its location and by its path, the model scores the flower of the page, without HTTP."""
    udfs.use(logged.location)
    if heading == "By path":
        udfs.create("One row at a time, by location")
    assert udfs.read(heading) == [(models.species[0],)]
    assert bucketfs_server.requests.count() == 0


def test_a_script_needs_only_its_own_imports(fresh_host, models):
    """In a process that has imported no modules, a script can load the model with the plugin."""
    fresh_host.use(models.location)
    assert fresh_host.read("One row at a time, by location") == [(models.species[0],)]


def test_by_alias(logged, udfs, models, bucketfs_server, mlflow_udf_tracking_uri):
    """The tracking server resolves the alias, and the files are read from the mount."""
    if isinstance(udfs.executor, Exasol) and "//127." in mlflow_udf_tracking_uri:
        pytest.skip(
            "UDFs of the database cannot reach the MLflow server: set "
            "--mlflow-bucketfs-mlflow-server-host ADDRESS"
        )
    udfs.use(logged.location)
    udfs.stand_ins[page.TRACKING_SERVER] = mlflow_udf_tracking_uri
    udfs.executor.allow(mlflow_udf_tracking_uri)
    assert udfs.read("By alias") == [(models.species[0],)]
    assert bucketfs_server.requests.count() == 0


@pytest.mark.parametrize("udfs", ["host"], indirect=True)
def test_an_unreachable_tracking_server(udfs):
    """The script of the page fails after two attempts; MLflow's defaults retry for minutes."""
    attempts = []

    class Silent(socketserver.BaseRequestHandler):
        def handle(self):
            attempts.append(self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        udfs.stand_ins[page.TRACKING_SERVER] = url
        udfs.executor.allow(url)
        try:
            with pytest.raises(UdfError, match="registered-models/alias failed"):
                udfs.read("By alias")
        finally:
            server.shutdown()
    assert len(attempts) == 2


@pytest.mark.parametrize("udfs", ["host"], indirect=True)
@pytest.mark.parametrize(
    ("heading", "call"),
    [
        ("One row at a time, by location", "species_by_location('{location}', {features})"),
        ("By alias", "species_by_alias({features})"),
        ("Many rows at a time", "species_in_batches('{location}', id, {features})"),
        ("With a fallback to HTTP", "species_with_fallback('{location}', {features})"),
    ],
    ids=["by_location", "by_alias", "in_batches", "with_fallback"],
)
def test_a_process_loads_the_model_once(logged, udfs, mlflow_udf_tracking_uri, heading, call):
    """A process opens the model in its first call only, for any number of rows and groups."""
    udfs.use(logged.location)
    udfs.stand_ins[page.TRACKING_SERVER] = mlflow_udf_tracking_uri
    udfs.executor.allow(mlflow_udf_tracking_uri)
    for statement in page.statements(heading, udfs.stand_ins):
        if " SCRIPT " in statement:
            create, code = statement.split(" AS\n", 1)
            udfs.execute(f"{create} AS\n{_WATCH}\n{code}\n{_COUNT}")
        elif statement.startswith("CREATE "):
            udfs.execute(statement)
    call = call.format(location=logged.location, features=_FEATURES)
    groups = " GROUP BY region" if heading == "Many rows at a time" else ""
    assert len(udfs.execute(f"SELECT {call} FROM flowers{groups}")) == 10
    opened = [
        line for line in udfs.executor.database.output.splitlines() if "models opened" in line
    ]
    assert len(opened) == (2 if groups else 10)
    assert set(opened) == {opened[0]} != {"models opened: 0"}
