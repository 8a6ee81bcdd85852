"""The command ``mlflow-bucketfs check``: a sequence of steps, each with a result and a remedy."""

from mlflow_bucketfs_plugin.check.report import Report, Step
from mlflow_bucketfs_plugin.check.steps import run_check

__all__ = ["Report", "Step", "run_check"]
