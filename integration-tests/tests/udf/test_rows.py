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


# A UDF's code, before and after that of the page
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
    """What the Python of the page prints about the model that it logs."""

    location: str
    path: str


@pytest.fixture(scope="module")
def logged(mlflow_server, mlflow_client_env, bucketfs_uri, tmp_path_factory) -> Logged:
    """Run the Python of the page in a process of its own, as its reader does."""
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
    """The location is below that of the experiment, the path is where UDFs see it."""
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


def test_a_script_needs_no_import_but_its_own(fresh_host, models):
    """In a Python that has imported nothing, a script finds MLflow, plugin and model."""
    fresh_host.use(models.location)
    assert fresh_host.read("One row at a time, by location") == [(models.species[0],)]


def test_by_alias(logged, udfs, models, bucketfs_server, mlflow_udf_tracking_uri):
    """The alias is resolved by the tracking server, the files come from the mount."""
    if isinstance(udfs.executor, Exasol) and "//127." in mlflow_udf_tracking_uri:
        pytest.skip(
            "UDFs of the database do not reach it: --mlflow-bucketfs-mlflow-server-host ADDRESS"
        )
    udfs.use(logged.location)
    udfs.stand_ins[page.TRACKING_SERVER] = mlflow_udf_tracking_uri
    udfs.executor.reaches(mlflow_udf_tracking_uri)
    assert udfs.read("By alias") == [(models.species[0],)]
    assert bucketfs_server.requests.count() == 0


@pytest.mark.parametrize("udfs", ["host"], indirect=True)
def test_an_unreachable_tracking_server_is_given_up(udfs):
    """The script of the page tries twice; MLflow's defaults try for minutes."""
    attempts = []

    class Silent(socketserver.BaseRequestHandler):
        def handle(self):
            attempts.append(self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        udfs.stand_ins[page.TRACKING_SERVER] = url
        udfs.executor.reaches(url)
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
    """However many rows and groups a process gets, it opens no model after its first call."""
    udfs.use(logged.location)
    udfs.stand_ins[page.TRACKING_SERVER] = mlflow_udf_tracking_uri
    udfs.executor.reaches(mlflow_udf_tracking_uri)
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
