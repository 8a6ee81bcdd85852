"""An MLflow server that somebody else started, used like our own."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlflow_bucketfs_testing.errors import MlflowServerUnreachableError, masked
from mlflow_bucketfs_testing.mlflow_health import health_problem

if TYPE_CHECKING:
    from typing_extensions import Self


class ExternalMlflowServer:
    """The twin of `MlflowServerProcess` for a server that somebody else started and will stop.

    Args:
        uri: Tracking URI, such as ``http://127.0.0.1:5000``.

    Attributes:
        uri: The same, without a slash at the end.
        pid: None; so are ``directory``, ``log_path`` and ``backend_store_uri``.
    """

    pid = directory = log_path = backend_store_uri = None

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise MlflowServerUnreachableError(
                f"{masked(uri)!r} is not the URL of an MLflow server: it reads http://HOST:PORT, "
                f"and user and password go into MLFLOW_TRACKING_USERNAME and _PASSWORD."
            )
        self.uri = uri.rstrip("/")

    def log_tail(self, lines: int = 40) -> str:  # noqa: ARG002 -- the twin's signature
        """Return nothing: the log is where the server was started."""
        return ""

    def start(self) -> Self:
        """Check once that the server answers; ``with`` does this.

        Raises:
            MlflowServerUnreachableError: If it does not.
        """
        problem = health_problem(self.uri)
        if problem is not None:
            raise MlflowServerUnreachableError(
                f"No MLflow server answers at {self.uri}/health: {problem}. "
                f"Start it, or leave out --mlflow-server to have one started."
            )
        return self

    def stop(self) -> None:
        """Leave the server alone."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<ExternalMlflowServer {self.uri}>"
