"""UDF clients in an exported script-language container, run as Exasol runs them."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow_bucketfs_testing
from mlflow_bucketfs_testing.errors import SlcError, UdfClientError
from mlflow_bucketfs_testing.slc import SlcContainer
from mlflow_bucketfs_testing.udf.clients import ARGUMENTS, CONTAINER, REFERENCE_MODULE, Client

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EXASOLS = "/exaudf/exaudfclient"
_SOCKETS = "/run/udf"
_TESTING = "/run/udf-testing"
_PACKAGES = "/run/udf-packages"


class SlcClient(Client):
    """The client of a container: no network, a read-only system, user 500, its own ``/buckets``.

    Args:
        archive: the exported ``.tar.gz``, which Docker runs, or the directory that it was
            unpacked to, which root runs without Docker.
        reach: loopback addresses of this machine, such as ``127.0.0.1:5000``, that scripts reach
            under the same address although there is no network.
        reference_packages: run the reference client in the container's Python instead of Exasol's
            client, with the packages in this directory, which other users can read: pyzmq for
            that Python, and protobuf if the container has none. For a container that was not
            built on Exasol's base image.
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
        super().__init__(f"{CONTAINER}{os.fspath(archive)}{kind}")
        self._container = SlcContainer(archive, python=python)
        self._reach = reach
        self._packages = reference_packages
        self._has_client = reference_packages is not None
        self._runs: dict[Path, ExitStack] = {}

    def command(self, socket: Path, buckets: Path | None) -> tuple[list[str], dict[str, str]]:
        """Return the command that runs the client in a fresh container.

        Args:
            socket: the socket that the client connects to.
            buckets: directory that is ``/buckets`` in the container; None: an empty one.

        Raises:
            UdfClientError: There is no container, nothing that runs it, or no client in it.
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
                    [*program, address, *ARGUMENTS], env=env, mounts=mounts, reach=self._reach
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
            return [_EXASOLS], {}
        package = Path(mlflow_bucketfs_testing.__file__).parent
        mounts[f"{_TESTING}/{package.name}"] = package
        mounts[_PACKAGES] = self._packages
        # Last, so that they replace nothing of what the container has
        path = self._container.python_path([_TESTING, _PACKAGES])
        return self._container.python_command("-m", REFERENCE_MODULE), {"PYTHONPATH": path}

    def _require_client(self) -> None:
        if self._has_client:
            return
        if self._container.run(["test", "-x", _EXASOLS], check=False).returncode:
            raise UdfClientError(
                f"the container {self._container.archive} has no UDF client {_EXASOLS}: build it "
                "on a base image of Exasol's"
            )
        self._has_client = True
