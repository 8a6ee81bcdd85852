"""What ``mlflow-bucketfs check`` does: one step after the other, each with result and remedy."""

from mlflow_bucketfs_plugin.check.report import Report, Step
from mlflow_bucketfs_plugin.check.steps import run_check

__all__ = ["Report", "Step", "run_check"]
