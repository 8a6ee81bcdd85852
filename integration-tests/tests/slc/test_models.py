"""Models in the container: logged through a real server, read from the mount, without network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow_bucketfs_core import udf_path
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).parent

# argv: a model's URI or path, the rows to score as JSON
PREDICT = """
import json, sys
import mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(model.predict(numpy.array(json.loads(sys.argv[2]))).tolist()))
"""
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.7, 5.1, 1.6], [7.2, 3.6, 6.1, 2.5]]


@pytest.fixture
def logged(client, embedded_store, unique):
    """A model in the embedded BucketFS, rows to score, and its predictions on this machine."""
    # the first configures MLflow; the second skips if the container would not see the model
    del client, embedded_store
    features, species = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(features, species)
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(model, name=f"iris-{unique}")
    return info.artifact_path, features[::10].tolist(), model.predict(features[::10]).tolist()


@pytest.mark.parametrize("by", ["uri", "path"])
def test_a_logged_model_predicts_the_same(slc_container, logged, by):
    """A model loads by its URI and by its path below /buckets, and predicts without a network."""
    uri, rows, expected = logged
    model = uri if by == "uri" else str(udf_path(uri))
    done = slc_container.run_python(PREDICT, model, json.dumps(rows))
    assert json.loads(done.stdout) == expected


@pytest.fixture
def trained_elsewhere(tmp_path, bucketfs_uri, bucketfs_target, mlflow_environment, unique):
    """Return a function that trains a forest in a new environment and stores it in BucketFS."""
    if bucketfs_target.backend != "embedded":
        pytest.skip("the container sees the mount of the embedded BucketFS only")
    if not (3, 11) <= sys.version_info < (3, 13):
        pytest.skip("the container's numpy and scikit-learn have wheels for Python 3.11 and 3.12")
    assert mlflow_environment["EXA_BUCKETFS_PASSWORD"]

    def train(*options: str) -> tuple[str, list[int]]:
        environment = tmp_path / "environment"
        python, model = environment / "bin" / "python", tmp_path / "model"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PYTHON"))}

        def run(*command: str | Path) -> str:
            return subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=clean, cwd=tmp_path
            ).stdout

        run("uv", "venv", "--quiet", "--python", sys.base_prefix, environment)
        install = ("uv", "pip", "install", "--quiet", "--python", python, *options)
        wanted = [f"mlflow-skinny=={mlflow.__version__}", "scikit-learn", "pandas", "skops"]
        run(*install, *wanted, "cloudpickle")
        predicted = run(python, HERE / "train_forest.py", model, json.dumps(ROWS))
        uri = f"{bucketfs_uri}/trained-{unique}"
        get_artifact_repository(uri).log_artifacts(str(model))
        return uri, json.loads(predicted)

    return train


def test_a_model_trained_with_numpy_2_fails_with_its_cause(
    slc_container, trained_elsewhere, installed
):
    """The error has the cause and the remedy, instead of numpy's error about BitGenerator."""
    same = f"scikit-learn=={installed['scikit-learn']}"
    uri, _ = trained_elsewhere("numpy>=2", same)
    done = slc_container.run_python(PREDICT, uri, json.dumps(ROWS), check=False)
    assert done.returncode == 1
    assert "is not a known BitGenerator module" not in done.stderr
    assert (
        "model.pkl was written with numpy 2 or later, but numpy 1.26.4 is installed" in done.stderr
    )
    assert "pip install -c constraints.txt" in done.stderr


def test_a_model_trained_with_the_constraints_loads(slc_container, trained_elsewhere, exported):
    """A model that was trained with `-c constraints.txt` loads and predicts in the container."""
    uri, expected = trained_elsewhere("--constraint", str(exported / "constraints.txt"))
    done = slc_container.run_python(PREDICT, uri, json.dumps(ROWS))
    assert json.loads(done.stdout) == expected
    assert "numpy" not in done.stderr
