"""The servers that a page starts, which run until they are stopped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_bucketfs_testing.process_session import ProcessSession

from doc_examples.failure import ExampleFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START_TIMEOUT_S = 180.0
_END_TIMEOUT_S = 30.0
_POLL_INTERVAL_S = 0.2


class Background:
    """A command that stays, with all its processes.

    Args:
        command: program and arguments.
        ports: what it listens on when it is ready.
        env: all its variables, with the directory as ``PWD``.
        log: file for what it prints.
    """

    def __init__(
        self, command: Sequence[str], *, ports: Sequence[int], env: Mapping[str, str], log: Path
    ) -> None:
        self.ports = frozenset(ports)
        self._log = log
        self._session = ProcessSession(command, env=env, directory=Path(env["PWD"]), log_path=log)

    @property
    def printed(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def wait(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when it listens on all its ports.

        Raises:
            ExampleFailedError: it ended instead, or takes too long.
        """
        deadline = time.monotonic() + timeout_s
        while not all(map(self._session.listens_on, self.ports)):
            if (status := self._session.poll()) is not None:
                raise ExampleFailedError(f"ended with status {status}", self.printed)
            if time.monotonic() > deadline:
                said = f"does not listen on {sorted(self.ports)} after {timeout_s:g} s"
                raise ExampleFailedError(said, self.printed)
            time.sleep(_POLL_INTERVAL_S)

    def end(self) -> None:
        """End it as Ctrl-C would, and make sure that none of its processes is left."""
        self._session.end(timeout_s=_END_TIMEOUT_S)
