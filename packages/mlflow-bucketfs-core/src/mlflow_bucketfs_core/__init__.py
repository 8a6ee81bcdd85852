"""URIs, settings and transport for Exasol BucketFS.

Importing this package is fast: names are loaded on first use, because every UDF process imports
it again.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_bucketfs_core.bucket import Bucket
    from mlflow_bucketfs_core.errors import BucketFSError
    from mlflow_bucketfs_core.mounted import (
        load_model_with_fallback,
        local_path_or_uri,
        mounted_path,
        udf_path,
    )
    from mlflow_bucketfs_core.settings import ConnectionSettings
    from mlflow_bucketfs_core.uri import BucketFSUri

__all__ = [
    "Bucket",
    "BucketFSError",
    "BucketFSUri",
    "ConnectionSettings",
    "load_model_with_fallback",
    "local_path_or_uri",
    "mounted_path",
    "udf_path",
]

_MODULES = {
    "Bucket": "bucket",
    "BucketFSError": "errors",
    "BucketFSUri": "uri",
    "ConnectionSettings": "settings",
    "load_model_with_fallback": "mounted",
    "local_path_or_uri": "mounted",
    "mounted_path": "mounted",
    "udf_path": "mounted",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 -- takes 10 ms

        return version("mlflow-bucketfs-core")
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
