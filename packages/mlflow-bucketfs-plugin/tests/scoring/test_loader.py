"""The choice of the loader: a script loads a model without MLflow only if all rules hold."""

from __future__ import annotations

import copy
import pickle
from datetime import datetime

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pytest
import skops.io
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import Array, Map
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_plugin.scoring import ScriptError, ScriptOptions, scoring_script
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .conftest import FLAVORS


def changed(flavor, **values):
    """Return ``MLmodel`` content with one flavor changed; None removes a key."""
    flavors = copy.deepcopy(FLAVORS)
    flavors[flavor] = {k: v for k, v in {**flavors[flavor], **values}.items() if v is not None}
    return {"flavors": flavors}


@pytest.mark.parametrize("serialization", ["skops", "pickle", "cloudpickle", None])
def test_formats(make_script, serialization):
    """A scikit-learn model of each format is loaded directly; pickle is the default format."""
    model = changed("sklearn", serialization_format=serialization, skops_trusted_types=["a.B"])
    loader = make_script(model=model).spec.loader
    assert loader.kind == "direct"
    assert (loader.format, loader.file) == (serialization or "pickle", "model.pkl")
    assert loader.trusted == ("a.B",)
    assert loader.predict_fn == "predict"


@pytest.mark.parametrize(
    "method", ["predict_proba", "predict_log_proba", "predict_joint_log_proba"]
)
def test_methods(make_script, method):
    """The script calls the method that the model was logged with."""
    assert (
        make_script(model=changed("python_function", predict_fn=method)).spec.loader.predict_fn
        == method
    )


@pytest.mark.parametrize(
    ("model", "obstacle"),
    [
        (changed("python_function", loader_module="mlflow.xgboost"), "not a scikit-learn model"),
        ({"flavors": {"python_function": FLAVORS["python_function"]}}, "not a scikit-learn model"),
        (changed("python_function", code="code"), "its own code"),
        (changed("sklearn", code="code"), "its own code"),
        (changed("python_function", data="data"), "its own data"),
        (changed("python_function", config={"a": 1}), "a configuration"),
        (changed("python_function", model_code_path="m.py"), "it is a script"),
        (changed("python_function", predict_fn="transform"), "its predict_fn is 'transform'"),
        (changed("python_function", model_path=None), "names no file of the model"),
        (changed("python_function", model_path="/dev/stdin"), "names no file of the model"),
        (changed("sklearn", serialization_format="onnx"), "serialization format is 'onnx'"),
        ({"is_signature_from_type_hint": True}, "type hints"),
        ({"type_hint_from_example": True}, "type hints"),
        ({"metadata": {"mlflow.model.isExternal": True}}, "external model"),
    ],
)
def test_obstacles(make_script, model, obstacle):
    """A model with an obstacle is loaded by MLflow; ``direct`` is refused with the reason."""
    assert make_script(model=model).spec.loader.kind == "mlflow"
    assert make_script(model=model, loader="mlflow").spec.loader.kind == "mlflow"
    with pytest.raises(ScriptError, match=f"--loader direct: .*{obstacle}"):
        make_script(model=model, loader="direct")


@pytest.mark.parametrize(
    ("inputs", "obstacle"),
    [
        (
            Schema([ColSpec("double", "x"), ColSpec(Array("double"), "v")]),
            "an Array, Object or Map",
        ),
        (Schema([ColSpec(Map("string"), "v")]), "an Array, Object or Map"),
        (Schema([TensorSpec(np.dtype("float64"), (-1, 2), "v")]), "its signature names its tensor"),
    ],
)
def test_signatures_that_mlflow_enforces(make_script, inputs, obstacle):
    """Models with nested inputs or a named tensor are loaded by MLflow."""
    assert make_script(inputs.to_dict()).spec.loader.kind == "mlflow"
    with pytest.raises(ScriptError, match=f"--loader direct: .*{obstacle}"):
        make_script(inputs.to_dict(), loader="direct")


class Seen(BaseEstimator):
    """An estimator that predicts its exact input, as text for each row."""

    def predict(self, X):  # noqa: N803
        """Return the type, the labels and the values of each row."""
        if isinstance(X, np.ndarray):
            return [f"{X.dtype} {X.shape[1:]} {row!r}" for row in X]
        labels = [f"{label!r} {dtype}" for label, dtype in X.dtypes.items()]
        columns = [[repr(value) for value in X[label].tolist()] for label in X]
        return [f"{labels} {row}" for row in zip(*columns, strict=True)]


MOMENT = datetime(2026, 1, 31, 12, 30, 0, 1)  # noqa: DTZ001 -- a TIMESTAMP has no time zone
COLUMNS = {
    "boolean": [True, False, None],
    "integer": [1, -(2**31), 7],
    "long": [2**53 + 1, -1, 7],
    "float": [0.1, None, 1e-40],
    "double": [0.1, None, 5e-324],
    "string": ["a", None, "12"],
    "datetime": [MOMENT, None, MOMENT],
}


def tensor(dtype, *shape):
    """Return the signature of a tensor without a name."""
    return Schema([TensorSpec(np.dtype(dtype), (-1, *shape))])


@pytest.mark.parametrize(
    ("inputs", "columns"),
    [
        (Schema([ColSpec(kind, kind) for kind in COLUMNS]), COLUMNS.values()),
        (Schema([ColSpec(kind, kind, required=False) for kind in COLUMNS]), COLUMNS.values()),
        (Schema([ColSpec(kind) for kind in COLUMNS]), COLUMNS.values()),
        (Schema([ColSpec("boolean", "b")]), [[True, False]]),
        (Schema([ColSpec("string", "s")]), [[None, None]]),
        (tensor("float32", 2), [[0.1, 1.0], [2.0, None]]),
        (tensor("float64", 1), [[0.1, 1.0]]),
        (tensor("int64"), [[1, 2]]),
        (tensor("uint64", 2), [[1, 2**64 - 1], [0, 1]]),
        (tensor("bool", 2), [[True, False], [True, True]]),
        (tensor("str"), [["a", "bc"]]),
        (tensor("datetime64[ns]"), [[MOMENT, MOMENT]]),
    ],
)
def test_estimators_get_the_same_from_both_loaders(  # noqa: PLR0917
    server, udf, tmp_path, environment, inputs, columns
):
    """With both loaders, the estimator gets exactly the same input, for all signatures."""
    mlflow.sklearn.save_model(
        Seen(),
        tmp_path / "m",
        signature=ModelSignature(inputs, Schema([ColSpec("string")])),
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )
    uri = server.uri(path="seen")
    BucketFSArtifactRepository(uri).log_artifacts(str(tmp_path / "m"))
    environment.setenv("EXA_BUCKETFS_MOUNT_ROOT", str(server.mount_root))
    frame = pd.DataFrame({n: pd.Series(c, dtype=object) for n, c in enumerate(columns)})
    specs = [scoring_script(uri, "s", ScriptOptions(loader=k)).spec for k in ("auto", "mlflow")]
    assert [spec.loader.kind for spec in specs] == ["direct", "mlflow"]
    direct, by_pyfunc = (udf(spec, frame) for spec in specs)
    assert direct == by_pyfunc
    assert len(direct) == len(frame)


def test_chosen_loader(make_script):
    """If both loaders are possible, either can be chosen."""
    assert make_script(loader="direct").spec.loader.kind == "direct"
    assert make_script(loader="mlflow").spec.loader.kind == "mlflow"


@pytest.mark.parametrize(
    ("method", "reason"), [("score", "it needs labels"), ("decision_function", "cannot load it")]
)
def test_methods_that_no_script_can_call(make_script, method, reason):
    """A model with such a method is refused with every loader."""
    for loader in ("auto", "mlflow", "direct"):
        with pytest.raises(ScriptError, match=reason):
            make_script(model=changed("python_function", predict_fn=method), loader=loader)


def test_params_of_scikit_learn(make_script):
    """Params of a scikit-learn model are refused, because MLflow would ignore them."""
    schema = [{"name": "n", "type": "long", "default": 1, "shape": None}]
    with pytest.raises(ScriptError, match="scikit-learn models take no params"):
        make_script(model={"params": schema}, params={"n": "2"})
    assert make_script(model={"params": schema}).spec.params == {}


@pytest.mark.parametrize(
    ("serialization", "dumps"),
    [
        ("skops", skops.io.dumps),
        ("pickle", lambda model: pickle.dumps(model, protocol=2)),
        ("pickle", pickle.dumps),
        ("cloudpickle", cloudpickle.dumps),
    ],
)
def test_modules(store_model, server, serialization, dumps):
    """The modules that loading will import are read from the file without loading it."""
    forest = RandomForestRegressor(n_estimators=2).fit([[0.0], [1.0]], [1.0, 3.0])
    model = make_pipeline(StandardScaler(), forest)
    uri = store_model(**changed("sklearn", serialization_format=serialization))
    server.put("m/model.pkl", dumps(model))
    modules = scoring_script(uri, "s").spec.loader.modules
    assert {
        "sklearn.ensemble._forest",
        "sklearn.pipeline",
        "sklearn.preprocessing._data",
        "sklearn.tree._classes",
    } <= set(modules)
    assert all(name.startswith("sklearn.") for name in modules)
    # without the file, they are imported when the model is loaded
    assert scoring_script(uri, "s", ScriptOptions(verify=False)).spec.loader.modules == ()
