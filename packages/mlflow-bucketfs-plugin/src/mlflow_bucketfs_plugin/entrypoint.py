"""The functions that MLflow's entry points name.

MLflow loads all entry points during its own import. Importing the class here would import the
half-initialised mlflow, and lose the scheme if this package is imported first. So these are
functions, which import the class only when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from mlflow_bucketfs_plugin import repository


def BucketFSArtifactRepository(  # noqa: N802 -- MLflow derives the dataset source's name from it
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> repository.BucketFSArtifactRepository:
    """Return the artifact repository for a URI; see the class of the same name."""
    from mlflow_bucketfs_plugin import repository  # noqa: PLC0415 -- see the module's docstring

    return repository.BucketFSArtifactRepository(artifact_uri, tracking_uri, registry_uri)


def UnsupportedSaaSArtifactRepository(  # noqa: N802 -- as above
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> NoReturn:
    """Refuse BucketFS of Exasol SaaS, which is not supported yet.

    Raises:
        MlflowException: always.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 -- see the module's docstring
    from mlflow.protos.databricks_pb2 import NOT_IMPLEMENTED  # noqa: PLC0415

    del artifact_uri, tracking_uri, registry_uri
    raise MlflowException(
        "exa+saas:// (BucketFS of Exasol SaaS) is not supported yet. "
        "Use exa+bfs:// or exa+bfss:// with an Exasol on your premises or in your cloud.",
        error_code=NOT_IMPLEMENTED,
    )
