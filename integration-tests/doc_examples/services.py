"""The servers that a page uses and does not start."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlflow_bucketfs_testing import MlflowServerProcess
from mlflow_bucketfs_testing.server import BucketFSServer

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self


class PageServices:
    """An embedded BucketFS, and an MLflow server once a page asks for it; a context manager."""

    def __init__(self) -> None:
        self._bucketfs = BucketFSServer(tls_port=0)
        self._mlflow: MlflowServerProcess | None = None
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        self._cleanup.enter_context(self._bucketfs)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cleanup.__exit__(exc_type, error, traceback)

    @property
    def http_port(self) -> int:
        """Port of BucketFS over HTTP."""
        return self._bucketfs.port

    @property
    def tls_port(self) -> int:
        """Port of BucketFS over HTTPS."""
        return self._bucketfs.tls_port

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate, as openssl prints it."""
        digits = self._bucketfs.certificate_fingerprint.upper()
        return ":".join(digits[n : n + 2] for n in range(0, len(digits), 2))

    @property
    def certificate_file(self) -> Path:
        """Its certificate."""
        return self._bucketfs.certificate_file

    @property
    def mlflow_port(self) -> int:
        """Port of an MLflow server whose artifacts are in this BucketFS; starts it if need be."""
        if self._mlflow is None:
            credentials = {"EXA_BUCKETFS_USER": "w", "EXA_BUCKETFS_PASSWORD": "write"}
            server = MlflowServerProcess(
                default_artifact_root=self._bucketfs.uri(path="mlflow"), env=credentials
            )
            self._mlflow = self._cleanup.enter_context(server)
        return urlsplit(self._mlflow.uri).port or 0
