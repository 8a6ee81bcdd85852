"""Save the models of the cases with MLflow.

A script, so that its memory is freed at its end::

    python make_models.py linear DIRECTORY COEFFICIENTS
    python make_models.py scoring DIRECTORY TREES
"""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

_ROWS, _FEATURES = 20_000, 10  # of random numbers: a tree has a leaf for almost every row


def linear(directory: str, coefficients: str) -> None:
    """Save a linear model with this many coefficients."""
    model = LinearRegression()
    model.coef_ = np.random.default_rng().random(int(coefficients))
    model.intercept_ = 0.0
    mlflow.sklearn.save_model(
        model, directory, serialization_format="cloudpickle", pip_requirements=["scikit-learn"]
    )


def scoring(directory: str, trees: str) -> None:
    """Save the models of *scoring*: a small one, one with text, and a forest of 2 MB a tree."""
    random = np.random.default_rng(0)
    numbers = pd.DataFrame(random.random((_ROWS, _FEATURES)), columns=list("abcdefghij"))
    target = random.random(_ROWS)
    mixed = pd.DataFrame(
        {
            "age": random.integers(18, 99, _ROWS),
            "income": random.random(_ROWS),
            "country": random.choice(["at", "de", "ch"], _ROWS),
            "member": random.random(_ROWS) > 0.5,  # noqa: PLR2004
        }
    )
    encoder = make_column_transformer((OneHotEncoder(), ["country"]), remainder="passthrough")
    models = {
        "small": (LinearRegression(), numbers),
        "mixed": (make_pipeline(encoder, LinearRegression()), mixed),
        "forest": (RandomForestRegressor(int(trees), random_state=0), numbers),
    }
    for name, (model, features) in models.items():
        mlflow.sklearn.save_model(
            model.fit(features, target),
            Path(directory, name),
            signature=infer_signature(features, target),
            serialization_format="cloudpickle",
            pip_requirements=["scikit-learn"],
        )


if __name__ == "__main__":
    {"linear": linear, "scoring": scoring}[sys.argv[1]](*sys.argv[2:])
