"""The command line and the environment of ``mlflow server``."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING

from mlflow_bucketfs_testing.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_WILDCARD = ("0.0.0.0", "::")  # noqa: S104 -- compared with, not bound to
_MLFLOW = (sys.executable, "-m", "mlflow")


@dataclass(frozen=True, kw_only=True)
class MlflowServerCommand:
    """The options of ``mlflow server`` as `MlflowServerProcess` describes them.

    Attributes:
        host: Address to listen on.
        workers: Number of uvicorn worker processes.
        default_artifact_root: Location of the artifacts of new experiments, if given.
        artifacts_destination: Location that the server stores to for its clients, if given.
        serve_artifacts: Whether to proxy artifacts; None leaves it to MLflow.
        allowed_hosts: Names that clients may call the server by, beside ``host`` and loopback.
        extra_args: More arguments.
        prefix: Command of which ``server`` is a subcommand.
    """

    host: str = "127.0.0.1"
    workers: int = 1
    default_artifact_root: str | None = None
    artifacts_destination: str | None = None
    serve_artifacts: bool | None = None
    allowed_hosts: tuple[str, ...] = ()
    extra_args: tuple[str, ...] = ()
    prefix: tuple[str, ...] = _MLFLOW

    def uri(self, port: int) -> str:
        """Return the URL by which this machine reaches the server on the port."""
        host = dict(zip(_WILDCARD, ("127.0.0.1", "::1"), strict=True)).get(self.host, self.host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def line(self, port: int) -> list[str]:
        """Return program and arguments for a server on the port."""
        options = {
            "--host": self.host,
            "--port": str(port),
            "--workers": str(self.workers),
            "--default-artifact-root": self.default_artifact_root,
            "--artifacts-destination": self.artifacts_destination,
            "--allowed-hosts": ",".join(self._names()) or None,
        }
        line = [*self.prefix, "server"]
        for name, value in options.items():
            if value is not None:
                line += [name, value]
        if self.serve_artifacts is not None:
            line.append("--serve-artifacts" if self.serve_artifacts else "--no-serve-artifacts")
        return [*line, *self.extra_args]

    def require_mlflow(self) -> None:
        """Check that this Python has the MLflow that the command needs.

        Raises:
            MissingExtraError: If it has not; mlflow-skinny alone cannot serve.
        """
        if self.prefix != _MLFLOW:
            return
        try:
            distribution("mlflow")
        except PackageNotFoundError as exc:
            raise MissingExtraError(
                'MLflow is not installed: pip install "mlflow-bucketfs-testing[mlflow]"'
            ) from exc

    def _names(self) -> list[str]:
        """Return the allowed host names; none leaves MLflow's default: loopback, private IPs."""
        names = [*self.allowed_hosts]
        if self.host not in (*_LOOPBACK, *_WILDCARD):
            names += [self.host, f"{self.host}:*"]
        if names:  # they replace the default, and with it loopback
            names += ["localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*"]
        return names


def server_environment(
    *, backend_store_uri: str, jobs: bool, env: Mapping[str, str | None]
) -> dict[str, str]:
    """Return the environment for a server that is only what it is told to be.

    Args:
        backend_store_uri: Where MLflow keeps its data.
        jobs: Whether to run MLflow's job runner.
        env: Variables that win over all others; None removes one.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "_MLFLOW_"))
    }
    ours = {
        "MLFLOW_BACKEND_STORE_URI": backend_store_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true" if jobs else "false",
        "PYTHONUNBUFFERED": "1",  # the log ends where the server ended
    }
    merged = {**inherited, **ours, **env}
    return {name: value for name, value in merged.items() if value is not None}
