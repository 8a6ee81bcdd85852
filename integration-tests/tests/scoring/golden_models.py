"""Models of ten kinds, logged with MLflow's API, with rows to score and the script's options."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import lightgbm
import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ParamSchema, ParamSpec
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

FLOWERS, SPECIES = load_iris(return_X_y=True, as_frame=True)
FLOWERS.columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
CUSTOMERS = pd.DataFrame(
    {
        "age": [31, 45, 62, 28, 39, 51],
        "income": [1.5, 2.5, 0.5, 9.75, 4.0, 3.25],
        "country": ["DE", "AT", "DE", "CH", "größer", 'with "quotes"'],
    }
)
CHURNED = pd.Series([0, 1, 0, 1, 1, 0])


@dataclass
class Case:
    """A model that was logged.

    Attributes:
        uri: the model's URI.
        frame: rows to score.
        options: options of the script.
        loader: the expected loader.
        params: params for ``predict``.
    """

    uri: str
    frame: pd.DataFrame
    options: dict[str, Any] = field(default_factory=dict)
    loader: str = "mlflow"
    params: dict[str, Any] | None = None


def _sklearn(model: Any, frame: pd.DataFrame, predicted: Any, **options: Any) -> str:
    signature = options.pop("signature", None) or infer_signature(frame, predicted)
    info = mlflow.sklearn.log_model(
        model, name="model", signature=signature, pip_requirements=["scikit-learn"], **options
    )
    return str(info.model_uri)


def _pyfunc(model: Any, **options: Any) -> str:
    info = mlflow.pyfunc.log_model(
        name="model", python_model=model, pip_requirements=["pandas"], **options
    )
    return str(info.model_uri)


def classifier() -> Case:
    """Log a classifier with a registered version and an alias."""
    model = LogisticRegression(max_iter=1000).fit(FLOWERS, SPECIES)
    uri = _sklearn(
        model, FLOWERS, model.predict(FLOWERS), registered_model_name="golden-classifier"
    )
    assert uri
    mlflow.MlflowClient().set_registered_model_alias("golden-classifier", "champion", "1")
    return Case(
        "models:/golden-classifier@champion",
        FLOWERS,
        {"table": "flowers", "outputs": [("species", "DECIMAL(9,0)")]},
        "direct",
    )


def regressor() -> Case:
    """Log a pickled forest, of whole numbers in columns with unusual names."""
    frame = pd.DataFrame(
        {
            "a.b": np.arange(50, dtype="int64"),
            "size": np.arange(50, dtype="int32") % 7,
            'the "third"': np.arange(50) / 8,
            "Größe": np.arange(50) % 3 == 0,
        }
    )
    target = frame["a.b"] * 1.5 + frame["size"]
    model = RandomForestRegressor(n_estimators=5, random_state=0).fit(frame, target)
    options = {"on_error": "column"}
    uri = _sklearn(model, frame, model.predict(frame), serialization_format="cloudpickle")
    return Case(uri, frame, options, "direct")


def pipeline() -> Case:
    """Log a pipeline that encodes text."""
    steps = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["country"]),
        (StandardScaler(), ["age", "income"]),
    )
    model = make_pipeline(steps, LogisticRegression()).fit(CUSTOMERS, CHURNED)
    uri = _sklearn(model, CUSTOMERS, model.predict(CUSTOMERS))
    options = {"view": "churn_now", "table": "shop.customers", "types": {"age": "DECIMAL(3,0)"}}
    return Case(uri, CUSTOMERS, options, "direct")


def probabilities() -> Case:
    """Log a classifier that predicts probabilities."""
    model = LogisticRegression(max_iter=1000).fit(FLOWERS, SPECIES)
    predicted = model.predict_proba(FLOWERS)
    uri = _sklearn(model, FLOWERS, predicted, pyfunc_predict_fn="predict_proba")
    # MLflow's signature does not contain the number of columns
    return Case(uri, FLOWERS, {"outputs": [(f"p_{i}", "DOUBLE") for i in range(3)]}, "direct")


def several_outputs() -> Case:
    """Log a model that predicts two numbers."""
    targets = FLOWERS[["petal_length", "petal_width"]]
    features = FLOWERS[["sepal_length", "sepal_width"]]
    model = LinearRegression().fit(features, targets)
    predicted = pd.DataFrame(model.predict(features), columns=["length (cm)", "date"])
    return Case(_sklearn(model, features, predicted), features, {}, "direct")


def with_params() -> Case:
    """Log a custom model that takes params."""

    class Scaled(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):  # noqa: ARG002 -- MLflow's names
            return model_input["income"] * params["factor"] + params["shift"]

    schema = ParamSchema([ParamSpec("factor", "double", 1.0), ParamSpec("shift", "long", 0)])
    inferred = infer_signature(CUSTOMERS[["income"]], CUSTOMERS["income"])
    signature = ModelSignature(inferred.inputs, inferred.outputs, schema)
    params = {"factor": 2.5, "shift": 1}
    return Case(
        _pyfunc(Scaled(), signature=signature),
        CUSTOMERS[["income"]],
        {"params": {"factor": "2.5", "shift": "1"}},
        params=params,
    )


def data_frame() -> Case:
    """Log a custom model that returns columns of several types."""

    class Report(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):  # noqa: ARG002 -- MLflow's names
            since = model_input["since"]
            return pd.DataFrame(
                {
                    "label": model_input["country"].str.lower(),
                    "Score": since.dt.year / 7,
                    "Until": since + pd.Timedelta(days=1),
                    "good": model_input["age"] > 40,
                    "id": model_input["age"] + 2**53,
                }
            )

    frame = CUSTOMERS[["age", "country"]].assign(
        since=pd.to_datetime(["2026-01-31 12:30:01.5"] * len(CUSTOMERS))
    )
    signature = infer_signature(frame, Report().predict(None, frame))
    options = {
        "types": {"since": "VARCHAR(30)"},
        "table": "customers",
        "outputs": [
            ("label", "VARCHAR(100)"),
            ("score", "DOUBLE"),
            ("until", "TIMESTAMP"),
            ("good", "BOOLEAN"),
            ("big", "DECIMAL(36,0)"),
        ],
    }
    return Case(_pyfunc(Report(), signature=signature), frame, options)


def boosted() -> Case:
    """Log a model of LightGBM, which is loaded by its own flavor."""
    options = {"n_estimators": 3, "min_child_samples": 5, "verbose": -1, "n_jobs": 1}
    model = lightgbm.LGBMRegressor(**options).fit(FLOWERS, SPECIES)
    info = mlflow.lightgbm.log_model(
        model,
        name="model",
        signature=infer_signature(FLOWERS, model.predict(FLOWERS)),
        pip_requirements=["lightgbm"],
    )
    return Case(str(info.model_uri), FLOWERS)


def no_output_signature() -> Case:
    """Log a model without outputs in its signature, but with an input example."""
    model = LogisticRegression(max_iter=1000).fit(FLOWERS, SPECIES)
    signature = ModelSignature(inputs=infer_signature(FLOWERS).inputs)
    uri = _sklearn(model, FLOWERS, None, signature=signature, input_example=FLOWERS.head(3))
    return Case(uri, FLOWERS, {"score_example": True}, "direct")


def tensor() -> Case:
    """Log a model that takes an array."""
    array = FLOWERS.to_numpy().astype("float32")
    model = LinearRegression().fit(array, SPECIES)
    uri = _sklearn(model, array, model.predict(array))
    frame = pd.DataFrame(array)
    return Case(uri, frame, {"batch_size": 64, "verify": False}, "direct")


CASES = {
    case.__name__: case
    for case in (
        classifier,
        regressor,
        pipeline,
        probabilities,
        several_outputs,
        with_params,
        data_frame,
        boosted,
        no_output_signature,
        tensor,
    )
}


def rows_of(case: Case) -> list[tuple[Any, ...]]:
    """Return the rows of a table: an id that a float cannot represent, and the features."""
    columns = [
        [str(v) if isinstance(v, pd.Timestamp) else v for v in case.frame[name].tolist()]
        for name in case.frame.columns
    ]
    return list(zip(itertools.count(2**53 + 1), *columns))
