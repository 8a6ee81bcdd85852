"""Save a model of a given size, as MLflow does it. A script: ``make_model.py DIRECTORY NUMBER``."""

from __future__ import annotations

import sys

import mlflow.sklearn
import numpy as np
from sklearn.linear_model import LinearRegression


def main(directory: str, coefficients: str) -> None:
    """Save a linear model with this many coefficients."""
    model = LinearRegression()
    model.coef_ = np.random.default_rng().random(int(coefficients))
    model.intercept_ = 0.0
    mlflow.sklearn.save_model(
        model, directory, serialization_format="cloudpickle", pip_requirements=["scikit-learn"]
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
