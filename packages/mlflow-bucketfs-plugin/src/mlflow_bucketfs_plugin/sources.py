"""Models and folders for the commands: local paths, and URIs in any store of MLflow."""

from __future__ import annotations

from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow_bucketfs_core.errors import BucketFSError
from mlflow_bucketfs_core.uri import redacted

from mlflow_bucketfs_plugin.scoring import ScriptError
from mlflow_bucketfs_plugin.scoring.model import require_known

# Packages to install, by the module that MLflow imports from them. No other module is assumed to
# have its package's name: that name may belong to somebody else.
_PACKAGES = {
    "azure": "azure-storage-file-datalake azure-identity",
    "boto3": "boto3",
    "botocore": "boto3",
    "google": "google-cloud-storage",
    "paramiko": "pysftp",
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
    "pyarrow": "pyarrow",
    "pysftp": "pysftp",
    "sqlalchemy": "mlflow",
}


def fetch(source: str, dst_path: str | None = None) -> Path:
    """Return the path of a local file or directory, or download it from a URI.

    Args:
        source: a local path, or a URI that MLflow can download.
        dst_path: directory for the download; see MLflow's ``download_artifacts``.

    Raises:
        ScriptError: the source is a registered model without version and alias.
        MlflowException: the source is neither, is not known to the tracking server, or cannot be
            read.
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
    try:
        require_known(source)
        return Path(download_artifacts(artifact_uri=source, dst_path=dst_path))
    except (ScriptError, MlflowException, BucketFSError, OSError):
        raise
    except Exception as error:  # the library of a store can raise any exception
        reason = (
            describe_import_error(error)
            if isinstance(error, ImportError)
            else f"{type(error).__name__}: {error}"
        )
        raise MlflowException(f"{redacted(source)}: {reason}") from error


def describe_import_error(error: ImportError) -> str:
    """Return the message of an error; for a missing module, with the package to install."""
    if not isinstance(error, ModuleNotFoundError):
        return str(error)
    package = _PACKAGES.get((error.name or "").partition(".")[0])
    command = f" (pip install {package})" if package else ""
    return f"{error}: install the package that MLflow needs{command}."
