"""Context managers for ``mlflow server``: one starts a server, one uses a running server."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlflow_bucketfs_testing.errors import (
    MissingExtraError,
    MlflowServerDiedError,
    MlflowServerError,
    MlflowServerPortInUseError,
    MlflowServerTimeoutError,
    MlflowServerUnreachableError,
    Secret,
    masked,
)
from mlflow_bucketfs_testing.process_session import ProcessSession

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

_logger = logging.getLogger(__name__)
_PORT_ATTEMPTS = 3
_POLL_INTERVAL_S = 0.25
_LOG_TAIL_BYTES = 64 * 1024
_PROBE_TIMEOUT_S = 5.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- compared with, not bound to


class MlflowServerProcess:
    """A real ``mlflow server`` that runs inside the ``with`` block.

    The server runs in its own process session. At the end of the block it gets SIGTERM; then every
    process of the session is waited for, and killed if it does not end. If this Python process is
    killed, a guard process ends the server.

    Only the arguments configure the server: variables named ``MLFLOW_*`` and ``_MLFLOW_*`` are not
    inherited from the environment. Telemetry and MLflow's job runner are off.

    Args:
        backend_store_uri: URI of the backend store; default: an SQLite file in ``directory``.
            Passed to the server in its environment, so that ``ps`` does not show a password.
        default_artifact_root: location of the artifacts of new experiments.
        artifacts_destination: location of the artifacts that the server proxies. With neither of
            the two, artifacts are proxied to a folder in ``directory``.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        allowed_hosts: further host names to accept in requests (``host[:port]``, wildcards).
            ``host`` itself is always accepted.
        workers: number of uvicorn worker processes.
        env: variables for the server, which override those of this process; None removes one.
            ``MLFLOW_SERVER_ENABLE_JOB_EXECUTION=true`` runs jobs, in eight more processes.
        extra_args: more arguments for ``mlflow server``, such as ``--no-serve-artifacts``.
        directory: working directory, with log and SQLite file; created if missing and kept.
            Default: a temporary one, removed at the end.
        timeout_s: how long the server may take to answer, in seconds.
        stop_timeout_s: how long the server may take to end before it is killed, in seconds.
        on_wait: called with the elapsed seconds, about four times per second, during the start.

    Example:
        >>> with MlflowServerProcess() as server:  # doctest: +SKIP
        ...     client = MlflowClient(server.uri)
    """

    def __init__(
        self,
        *,
        backend_store_uri: str | None = None,
        default_artifact_root: str | None = None,
        artifacts_destination: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        allowed_hosts: Sequence[str] = (),
        workers: int = 1,
        env: Mapping[str, str | None] | None = None,
        extra_args: Sequence[str] = (),
        directory: str | os.PathLike[str] | None = None,
        timeout_s: float = 180.0,
        stop_timeout_s: float = 30.0,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        self._backend_store_uri = backend_store_uri
        self._host = host
        self._requested_port = port
        self._env = dict(env or {})
        self._requested_directory = directory
        self._timeout_s = timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._on_wait = on_wait
        options = {
            "--workers": str(workers),
            "--default-artifact-root": default_artifact_root,
            "--artifacts-destination": artifacts_destination,
            "--allowed-hosts": ",".join(_allowed_hosts(host, allowed_hosts)) or None,
        }
        self._arguments = [
            argument
            for name, value in options.items()
            if value is not None
            for argument in (name, value)
        ]
        self._arguments += extra_args
        self._directory: Path | None = None
        self._session: ProcessSession | None = None
        self._port = port

    @property
    def uri(self) -> str:
        """Tracking URI of the server, such as ``http://127.0.0.1:43210``."""
        self._started()
        host = _WILDCARD.get(self._host, self._host)
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    @property
    def pid(self) -> int:
        """Process id of ``mlflow server`` while it runs, which is also its session id."""
        if self._session is None:
            raise MlflowServerError("The MLflow server is not running.")
        return self._session.pid

    @property
    def directory(self) -> Path:
        """Working directory of the server; a temporary one is removed at the end."""
        return self._started()

    @property
    def log_path(self) -> Path:
        """File with the output of the server and its processes."""
        return self._started() / "mlflow-server.log"

    @property
    def backend_store_uri(self) -> str:
        """URI of the backend store, with its password if it has one; ``repr`` masks it."""
        uri = self._backend_store_uri or f"sqlite:///{self._started() / 'mlflow.db'}"
        return Secret(uri, shown=masked(uri))

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of the log, with passwords in URIs masked."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return masked("\n".join(text.splitlines()[-lines:]))

    def start(self) -> Self:
        """Start the server and wait until it answers; ``with`` does this.

        Returns:
            This object.

        Raises:
            MissingExtraError: MLflow is not installed.
            MlflowServerPortInUseError: the requested port is in use.
            MlflowServerDiedError: the server ends before it answers.
            MlflowServerTimeoutError: it does not answer within ``timeout_s``.
            MlflowServerError: it is running already, or cannot listen on ``host``.
        """
        if self._session is not None:
            raise MlflowServerError(f"The MLflow server is running already at {self.uri}.")
        _require_mlflow()
        self._directory = self._make_directory()
        try:
            for attempts_left in reversed(range(_PORT_ATTEMPTS)):
                self._port = _free_port(self._host, self._requested_port)
                try:
                    self._launch()
                    break
                except MlflowServerPortInUseError:
                    # Another process took the port between our probe and uvicorn's bind
                    if self._requested_port or not attempts_left:
                        raise
                    self._end_session()
        except BaseException:  # also on Ctrl-C: no process or file may remain
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server and all processes that it started; do nothing if it is not running."""
        try:
            self._end_session()
        finally:
            if self._directory is not None and self._requested_directory is None:
                shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "not started" if self._directory is None else self.uri
        # only the kind, because a password can be in many parts of a URI
        uri = "sqlite://" if self._backend_store_uri is None else self._backend_store_uri
        kind, separator, _ = uri.partition("://")
        return (
            f"<MlflowServerProcess {state}, backend store: {kind if separator else 'a directory'}>"
        )

    def _started(self) -> Path:
        if self._directory is None:
            raise MlflowServerError("The MLflow server was not started.")
        return self._directory

    def _make_directory(self) -> Path:
        if self._requested_directory is None:
            return Path(tempfile.mkdtemp(prefix="mlflow-server-"))
        directory = Path(self._requested_directory).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _command(self) -> list[str]:
        address = ["--host", self._host, "--port", str(self._port)]
        return [sys.executable, "-m", "mlflow", "server", *address, *self._arguments]

    def _launch(self) -> None:
        self.log_path.unlink(missing_ok=True)
        self._session = ProcessSession(
            self._command(),
            env=_server_environment(backend_store_uri=self.backend_store_uri, env=self._env),
            directory=self.directory,
            log_path=self.log_path,
            abandoned_directory=None if self._requested_directory else self.directory,
        )
        started = time.monotonic()
        while True:
            exit_code = self._session.poll()
            # listens_on, because another server may have taken the port and answer instead of ours
            problem = _health_problem(self.uri)
            elapsed_s = time.monotonic() - started
            if exit_code is not None:
                raise self._death_error(exit_code, elapsed_s)
            if problem is None and self._session.listens_on(self._port):
                return
            if elapsed_s > self._timeout_s:
                raise MlflowServerTimeoutError(
                    f"mlflow server did not answer within {self._timeout_s:g} s "
                    f"({problem or 'another process answers on its port'}). A busy machine "
                    f"needs a longer timeout "
                    f"(timeout_s, --mlflow-bucketfs-mlflow-server-timeout).\n"
                    f"{self._diagnostics()}"
                )
            if self._on_wait is not None:
                self._on_wait(elapsed_s)
            time.sleep(_POLL_INTERVAL_S)

    def _death_error(self, exit_code: int, elapsed_s: float) -> MlflowServerError:
        if "address already in use" in self.log_tail():
            return _port_in_use_error(self._host, self._port)
        return MlflowServerDiedError(
            f"mlflow server ended with exit code {exit_code} after {elapsed_s:.0f} s, before it "
            f"answered.\n{self._diagnostics()}",
            exit_code=exit_code,
        )

    def _diagnostics(self) -> str:
        kept = f" ({self.log_path})" if self._requested_directory else ""
        return (
            f"Command: {masked(shlex.join(self._command()))}\n"
            f"Backend store: {masked(self.backend_store_uri)}\n"
            f"End of its log{kept}:\n{self.log_tail() or '(empty)'}"
        )

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None and not session.end(timeout_s=self._stop_timeout_s):
            _logger.warning("Processes of the MLflow server at %s had to be killed.", self.uri)


class ExternalMlflowServer:
    """A running MLflow server, which is not stopped; its interface is `MlflowServerProcess`'s.

    Args:
        uri: tracking URI, such as ``http://127.0.0.1:5000``.

    Attributes:
        uri: the tracking URI without a trailing slash.
        pid: None, as are ``directory``, ``log_path`` and ``backend_store_uri``.
    """

    pid = directory = log_path = backend_store_uri = None

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise MlflowServerUnreachableError(
                f"{masked(uri)!r} is not the URL of an MLflow server: use http://HOST:PORT, and "
                f"set user and password in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            )
        self.uri = uri.rstrip("/")

    def log_tail(self, lines: int = 40) -> str:  # noqa: ARG002 -- MlflowServerProcess's signature
        """Return an empty string, because the server's log is not known."""
        return ""

    def start(self) -> Self:
        """Check once that the server answers; ``with`` does this.

        Raises:
            MlflowServerUnreachableError: the server does not answer.
        """
        problem = _health_problem(self.uri)
        if problem is not None:
            raise MlflowServerUnreachableError(
                f"No MLflow server answers at {masked(self.uri)}/health: {problem}. "
                f"Start it, or omit --mlflow-server to let the tests start one."
            )
        return self

    def stop(self) -> None:
        """Do nothing; the server goes on running."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<ExternalMlflowServer {masked(self.uri)}>"


def _require_mlflow() -> None:
    """Raise unless the distribution ``mlflow`` is installed.

    Raises:
        MissingExtraError: it is not installed; ``mlflow-skinny`` alone has no server.
    """
    try:
        distribution("mlflow")
    except PackageNotFoundError as error:
        raise MissingExtraError(
            'MLflow is not installed: pip install "mlflow-bucketfs-testing[mlflow]"'
        ) from error


def _allowed_hosts(host: str, more: Sequence[str]) -> list[str]:
    """Return the allowed host names; an empty list is MLflow's default: loopback, private IPs."""
    names = [*more]
    if host not in _LOOPBACK and host not in _WILDCARD:
        names += [host, f"{host}:*"]
    if names:  # they replace the default, which includes loopback
        names += ["localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*"]
    return names


def _server_environment(*, backend_store_uri: str, env: Mapping[str, str | None]) -> dict[str, str]:
    """Return the environment for a server that only its arguments configure.

    Args:
        backend_store_uri: URI of the backend store.
        env: variables that override all others; None removes one.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "_MLFLOW_"))
    }
    ours = {
        "MLFLOW_BACKEND_STORE_URI": backend_store_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONUNBUFFERED": "1",  # so that the log is complete when the server ends
    }
    merged = {**inherited, **ours, **env}
    return {name: value for name, value in merged.items() if value is not None}


def _health_problem(uri: str) -> str | None:
    """Return the reason why the server is not ready, or None if it is ready."""
    # Without the environment's proxies, which could answer instead of the server
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{uri}/health", timeout=_PROBE_TIMEOUT_S) as response:
            return None if response.status == HTTPStatus.OK else f"HTTP status {response.status}"
    except (OSError, HTTPException) as error:
        return str(getattr(error, "reason", error))


def _free_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _port_in_use_error(host, port) from error
        raise MlflowServerError(f"Cannot listen on {host}:{port}: {error}.") from error


def _port_in_use_error(host: str, port: int) -> MlflowServerPortInUseError:
    return MlflowServerPortInUseError(
        f"Port {port} on {host} is in use by another process. Stop that process, choose another "
        f"port, or use port=0; --mlflow-server http://HOST:{port} uses a running server."
    )
