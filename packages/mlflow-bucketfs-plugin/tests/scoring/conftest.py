"""Fixtures that store models in BucketFS, make scripts for them, and run a script's code here.

Models are written by hand if MLflow would take seconds to log them. Frames have the dtypes that
Exasol's client delivers.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import inspect
import json
import os
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from mlflow_bucketfs_plugin.cli import main
from mlflow_bucketfs_plugin.scoring import ScriptOptions, scoring_script, udf_code
from mlflow_bucketfs_plugin.scoring.spec import MlflowLoader, ScoringSpec, udf_source

AGE = [{"type": "long", "name": "age", "required": True}]
SCORE = [{"type": "double", "name": "score", "required": True}]
FLAVORS = {
    "python_function": {
        "loader_module": "mlflow.sklearn",
        "model_path": "model.pkl",
        "predict_fn": "predict",
    },
    "sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle", "code": None},
}


class Context:
    """The ``ctx`` of a SET script: delivers batches of one group, and collects emitted rows."""

    def __init__(self, frame):
        self.rest, self.emitted, self.batches = frame, [], []

    def get_dataframe(self, num_rows=1, start_col=0):
        """Return the next batch, None after the last row."""
        assert start_col == 0
        if self.rest is None or not len(self.rest):
            return None
        batch, self.rest = self.rest.iloc[:num_rows], self.rest.iloc[num_rows:]
        self.batches.append(len(batch))
        return batch

    def emit(self, frame):
        """Collect a frame, if Exasol's client would emit it unchanged."""
        assert len(frame), "the client refuses a frame without rows"
        assert set(frame.dtypes) == {np.dtype(object)}
        self.emitted += [tuple(row) for row in frame.to_numpy()]


def deliver(sql_type, values):
    """Return a column with the dtype of ``ctx.get_dataframe()``, which depends on the NULLs."""
    null = [value is None for value in values]
    dtype = "object"
    if sql_type == "INTEGER":  # DECIMAL of up to 18 digits
        dtype = "float64" if any(null) else "int64"
    elif sql_type == "DOUBLE":
        dtype = "float64"
    elif sql_type == "BOOLEAN" and not any(null):
        dtype = "bool"
    elif sql_type == "TIMESTAMP" and all(v is None or 1678 <= v.year < 2262 for v in values):
        dtype = "datetime64[ns]"
    return pd.Series(values, dtype="object" if all(null) else dtype)


@pytest.fixture(scope="session")
def delivered():
    """Return the function :func:`deliver`."""
    return deliver


@pytest.fixture(scope="session")
def score():
    """Return a function that scores a batch; the model is any function of pyfunc's input."""
    udf_code.import_libraries()

    def score(spec, frame, predict, rows_before=0):
        udf_code.SPEC = json.loads(spec.to_json())
        emitted = udf_code.score(frame, rows_before, predict)
        assert set(emitted.dtypes) == {np.dtype(object)}
        return [tuple(row) for row in emitted.to_numpy()]

    yield score
    udf_code.SPEC = {}


@pytest.fixture(scope="session")
def make_spec():
    """Return a function that makes a spec with minimal defaults."""

    def make(inputs, outputs, **options):
        given = {"model": "/buckets/b/d/m", "origin": "models:/m/1", "keys": (), "files": None}
        given |= {"loader": MlflowLoader()} | options
        return ScoringSpec(inputs=tuple(inputs), outputs=tuple(outputs), **given)

    return make


@pytest.fixture
def udf():
    """Return a function that runs a script as in a new process: ``udf(spec, frame, …)``.

    Each frame is a group. Functions of the script can be wrapped by name; the wrapper is called
    with the function and its arguments.
    """

    def run(spec, *frames, **wrappers):
        module = ModuleType("builtins")
        exec(compile(udf_source(spec), "udf", "exec"), vars(module))  # noqa: S102
        for name, wrapper in wrappers.items():
            setattr(module, name, functools.partial(wrapper, getattr(module, name)))
        contexts = [Context(frame) for frame in frames]
        for ctx in contexts:
            module.run(ctx)
        run.batches = [ctx.batches for ctx in contexts]
        return [row for ctx in contexts for row in ctx.emitted]

    environment = dict(os.environ)
    yield run
    os.environ.clear()
    os.environ.update(environment)
    sys.tracebacklimit = 1000
    sys.dont_write_bytecode = False
    gc.unfreeze()


@pytest.fixture(scope="session")
def digests():
    """Return a function that computes the SHA-256 of each file in a folder, by relative path."""

    def digests(folder):
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return {
            str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files
        }

    return digests


@pytest.fixture
def store_model(server):
    """Return a function that stores a model that cannot be loaded, and returns its URI."""

    def store(inputs=AGE, outputs=SCORE, *, params=None, files=(), path="m", **mlmodel):
        schemas = {"inputs": inputs, "outputs": outputs, "params": params}
        content = {
            "flavors": FLAVORS,
            "signature": {part: schema and json.dumps(schema) for part, schema in schemas.items()},
            "model_id": f"m-{'0a' * 16}",
            **mlmodel,
        }
        server.put(f"{path}/MLmodel", yaml.safe_dump(content).encode())
        server.put_many((f"{path}/{name}", b"content") for name in ("model.pkl", *files))
        return server.uri(path=path)

    return store


@pytest.fixture
def make_script(store_model):
    """Return a function that makes a script for a model of ``store_model``."""

    def make(inputs=AGE, outputs=SCORE, *, model=None, name="SCORES", **options):
        uri = store_model(inputs, outputs, **(model or {}))
        return scoring_script(uri, name, ScriptOptions(**options))

    return make


@pytest.fixture
def command():
    """Return a function that runs ``mlflow-bucketfs`` in this process, with separate output."""
    # click 8.1 has an option for separate output, and 8.2 has only that
    can_mix = "mix_stderr" in inspect.signature(CliRunner).parameters
    runner = CliRunner(mix_stderr=False) if can_mix else CliRunner()

    def run(*arguments):
        return runner.invoke(main, [str(argument) for argument in arguments])

    return run
