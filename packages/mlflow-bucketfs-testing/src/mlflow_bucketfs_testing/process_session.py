"""A command in its own session, whose processes all end with the process that started it.

The session id and an inherited environment variable identify its processes. The variable is needed
because MLflow's job executors start new sessions.

A guard process waits for the end of a pipe that only the starting process holds open. If that
process is killed before it has ended the session, the guard ends it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MARKER = "MLFLOW_BUCKETFS_TESTING_SESSION"
"""Environment variable that every process of a session has."""

_GRACE_S = 8.0  # job runner and huey consumers check their parent once per second
_KILL_ROUNDS = 10  # a process that forks while it is being killed needs more than one


class ProcessSession:
    """A running command and all its descendants.

    Args:
        command: program and arguments.
        env: the complete environment of the command.
        directory: working directory of the command.
        log_path: file that standard output and standard error are appended to.
        abandoned_directory: directory that the guard removes if this process is killed.

    Raises:
        OSError: the command cannot be executed.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        directory: Path,
        log_path: Path,
        abandoned_directory: Path | None = None,
    ) -> None:
        self._marker = uuid.uuid4().hex
        # In its own session too: a signal to our process group must not end the guard
        self._guard = subprocess.Popen(  # noqa: S603 -- our own module
            [sys.executable, "-m", __name__, self._marker, str(abandoned_directory or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            with log_path.open("ab") as log:
                self._root = subprocess.Popen(  # noqa: S603 -- the caller's command
                    command,
                    cwd=directory,
                    env={**env, MARKER: self._marker},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except BaseException:
            _end(self._marker, set(), grace_s=0)
            self._dismiss_guard()
            raise

    @property
    def pid(self) -> int:
        """Process id of the command, which is also the session id."""
        return self._root.pid

    def poll(self) -> int | None:
        """Return the exit code of the command, or None while it runs."""
        return self._root.poll()

    def listens_on(self, port: int) -> bool:
        """Return whether a process of this session accepts TCP connections on the port."""
        for process in _members(self._marker, {self.pid}):
            with suppress(psutil.Error):
                for connection in process.net_connections(kind="tcp"):
                    if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                        return True
        return False

    def resident_memory(self) -> int:
        """Return the resident memory of the command and its descendants, in bytes."""
        total = 0
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.pid)
            for process in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):
                    total += process.memory_info().rss
        return total

    def end(self, *, timeout_s: float) -> bool:
        """End the command and all processes of the session.

        SIGTERM goes to the command first. Processes that remain after its end get SIGTERM as well,
        and SIGKILL a few seconds later. Ctrl-C skips the waiting, not the killing.

        Args:
            timeout_s: how long the command may take to end after SIGTERM, in seconds.

        Returns:
            True if all processes ended on SIGTERM, False if one had to be killed.
        """
        grace_s = 0.0
        try:
            self._root.terminate()
            self._root.wait(timeout_s)
            grace_s = _GRACE_S
        except subprocess.TimeoutExpired:
            pass
        finally:
            # The root is our child: reaped here, before psutil can take its exit status
            self._root.kill()
            self._root.wait()
            ended = _end(self._marker, {self.pid}, grace_s=grace_s)
            self._dismiss_guard()
        return ended and grace_s > 0

    def _dismiss_guard(self) -> None:
        self._guard.kill()
        self._guard.communicate()


def _members(marker: str, sessions: set[int]) -> list[psutil.Process]:
    """Return the processes of the sessions; add the sessions of marked processes to the set."""
    candidates = []
    for process in psutil.process_iter():
        # Other users' processes do not show their environment, and any process may end meanwhile
        with suppress(psutil.Error, OSError):
            session_id = os.getsid(process.pid)
            candidates.append((process, session_id))
            if process.environ().get(MARKER) == marker:
                sessions.add(session_id)
    return [process for process, session_id in candidates if session_id in sessions]


def _end(marker: str, sessions: set[int], *, grace_s: float) -> bool:
    """End all processes of the sessions; return False if one had to be killed."""
    ended = True
    for signal_number in (signal.SIGTERM, *[signal.SIGKILL] * _KILL_ROUNDS):
        alive = [process for process in _members(marker, sessions) if not _is_zombie(process)]
        if not alive:
            break
        for process in alive:
            with suppress(psutil.Error):
                process.send_signal(signal_number)
        ended = signal_number == signal.SIGTERM
        psutil.wait_procs(alive, timeout=grace_s if ended else 1)
    return ended


def _is_zombie(process: psutil.Process) -> bool:
    """Return whether the process has ended; an orphan remains a zombie if PID 1 does not reap."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _guard(marker: str, abandoned_directory: str) -> None:
    sys.stdin.buffer.read()  # returns when the process that started us has ended
    _end(marker, set(), grace_s=_GRACE_S)
    if abandoned_directory:
        shutil.rmtree(abandoned_directory, ignore_errors=True)


if __name__ == "__main__":
    _guard(*sys.argv[1:])
