"""The benchmark's handle on the embedded BucketFS."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks.results import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

# Where the measured clients keep their artifacts.
FOLDER = "benchmark"

_STOP_TIMEOUT_S = 60


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        uri: ``exa+bfs://`` URI of its bucket.
        url: the same for HTTP clients.
        password: the bucket's write password.
    """

    uri: str
    url: str
    password: str
    _process: subprocess.Popen[str]

    @property
    def artifact_uri(self) -> str:
        """Root of the measured clients' artifacts."""
        return f"{self.uri}/{FOLDER}"

    def reset(self) -> None:
        """Make it as empty as it was at the beginning."""
        _ask(self._process, "reset")

    def forget_requests(self) -> None:
        """Count from zero."""
        _ask(self._process, "forget_requests")

    def traffic(self) -> Traffic:
        """What there was since :meth:`forget_requests`."""
        return Traffic(**_ask(self._process, "traffic"))

    def crowd(self, number: int) -> None:
        """Add keys of other runs."""
        _ask(self._process, "crowd", number)

    def store(self, directory: Path, folder: str = FOLDER) -> None:
        """Add a local directory's files without any client."""
        _ask(self._process, "store", str(directory), folder)

    def mount_root(self) -> str:
        """The directory that UDFs would see as ``/buckets``."""
        return str(_ask(self._process, "mount_root"))


@contextmanager
def running_server(profile: str, env: dict[str, str]) -> Iterator[Server]:
    """Run a server as long as the block runs.

    Args:
        profile: one of the embedded server's.
        env: the process's environment; its temporary directory gets the objects.
    """
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("serve.py"), profile],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the benchmark, which then closes the input
    )
    try:
        yield Server(**_ask(process, "address"), _process=process)
    finally:
        cast("TextIO", process.stdin).close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        finally:
            process.kill()
            process.wait()


def _ask(process: subprocess.Popen[str], *command: object) -> Any:
    requests, answers = cast("TextIO", process.stdin), cast("TextIO", process.stdout)
    requests.write(json.dumps(command) + "\n")
    requests.flush()
    answer = answers.readline()
    if not answer:
        raise RuntimeError(f"the embedded server ended while it was asked to {command[0]}")
    return json.loads(answer)
