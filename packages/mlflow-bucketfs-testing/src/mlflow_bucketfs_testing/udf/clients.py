"""The clients that run scripts: how each is started for a socket.

Another kind of client is another subclass of `Client`, and a line in `find_client`.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_bucketfs_testing.errors import UdfClientError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

REFERENCE = "reference"
REFERENCE_MODULE = "mlflow_bucketfs_testing.udf.reference_client"
CONTAINER = "slc:"
"""What the path of an exported container has before it where a client is named."""

ARGUMENTS = ("lang=python", "scriptOptionsParserVersion=1")
"""What every client is started with, after the address of the socket."""


class Client(ABC):
    """A client that a runner starts for each run, in a ``with`` block around all of them.

    Args:
        name: as the option ``--mlflow-bucketfs-udf-client`` names it.

    Attributes:
        sees_buckets: whether the buckets are at ``/buckets`` in its processes.
        other_user: whether its processes belong to another user, who must reach the socket.
    """

    sees_buckets = False
    other_user = False

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Self:
        """Prepare what all runs share; by default nothing."""
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 -- most share nothing
        """Remove it again."""

    @abstractmethod
    def command(self, socket: Path, buckets: Path | None) -> tuple[list[str], dict[str, str]]:
        """Return program and arguments of a process for one run, and its whole environment.

        Args:
            socket: the socket that the process connects to.
            buckets: directory that it shall see as the buckets; None: none.
        """

    def end(self, socket: Path) -> None:  # noqa: B027 -- most have nothing to end
        """End what the process of a run left outside of its own session; by default nothing.

        Args:
            socket: the socket of the run.
        """


class LocalClient(Client):
    """A client that runs as a process of this user, and finds the buckets by a variable.

    Args:
        name: as the option names it.
        program: program and leading arguments.
    """

    def __init__(self, name: str, program: Sequence[str]) -> None:
        super().__init__(name)
        self._program = program

    def command(self, socket: Path, buckets: Path | None) -> tuple[list[str], dict[str, str]]:
        """Return the command; its environment is ours, with `EXA_BUCKETFS_MOUNT_ROOT`."""
        variables = dict(os.environ)
        if buckets is not None:
            variables["EXA_BUCKETFS_MOUNT_ROOT"] = str(buckets)
        return [*self._program, f"ipc://{socket}", *ARGUMENTS], variables


def find_client(name: str) -> Client:
    """Return the client that an option names.

    Args:
        name: ``reference``, the path of an ``exaudfclient``, or ``slc:`` and the path of an
            exported container.

    Raises:
        UdfClientError: It is missing, or not executable.
    """
    if name == REFERENCE:
        return LocalClient(name, [sys.executable, "-m", REFERENCE_MODULE])
    if name.startswith(CONTAINER):
        from mlflow_bucketfs_testing.udf.slc_client import SlcClient  # noqa: PLC0415 -- derived

        return SlcClient(name.removeprefix(CONTAINER))
    path = Path(name).absolute()
    if not path.is_file():
        raise UdfClientError(
            f"there is no UDF client at {path}: name an exaudfclient, as it is in a "
            f"script-language container, or use {REFERENCE!r}"
        )
    if not os.access(path, os.X_OK):
        raise UdfClientError(f"the UDF client {path} is not executable: chmod +x {path}")
    return LocalClient(name, [str(path)])
