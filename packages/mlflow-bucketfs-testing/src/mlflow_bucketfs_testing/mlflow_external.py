"""An MLflow server that somebody else started: is it well, and how to use it like our own."""

from __future__ import annotations

import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlflow_bucketfs_testing.errors import MlflowServerUnreachableError, masked

if TYPE_CHECKING:
    from typing_extensions import Self

_PROBE_TIMEOUT_S = 5.0


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

    def log_tail(self, lines: int = 40) -> str:  # noqa: ARG002 - the twin's signature
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


def health_problem(uri: str) -> str | None:
    """Return why the server is not ready, or None if it is."""
    # The server is a neighbour: a proxy of the environment must not answer in its place
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{uri}/health", timeout=_PROBE_TIMEOUT_S) as response:
            return None if response.status == HTTPStatus.OK else f"HTTP status {response.status}"
    except (OSError, HTTPException) as exc:
        return str(getattr(exc, "reason", exc))
