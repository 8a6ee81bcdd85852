"""MLflow artifacts in Exasol BucketFS, for ``exa+bfs://`` and ``exa+bfss://`` URIs.

MLflow finds the plugin through its entry points; there is nothing to import.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 -- saves 10 ms of each import

        return version("mlflow-bucketfs-plugin")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
