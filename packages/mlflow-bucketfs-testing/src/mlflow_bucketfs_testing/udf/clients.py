"""The UDF clients, on this machine or in a container, and the commands that start them.

To add a kind of client, subclass `Client` and extend `find_client`.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow_bucketfs_testing
from mlflow_bucketfs_testing import CONTAINER_CLIENT, REFERENCE_CLIENT
from mlflow_bucketfs_testing.errors import SlcError, UdfClientError
from mlflow_bucketfs_testing.slc import SlcContainer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

_REFERENCE_MODULE = "mlflow_bucketfs_testing.udf.reference_client"
_ARGUMENTS = ("lang=python", "scriptOptionsParserVersion=1")  # of every client, after the socket
# Clients end without flushing: otherwise the output of a failed or killed script is lost
_UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
# Paths in a container
_EXASOL_CLIENT = "/exaudf/exaudfclient"
_SOCKETS = "/run/udf"
_TESTING = "/run/udf-testing"
_PACKAGES = "/run/udf-packages"


class Client(ABC):
    """A UDF client; a runner uses it as a context for all runs, and starts a process for each.

    Args:
        name: its name, as in the option ``--mlflow-bucketfs-udf-client``.

    Attributes:
        sees_buckets: whether the buckets are at ``/buckets`` in its processes.
        other_user: whether its processes run as another user; the socket is then open to all.
    """

    sees_buckets = False
    other_user = False

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Self:
        """Prepare the resources that all runs share; by default there are none."""
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 -- most have no shared resources
        """Release the shared resources."""

    @abstractmethod
    def command(self, socket: Path, buckets: Path | None) -> tuple[list[str], dict[str, str]]:
        """Return the command of the process for one run, and its complete environment.

        Args:
            socket: the socket that the process connects to.
            buckets: directory with the buckets for the process; None for no buckets.
        """

    def end(self, socket: Path) -> None:  # noqa: B027 -- most have no such resources
        """Release the resources of a run that outlive its process; by default there are none.

        Args:
            socket: the socket of the run.
        """


class LocalClient(Client):
    """A client that runs as a process of this user and gets the buckets' path in a variable.

    Args:
        name: its name, as in the option ``--mlflow-bucketfs-udf-client``.
        program: program and leading arguments.
    """

    def __init__(self, name: str, program: Sequence[str]) -> None:
        super().__init__(name)
        self._program = program

    def command(self, socket: Path, buckets: Path | None) -> tuple[list[str], dict[str, str]]:
        """Return the command, and this process's environment plus ``EXA_BUCKETFS_MOUNT_ROOT``."""
        variables = {**os.environ, **_UNBUFFERED}
        if buckets is not None:
            variables["EXA_BUCKETFS_MOUNT_ROOT"] = str(buckets)
        return [*self._program, f"ipc://{socket}", *_ARGUMENTS], variables


class SlcClient(Client):
    """A client in a container: user 500, no network, read-only files, buckets at ``/buckets``.

    Args:
        archive: the exported ``.tar.gz``, to run with Docker, or its unpacked directory, to run
            as root without Docker.
        reach: loopback addresses of this machine, such as ``127.0.0.1:5000``, that scripts can
            connect to although the container has no network.
        reference_packages: directory, readable for all users, with pyzmq for the container's
            Python, and protobuf if the container has none. With it, the reference client runs in
            that Python instead of Exasol's client: for a container that was not built on
            Exasol's base image.
        python: version of the container's Python, for ``reach`` and the reference client.
    """

    sees_buckets = True
    other_user = True

    def __init__(
        self,
        archive: str | os.PathLike[str],
        *,
        reach: Sequence[str] = (),
        reference_packages: str | os.PathLike[str] | None = None,
        python: str = "3.12",
    ) -> None:
        kind = " (reference client)" if reference_packages else ""
        super().__init__(f"{CONTAINER_CLIENT}{os.fspath(archive)}{kind}")
        self._container = SlcContainer(archive, python=python)
        self._reach = reach
        self._packages = reference_packages
        self._has_client = reference_packages is not None
        self._runs: dict[Path, ExitStack] = {}

    def command(self, socket: Path, buckets: Path | None) -> tuple[list[str], dict[str, str]]:
        """Return the command that runs the client in a new container.

        Args:
            socket: the socket that the client connects to.
            buckets: directory that is ``/buckets`` in the container; None for an empty one.

        Raises:
            UdfClientError: the container is missing, cannot be run, or has no client.
        """
        mounts: dict[str, str | os.PathLike[str]] = {_SOCKETS: socket.parent}
        if buckets is not None:
            mounts["/buckets"] = buckets
        program, env = self._program(mounts)
        address = f"ipc://{_SOCKETS}/{socket.name}"
        with ExitStack() as stack:
            try:
                self._require_client()
                launcher = self._container.launcher(
                    [*program, address, *_ARGUMENTS], env=env, mounts=mounts, reach=self._reach
                )
                line = stack.enter_context(launcher)
            except SlcError as error:
                raise UdfClientError(str(error)) from error
            self._runs[socket] = stack.pop_all()
        return line, dict(os.environ)

    def end(self, socket: Path) -> None:
        """Remove the container of a run."""
        if run := self._runs.pop(socket, None):
            run.close()

    def _program(
        self, mounts: dict[str, str | os.PathLike[str]]
    ) -> tuple[list[str], Mapping[str, str]]:
        if self._packages is None:
            return [_EXASOL_CLIENT], _UNBUFFERED
        package = Path(mlflow_bucketfs_testing.__file__).parent
        mounts[f"{_TESTING}/{package.name}"] = package
        mounts[_PACKAGES] = self._packages
        # Last, so that the container's own packages take precedence
        path = self._container.python_path([_TESTING, _PACKAGES])
        return self._container.python_command("-m", _REFERENCE_MODULE), {
            "PYTHONPATH": path,
            **_UNBUFFERED,
        }

    def _require_client(self) -> None:
        if self._has_client:
            return
        if self._container.run(["test", "-x", _EXASOL_CLIENT], check=False).returncode:
            raise UdfClientError(
                f"the container {self._container.archive} has no UDF client {_EXASOL_CLIENT}: "
                "build it on one of Exasol's base images"
            )
        self._has_client = True


def find_client(name: str) -> Client:
    """Return the client for a value of ``--mlflow-bucketfs-udf-client``.

    Args:
        name: ``reference``, the path of an ``exaudfclient``, or ``slc:`` and the path of an
            exported container.

    Raises:
        UdfClientError: the client is missing, or not executable.
    """
    if name == REFERENCE_CLIENT:
        return LocalClient(name, [sys.executable, "-m", _REFERENCE_MODULE])
    if name.startswith(CONTAINER_CLIENT):
        return SlcClient(name.removeprefix(CONTAINER_CLIENT))
    path = Path(name).absolute()
    if not path.is_file():
        raise UdfClientError(
            f"there is no UDF client at {path}: give the path of the exaudfclient of a "
            f"script-language container, or use {REFERENCE_CLIENT!r}"
        )
    if not os.access(path, os.X_OK):
        raise UdfClientError(f"the UDF client {path} is not executable: chmod +x {path}")
    return LocalClient(name, [str(path)])
