"""``python -m churn_report.train``: train a model and log it to the server in the environment."""

from __future__ import annotations

import mlflow
from sklearn.linear_model import LogisticRegression

MONTHS = [[1.0], [2.0], [3.0], [20.0], [30.0], [40.0]]
CHURNED = [1, 1, 1, 0, 0, 0]


def main() -> None:
    """Train, log, and print the URI of the model."""
    model = LogisticRegression().fit(MONTHS, CHURNED)
    with mlflow.start_run():
        mlflow.log_metric("accuracy", model.score(MONTHS, CHURNED))
        # given, because inferring them would take longer than the training
        info = mlflow.sklearn.log_model(model, name="churn", pip_requirements=["scikit-learn"])
    print(info.model_uri)  # noqa: T201 -- the result


if __name__ == "__main__":
    main()
