"""The container in a real database; and what pytest-exasol-slc does with our builder.

With an Exasol at hand (see docs/testing/slc.md)::

    uv run --group exasol --group slc pytest integration-tests/tests/slc --backend=onprem
"""

from __future__ import annotations

import time
from pathlib import Path

import mlflow
import pytest
from mlflow_bucketfs_core import udf_path
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

# comes with the group `exasol`
pyexasol = pytest.importorskip("pyexasol", reason="uv run --group exasol --group slc pytest")

SCRIPT = (Path(__file__).parent / "scoring_udf.py").read_text(encoding="utf-8")
# How long a fresh upload may take to show on the node's mount
REPLICATION_S = 60


def test_pytest_exasol_slc_exports_our_container(request, bucketfs_target):
    """Its fixture ``export_slc`` gets the file from our ``slc_builder``; no database is asked."""
    if bucketfs_target.backend != "onprem" or request.config.getoption("--skip-slc"):
        pytest.skip("needs --backend=onprem, without --skip-slc")
    exported: Path = request.getfixturevalue("export_slc")
    assert exported.name.startswith("mlflow-bucketfs-python-3.12-release-x64-")
    assert exported.suffixes[-2:] == [".tar", ".gz"]
    assert exported.is_file()


def test_a_udf_in_the_database_scores_rows(request, database, client, unique):
    """A SET script in the deployed container scores with a model that it reads from /buckets."""
    if request.config.getoption("--skip-slc"):
        pytest.skip("--skip-slc: the container is not deployed")
    del client  # asked for, since it configures MLflow
    alias = request.getfixturevalue("deployed_slc")
    features, species = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(features, species)
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(model, name=f"iris-{unique}")
    # deployed for new sessions: this one is older
    languages = database.execute(
        "SELECT system_value FROM exa_parameters WHERE parameter_name = 'SCRIPT_LANGUAGES'"
    ).fetchval()
    database.execute("ALTER SESSION SET SCRIPT_LANGUAGES = {languages}", {"languages": languages})
    columns = "model VARCHAR(2000), id DECIMAL(9, 0), a DOUBLE, b DOUBLE, c DOUBLE, d DOUBLE"
    database.execute(f"CREATE TABLE samples ({columns})")
    path = str(udf_path(info.artifact_path))
    rows = [(path, number, *row) for number, row in enumerate(features[::10].tolist())]
    database.import_from_iterable(rows, "SAMPLES")
    database.execute(
        f"CREATE {alias} SET SCRIPT score({columns}) "
        f"EMITS (id DECIMAL(9, 0), species DECIMAL(9, 0)) AS\n{SCRIPT}"
    )
    query = "SELECT id, species FROM (SELECT score(model, id, a, b, c, d) FROM samples) ORDER BY id"
    scored = _replicated(database, query)
    wanted = list(enumerate(model.predict(features[::10]).tolist()))
    assert [(int(number), int(label)) for number, label in scored] == wanted


def _replicated(database, query: str) -> list[tuple[float, float]]:
    """Run a query until its UDF finds the model: a fresh upload shows on the mount a bit later."""
    deadline = time.monotonic() + REPLICATION_S
    while True:
        try:
            return database.execute(query).fetchall()
        except pyexasol.ExaQueryError as exc:
            if "does not exist" not in str(exc) or time.monotonic() > deadline:
                raise
        time.sleep(2)
