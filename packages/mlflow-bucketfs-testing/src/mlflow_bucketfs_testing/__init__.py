"""pytest fixtures for MLflow on Exasol BucketFS, with an embedded BucketFS server.

Importing this package is cheap: each public name is imported on its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_bucketfs_testing.errors import (
        MissingExtraError,
        MlflowServerDiedError,
        MlflowServerError,
        MlflowServerPortInUseError,
        MlflowServerTimeoutError,
        MlflowServerUnreachableError,
        SlcCommandError,
        SlcError,
        SlcUnavailableError,
        UdfClientDiedError,
        UdfClientError,
        UdfError,
        UdfExtraMissingError,
        UdfProtocolError,
        UdfScriptError,
        UdfTimeoutError,
        UdfValueError,
    )
    from mlflow_bucketfs_testing.mlflow_server import ExternalMlflowServer, MlflowServerProcess
    from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer, Fault
    from mlflow_bucketfs_testing.slc import SlcBuilder, SlcContainer
    from mlflow_bucketfs_testing.udf.clients import SlcClient
    from mlflow_bucketfs_testing.udf.runner import Udf, UdfResult, UdfRunner

    __version__: str

# Values of options for UDF clients; here, because importing `udf` needs the extra [udf]
REFERENCE_CLIENT = "reference"
CONTAINER_CLIENT = "slc:"  # prefix of the path of an exported container

__all__ = [
    "BucketConfig",
    "BucketFSServer",
    "ExternalMlflowServer",
    "Fault",
    "MissingExtraError",
    "MlflowServerDiedError",
    "MlflowServerError",
    "MlflowServerPortInUseError",
    "MlflowServerProcess",
    "MlflowServerTimeoutError",
    "MlflowServerUnreachableError",
    "SlcBuilder",
    "SlcClient",
    "SlcCommandError",
    "SlcContainer",
    "SlcError",
    "SlcUnavailableError",
    "Udf",
    "UdfClientDiedError",
    "UdfClientError",
    "UdfError",
    "UdfExtraMissingError",
    "UdfProtocolError",
    "UdfResult",
    "UdfRunner",
    "UdfScriptError",
    "UdfTimeoutError",
    "UdfValueError",
]

_MODULES = {
    "BucketConfig": "server",
    "BucketFSServer": "server",
    "ExternalMlflowServer": "mlflow_server",
    "Fault": "server",
    "MlflowServerProcess": "mlflow_server",
    "SlcBuilder": "slc",
    "SlcClient": "udf.clients",
    "SlcContainer": "slc",
    "Udf": "udf.runner",
    "UdfResult": "udf.runner",
    "UdfRunner": "udf.runner",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("mlflow-bucketfs-testing")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
