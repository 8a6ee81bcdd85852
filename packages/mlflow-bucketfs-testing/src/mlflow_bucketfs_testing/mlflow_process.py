"""A real ``mlflow server`` as a context manager."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_bucketfs_testing.errors import (
    MlflowServerDiedError,
    MlflowServerError,
    MlflowServerPortInUseError,
    MlflowServerTimeoutError,
    Secret,
    masked,
)
from mlflow_bucketfs_testing.mlflow_command import MlflowServerCommand, server_environment
from mlflow_bucketfs_testing.mlflow_health import health_problem
from mlflow_bucketfs_testing.process_session import ProcessSession

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

_logger = logging.getLogger(__name__)
_PORT_ATTEMPTS = 3
_POLL_INTERVAL_S = 0.25
_LOG_TAIL_BYTES = 64 * 1024


class MlflowServerProcess:
    """The real ``mlflow server``, ready to serve inside the ``with`` block, gone after it.

    The server runs in a session of its own. On leaving the block it gets SIGTERM; then every
    process of the session is waited for, and killed if it does not end. If this Python process is
    killed itself, a guard process ends the server.

    The server is what its arguments say: variables named ``MLFLOW_*`` and ``_MLFLOW_*`` are not
    inherited from the environment. Telemetry is off.

    Args:
        backend_store_uri: Where MLflow keeps its data; default: an SQLite file in ``directory``.
            Given to the server in its environment, so that a password does not show in ``ps``.
        default_artifact_root: Location of the artifacts of new experiments.
        artifacts_destination: Location that the server stores to for its clients (proxied).
            With neither of the two, artifacts are proxied to a folder in ``directory``.
        serve_artifacts: False turns the proxy off (``--no-serve-artifacts``); the default leaves
            it on as MLflow does, also beside a ``default_artifact_root``.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        allowed_hosts: More names (``host[:port]``, wildcards) that clients may call the server by.
            ``host`` itself is always among them.
        workers: Number of uvicorn worker processes.
        jobs: Whether to run MLflow's job runner and its queues: eight processes more.
        env: Variables for the server, over those of this process; None removes one.
        extra_args: More arguments for ``mlflow server``.
        directory: Working directory, with log and SQLite file; created if missing and kept.
            Default: a temporary one, removed at the end.
        timeout_s: How long the server may take until it answers, in seconds.
        stop_timeout_s: How long it may take to end before it is killed, in seconds.
        on_wait: Called with the elapsed seconds, about four times per second, while it starts.
        command: What stands before ``server …`` on the command line; default: MLflow of this
            Python. A wrapper has to keep the server in its process session.

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
        serve_artifacts: bool | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        allowed_hosts: Sequence[str] = (),
        workers: int = 1,
        jobs: bool = False,
        env: Mapping[str, str | None] | None = None,
        extra_args: Sequence[str] = (),
        directory: str | os.PathLike[str] | None = None,
        timeout_s: float = 180.0,
        stop_timeout_s: float = 30.0,
        on_wait: Callable[[float], None] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self._backend_store_uri = backend_store_uri
        self._requested_port = port
        self._jobs = jobs
        self._env = dict(env or {})
        self._requested_directory = directory
        self._timeout_s = timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._on_wait = on_wait
        self._command = MlflowServerCommand(
            host=host,
            workers=workers,
            default_artifact_root=default_artifact_root,
            artifacts_destination=artifacts_destination,
            serve_artifacts=serve_artifacts,
            allowed_hosts=tuple(allowed_hosts),
            extra_args=tuple(extra_args),
            **({} if command is None else {"prefix": tuple(command)}),
        )
        self._directory: Path | None = None
        self._session: ProcessSession | None = None
        self._port = port

    @property
    def uri(self) -> str:
        """Tracking URI of the server, such as ``http://127.0.0.1:43210``."""
        self._started()
        return self._command.uri(self._port)

    @property
    def pid(self) -> int:
        """Process id of ``mlflow server`` while it runs, which is its session's id as well."""
        if self._session is None:
            raise MlflowServerError("The MLflow server is not running.")
        return self._session.pid

    @property
    def directory(self) -> Path:
        """Working directory of the server; a temporary one is gone after the end."""
        return self._started()

    @property
    def log_path(self) -> Path:
        """File with everything that the server and its processes print."""
        return self._started() / "mlflow-server.log"

    @property
    def backend_store_uri(self) -> str:
        """Where the server keeps its data, with the password if there is one; ``repr`` masks it."""
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
            MissingExtraError: If MLflow is not installed.
            MlflowServerPortInUseError: If the port that was asked for is taken.
            MlflowServerDiedError: If the server ends instead of answering.
            MlflowServerTimeoutError: If it does not answer within ``timeout_s``.
            MlflowServerError: If it is running already, or cannot listen on ``host``.
        """
        if self._session is not None:
            raise MlflowServerError(f"The MLflow server is running already at {self.uri}.")
        self._command.require_mlflow()
        self._directory = self._made_directory()
        try:
            for attempts_left in reversed(range(_PORT_ATTEMPTS)):
                self._port = _free_port(self._command.host, self._requested_port)
                try:
                    self._launch()
                    break
                except MlflowServerPortInUseError:
                    # Somebody was faster between our look at the port and uvicorn's bind
                    if self._requested_port or not attempts_left:
                        raise
                    self._end_session()
        except BaseException:  # also Ctrl-C: nothing may stay behind
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server and everything it started; does nothing if it is not running."""
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
        where = "not started" if self._directory is None else self.uri
        store = masked(self._backend_store_uri or "sqlite")
        return f"<MlflowServerProcess {where}, backend store {store}>"

    def _started(self) -> Path:
        if self._directory is None:
            raise MlflowServerError("The MLflow server was not started.")
        return self._directory

    def _made_directory(self) -> Path:
        if self._requested_directory is None:
            return Path(tempfile.mkdtemp(prefix="mlflow-server-"))
        directory = Path(self._requested_directory).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _launch(self) -> None:
        self.log_path.unlink(missing_ok=True)
        self._session = ProcessSession(
            self._command.line(self._port),
            env=server_environment(
                backend_store_uri=self.backend_store_uri, jobs=self._jobs, env=self._env
            ),
            directory=self.directory,
            log_path=self.log_path,
            abandoned_directory=None if self._requested_directory else self.directory,
        )
        started = time.monotonic()
        while True:
            exit_code = self._session.poll()
            # Another server may have taken the port and answer in ours' place: hence listens_on
            problem = health_problem(self.uri)
            elapsed_s = time.monotonic() - started
            if exit_code is not None:
                raise self._died(exit_code, elapsed_s)
            if problem is None and self._session.listens_on(self._port):
                return
            if elapsed_s > self._timeout_s:
                raise MlflowServerTimeoutError(
                    f"mlflow server did not answer within {self._timeout_s:g} s "
                    f"({problem or 'another process answers on its port'}). A busy machine "
                    f"needs a longer timeout "
                    f"(timeout_s, --mlflow-bucketfs-mlflow-server-timeout).\n"
                    f"{self._evidence()}"
                )
            if self._on_wait is not None:
                self._on_wait(elapsed_s)
            time.sleep(_POLL_INTERVAL_S)

    def _died(self, exit_code: int, elapsed_s: float) -> MlflowServerError:
        if "address already in use" in self.log_tail():
            return _port_in_use(self._command.host, self._port)
        return MlflowServerDiedError(
            f"mlflow server ended with exit code {exit_code} after {elapsed_s:.0f} s, before it "
            f"answered.\n{self._evidence()}",
            exit_code=exit_code,
        )

    def _evidence(self) -> str:
        kept = f" ({self.log_path})" if self._requested_directory else ""
        return (
            f"Command: {masked(shlex.join(self._command.line(self._port)))}\n"
            f"Backend store: {masked(self.backend_store_uri)}\n"
            f"End of its log{kept}:\n{self.log_tail() or '(empty)'}"
        )

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None and not session.end(timeout_s=self._stop_timeout_s):
            _logger.warning("Processes of the MLflow server at %s had to be killed.", self.uri)


def _free_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as probe:
            return int(probe.getsockname()[1])
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise _port_in_use(host, port) from exc
        raise MlflowServerError(f"Cannot listen on {host}:{port}: {exc}.") from exc


def _port_in_use(host: str, port: int) -> MlflowServerPortInUseError:
    return MlflowServerPortInUseError(
        f"Port {port} on {host} is in use by another process. Stop that process, choose another "
        f"port, or leave it to port=0; --mlflow-server http://HOST:{port} uses a running server."
    )
