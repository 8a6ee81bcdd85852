"""Run one UDF client: its process, its socket, and the limits of the run.

The client is a `ProcessSession`: its guard ends the client and removes the socket even if this
process is killed.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq

from mlflow_bucketfs_testing.errors import (
    UdfClientDiedError,
    UdfClientError,
    UdfTimeoutError,
    is_about_udf,
)
from mlflow_bucketfs_testing.process_session import ProcessSession

if TYPE_CHECKING:
    from mlflow_bucketfs_testing.udf.clients import Client
    from mlflow_bucketfs_testing.udf.codec import Codec
    from mlflow_bucketfs_testing.udf.session import Session

__tracebackhide__ = is_about_udf

_LONGEST_DIRECTORY = 60  # a socket's path has at most about 100 bytes
_POLL_MS = 50  # time until the end of a client or an exceeded limit is noticed
_MEMORY_CHECK_S = 0.25
_EXIT_S = 5.0  # time that a client has to end after its last message
_TAIL_LINES = 20
_MIB = 1024**2


@dataclass(frozen=True)
class Limits:
    """The limits of a run.

    Attributes:
        timeout_s: time of the complete run, in seconds.
        silence_s: time between two messages of the client, in seconds.
        memory: resident memory of all its processes, in bytes.
    """

    timeout_s: float
    silence_s: float
    memory: int


def serve(
    session: Session,
    codec: Codec,
    client: Client,
    *,
    limits: Limits,
    buckets: Path | None,
) -> tuple[str, float]:
    """Start a client, and answer its requests until it has finished.

    Args:
        session: the session, which creates the responses.
        codec: the encoding of the messages.
        client: the client to start.
        limits: the limits of the run.
        buckets: directory with the buckets for the client; None for no buckets.

    Returns:
        The output of script and client, and the seconds between the first and the last message.

    Raises:
        UdfClientError: the client cannot be started, ended too early, took too much time or
            memory, or violated the protocol. All of its processes are ended.
        UdfError: an emitted value does not fit its column.
    """
    directory = _private_directory(client)
    try:
        return _Run(session, codec, client, limits, directory).serve(buckets)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Run:
    """One process of a client, and the socket that it connects to."""

    def __init__(
        self, session: Session, codec: Codec, client: Client, limits: Limits, directory: Path
    ) -> None:
        self._session = session
        self._codec = codec
        self._client = client
        self._limits = limits
        self._directory = directory
        self._socket_path = directory / "s"
        self._log = directory / "output"

    def serve(self, buckets: Path | None) -> tuple[str, float]:
        self._log.touch(mode=0o600)
        with zmq.Context() as context, context.socket(zmq.REP) as socket:
            socket.linger = 0
            socket.bind(f"ipc://{self._socket_path}")
            if self._client.other_user:
                self._directory.chmod(0o711)
                self._socket_path.chmod(0o666)
            try:
                process = self._start(buckets)
                ended = False
                try:
                    seconds = self._converse(socket, process)
                    ended = self._has_ended(process)
                finally:
                    process.end(timeout_s=1.0 if ended else 0.0)
            finally:
                self._client.end(self._socket_path)
        return self._output(), seconds

    def _start(self, buckets: Path | None) -> ProcessSession:
        command, variables = self._client.command(self._socket_path, buckets)
        try:
            return ProcessSession(
                command,
                env=variables,
                directory=self._directory,
                log_path=self._log,
                abandoned_directory=self._directory,
            )
        except FileNotFoundError as error:
            raise UdfClientError(
                f"the UDF client {command[0]} cannot be executed: it exists, but the dynamic "
                f"loader or interpreter that it names does not. It was built for another system "
                f"(musl instead of glibc, another processor): run it in its container"
                if Path(command[0]).exists()
                else f"the UDF client {command[0]} does not exist"
            ) from error
        except OSError as error:
            raise UdfClientError(
                f"the UDF client {command[0]} cannot be executed: {error.strerror}"
            ) from error

    def _converse(self, socket: Any, process: ProcessSession) -> float:
        """Answer requests until the client has finished; return the seconds since the first."""
        started = last = time.monotonic()
        first: float | None = None
        memory_checked = started
        while not self._session.finished:
            if socket.poll(_POLL_MS):
                request = self._codec.decode_request(socket.recv())
                first = first or time.monotonic()
                socket.send(self._codec.encode_response(self._session.answer(request)))
                last = time.monotonic()
            else:
                self._check_alive(socket, process)
            now = time.monotonic()
            if now - memory_checked > _MEMORY_CHECK_S:
                memory_checked = now
                self._check_memory(process)
            if now - started > self._limits.timeout_s:
                raise UdfTimeoutError(
                    f"the UDF took more than {self._limits.timeout_s:g} s and was killed; allow "
                    f"more with timeout_s, or with --timeout in a shell{self._tail()}"
                )
            if now - last > self._limits.silence_s:
                raise UdfTimeoutError(
                    f"the UDF client was silent for {self._limits.silence_s:g} s and was killed; "
                    f"expected {self._session.expected}; if the script computes for longer "
                    f"between two packets of rows, increase silence_s{self._tail()}"
                )
        return time.monotonic() - (first or started)

    def _check_alive(self, socket: Any, process: ProcessSession) -> None:
        status = process.poll()
        # its last message may have arrived since
        if status is None or socket.poll(0):
            return
        how = f"signal {-status}" if status < 0 else f"status {status}"
        raise UdfClientDiedError(
            f"the UDF client {self._client.name} ended with {how} before it had finished; expected "
            f"{self._session.expected}{self._tail()}",
            exit_code=status,
        )

    def _check_memory(self, process: ProcessSession) -> None:
        used = process.resident_memory()
        if used > self._limits.memory:
            raise UdfClientError(
                f"the UDF used {used / _MIB:.0f} MiB, more than its memory limit of "
                f"{self._limits.memory / _MIB:.0f} MiB, and was killed{self._tail()}"
            )

    def _has_ended(self, process: ProcessSession) -> bool:
        """Wait for the end of a client that has finished; return whether it ended in time."""
        deadline = time.monotonic() + _EXIT_S
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        return process.poll() is not None

    def _output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _tail(self) -> str:
        lines = self._output().splitlines()[-_TAIL_LINES:]
        return "\n    ".join(["; its last output:", *lines]) if lines else ""


def _private_directory(client: Client) -> Path:
    base = tempfile.gettempdir()
    # TMPDIR may be closed to other users, while /tmp is open to all
    if client.other_user or len(base) > _LONGEST_DIRECTORY:
        base = "/tmp"  # noqa: S108 -- mkdtemp creates a private directory in it
    return Path(tempfile.mkdtemp(prefix="udf-", dir=base))
