"""The UDFs of ``docs/user/udfs.md``, executed as they are printed there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from mlflow_bucketfs_testing.server import BucketFSServer
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

_PAGE = Path(__file__).parents[2] / "docs" / "user" / "udfs.md"
_SCRIPT = re.compile(
    r"CREATE OR REPLACE PYTHON3_MLFLOW (?P<input>SCALAR|SET) SCRIPT (?P<name>\w+)"
    r"\((?P<columns>.*?)\)\s+(?P<output>RETURNS|EMITS) (?P<emitted>.*?) AS\n(?P<code>.*?)\n/\n",
    re.DOTALL,
)
_FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
_TYPES = {"VARCHAR": "str", "DOUBLE": "float"}

# A UDF is a fresh process; this one runs the script in exasol-udf-mock-python.
_HOST = """
import json, sys
from exasol_udf_mock_python.column import Column
from exasol_udf_mock_python.connection import Connection
from exasol_udf_mock_python.group import Group
from exasol_udf_mock_python.mock_exa_environment import MockExaEnvironment
from exasol_udf_mock_python.mock_meta_data import MockMetaData
from exasol_udf_mock_python.udf_mock_executor import UDFMockExecutor

spec = json.load(sys.stdin)
types = {"str": str, "float": float}
columns = lambda pairs: [Column(name, types[kind], sql) for name, kind, sql in pairs]
meta = MockMetaData(
    script_code_wrapper_function=None,
    input_type=spec["input"],
    input_columns=columns(spec["columns"]),
    output_type=spec["output"],
    output_columns=columns(spec["emitted"]),
)
meta._script_code = spec["code"]  # it would take the code from a function only
connections = {name: Connection(**values) for name, values in spec["connections"].items()}
groups = UDFMockExecutor().run(
    [Group([tuple(row) for row in rows]) for rows in spec["groups"]],
    MockExaEnvironment(meta, connections),
)
print(json.dumps([group.rows for group in groups]))
"""


def _columns(text: str) -> list[tuple[str, str, str]]:
    pairs = [part.split(maxsplit=1) for part in re.split(r",\s*(?![^(]*\))", text.strip())]
    return [(name, _TYPES[sql.partition("(")[0]], sql) for name, sql in pairs]


@dataclass(frozen=True)
class Script:
    """One script of the page."""

    input: str
    output: str
    columns: list[tuple[str, str, str]]
    emitted: list[tuple[str, str, str]]
    code: str

    @classmethod
    def named(cls, name: str) -> Script:
        """Find a script on the page."""
        match = next(m for m in _SCRIPT.finditer(_PAGE.read_text()) if m["name"] == name)
        returns = match["output"] == "RETURNS"
        emitted = f"result {match['emitted']}" if returns else match["emitted"].strip("()")
        columns, emits = _columns(match["columns"]), _columns(emitted)
        return cls(match["input"], match["output"], columns, emits, match["code"])


@dataclass(frozen=True)
class Iris:
    """The model of the page, the bucket it is in, and what it says about the flowers."""

    server: BucketFSServer
    tracking_uri: str
    location: str
    flowers: list[list[float]]
    species: list[float]


@pytest.fixture(scope="module")
def iris(mlflow_server, embedded_store, mlflow_client_env):
    """Log the model of the page with plain MLflow."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in mlflow_client_env.items():
            environment.setenv(name, value)
        previous = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(mlflow_server.uri)
        features, species = load_iris(return_X_y=True, as_frame=True)
        features.columns = _FEATURES
        model = LogisticRegression(max_iter=1000).fit(features, species)
        mlflow.set_experiment("udfs")
        with mlflow.start_run():
            info = mlflow.sklearn.log_model(
                model, name="model", registered_model_name="iris", pip_requirements=["scikit-learn"]
            )
        client = mlflow.MlflowClient()
        client.set_registered_model_alias("iris", "champion", info.registered_model_version)
        mlflow.set_tracking_uri(previous)
    embedded_store.sync_mount()
    flowers = features.iloc[::15]
    expected = [float(each) for each in model.predict(flowers)]
    return Iris(
        embedded_store,
        mlflow_server.uri,
        info.artifact_path,
        flowers.to_numpy().tolist(),
        expected,
    )


@pytest.fixture
def udf(iris):
    """Run a script of the page as a UDF: a fresh process, a mount, no password."""

    def run(name, groups, connections=(), mount_root=None):
        script = Script.named(name)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("EXA_", "MLFLOW_"))}
        spec = {**vars(script), "groups": groups, "connections": dict(connections)}
        iris.server.requests.clear()
        completed = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _HOST],
            input=json.dumps(spec),
            env={**clean, "EXA_BUCKETFS_MOUNT_ROOT": str(mount_root or iris.server.mount_root)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return json.loads(completed.stdout.splitlines()[-1])

    return run


def _connection(address="", user=None, password=None):
    return {"address": address, "user": user, "password": password}


def test_one_row_at_a_time_by_location(udf, iris):
    """Every row gets its species, and BucketFS is not asked."""
    rows = [[iris.location, *flower] for flower in iris.flowers]
    assert udf("species_by_location", [rows]) == [[[s] for s in iris.species]]
    assert iris.server.requests.count() == 0


def test_by_alias(udf, iris):
    """The alias is resolved by the tracking server, the files come from the mount."""
    connections = {"MLFLOW": _connection(iris.tracking_uri)}
    assert udf("species_by_alias", [iris.flowers], connections) == [[[s] for s in iris.species]]
    assert iris.server.requests.count() == 0


def test_many_rows_and_several_models(udf, iris):
    """Each group is scored in data frames by the model that its rows name."""
    numbered = [[float(n), *flower] for n, flower in enumerate(iris.flowers)]
    half = len(numbered) // 2
    # the same model under two names, as two models would be
    other = iris.location.replace("exa+bfs://", "exabfs://")
    groups = [
        [[iris.location, *row] for row in numbered[:half]],
        [[other, *row] for row in numbered[half:]],
    ]
    scored = [row for group in udf("species_in_batches", groups) for row in group]
    assert scored == [[float(n), s] for n, s in enumerate(iris.species)]
    assert iris.server.requests.count() == 0


def test_a_damaged_model_is_loaded_over_http(udf, iris, tmp_path):
    """With the fallback, a node whose copy is damaged asks BucketFS once."""
    mount = tmp_path / "mount"
    shutil.copytree(iris.server.mount_root, mount)
    for part in mount.rglob("model.*"):
        part.write_bytes(b"damaged")
    rows = [[iris.location, *flower] for flower in iris.flowers]
    connections = {"BUCKETFS": _connection(user="r", password="read")}
    scored = udf("species_with_fallback", [rows], connections, mount)
    assert scored == [[[s] for s in iris.species]]
    assert iris.server.requests.listings == 1
