"""The shell of one page, which keeps directory and variables from block to block."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_bucketfs_testing.process_session import ProcessSession

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMEOUT_S = 300.0
START_TIMEOUT_S = 180.0
_END_TIMEOUT_S = 30.0
_POLL_INTERVAL_S = 0.2

# All on one line, so that the line numbers in bash's messages are those of the page.
_PRELUDE = (
    """trap 'env -0 > {state}' EXIT; """
    """trap 'echo "$0: line $LINENO: status $?: $BASH_COMMAND" >&2' ERR; """
)


class ExampleFailedError(Exception):
    """An example failed, or its result is not as documented.

    Args:
        reason: one sentence without the full stop.
        printed: the output of the example.
    """

    def __init__(self, reason: str, printed: str = "") -> None:
        super().__init__(f"{reason}\n{printed}".rstrip())


class Shell:
    """A shell that runs scripts one after the other, as if they were typed into one shell.

    Exported variables and the working directory are kept; variables that are not exported, and
    functions, are not.

    Args:
        directory: the working directory of the first script.
        env: the complete environment of the first script.
        name: the prefix of bash's messages.
    """

    def __init__(self, directory: Path, env: dict[str, str], name: str) -> None:
        self.env = {**env, "PWD": str(directory)}
        self._name = name
        self._state = directory.with_name(directory.name + ".env")

    @property
    def directory(self) -> str:
        """The working directory of the next script."""
        return self.env["PWD"]

    def arguments(self, source: str, line: int) -> list[str]:
        """Return the command that runs a script whose first line has this number on the page."""
        prelude = _PRELUDE.format(state=shlex.quote(str(self._state)))
        script = prelude + "\n" * (line - 1) + source
        options = ["--noprofile", "--norc", "-eu", "-o", "pipefail", "-E"]
        return ["bash", *options, "-c", script, self._name]

    def run(self, source: str, *, line: int, status: int = 0, timeout_s: float = TIMEOUT_S) -> str:
        """Run a script to its end.

        Args:
            source: the script.
            line: number on the page of its first line.
            status: the expected exit status.
            timeout_s: seconds after which the script is killed.

        Returns:
            The output, errors included.

        Raises:
            ExampleFailedError: the script ended with another status, or not in time.
        """
        process = subprocess.Popen(  # noqa: S603 -- the page's own script
            self.arguments(source, line),
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            _kill(process)
            printed = process.communicate()[0]
            raise ExampleFailedError(f"not done after {timeout_s:g} s", printed) from error
        finally:
            _kill(process)
        self._remember()
        if process.returncode != status:
            message = f"ended with status {process.returncode}, not {status}"
            raise ExampleFailedError(message, printed)
        return printed

    def _remember(self) -> None:
        with suppress(FileNotFoundError):  # a script that replaced its shell writes no state
            entries = os.fsdecode(self._state.read_bytes()).split("\0")
            self.env = dict(entry.split("=", 1) for entry in entries if "=" in entry)
            self._state.unlink()


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill the processes that a script has left in the background."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Background:
    """A server that a page starts, with all its processes.

    Args:
        command: program and arguments.
        ports: the ports that it listens on when it is ready.
        env: its complete environment, with the directory as ``PWD``.
        log: the file for its output.
    """

    def __init__(
        self, command: Sequence[str], *, ports: Sequence[int], env: Mapping[str, str], log: Path
    ) -> None:
        self.ports = frozenset(ports)
        self._log = log
        self._session = ProcessSession(command, env=env, directory=Path(env["PWD"]), log_path=log)

    @property
    def printed(self) -> str:
        """The output of the server so far."""
        return self._log.read_text(errors="replace")

    def wait(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the server listens on all its ports.

        Raises:
            ExampleFailedError: the server ended, or takes too long.
        """
        deadline = time.monotonic() + timeout_s
        while not all(map(self._session.listens_on, self.ports)):
            if (status := self._session.poll()) is not None:
                raise ExampleFailedError(f"ended with status {status}", self.printed)
            if time.monotonic() > deadline:
                message = f"does not listen on {sorted(self.ports)} after {timeout_s:g} s"
                raise ExampleFailedError(message, self.printed)
            time.sleep(_POLL_INTERVAL_S)

    def end(self) -> None:
        """End the server and all its processes."""
        self._session.end(timeout_s=_END_TIMEOUT_S)
