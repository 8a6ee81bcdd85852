"""Models and folders for the commands: local paths, and URIs in any store of MLflow."""

from __future__ import annotations

from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow_bucketfs_core.uri import redacted


def fetch(source: str, dst_path: str | None = None) -> Path:
    """Return the path of a local file or directory, or download it from a URI.

    Args:
        source: a local path, or a URI that MLflow can download.
        dst_path: directory for the download; see MLflow's ``download_artifacts``.

    Raises:
        MlflowException: the source is neither, or cannot be read.
        BucketFSError: the source is a malformed URI in BucketFS.
        OSError: the source cannot be read.
    """
    path = Path(source)
    if source and "://" not in source and path.exists():
        return path
    if ":" not in source.partition("/")[0]:
        raise MlflowException(
            f"{redacted(source)!r} is neither a URI nor an existing file or directory.",
            error_code=RESOURCE_DOES_NOT_EXIST,
        )
    return Path(download_artifacts(artifact_uri=source, dst_path=dst_path))
