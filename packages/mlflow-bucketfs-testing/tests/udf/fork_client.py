"""Start the reference client fast, by a fork of a server that has imported common modules.

Run as a script: ``serve SOCKET MODULES…`` imports the modules, and forks a client for each request.
``run SOCKET ARGUMENTS…`` is the process that the runner starts instead of a client: it passes its
arguments, environment and output to the server, and ends with the exit status of the fork.
Tests import `started`, which starts the server.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow_bucketfs_testing.udf.clients import Client

_LONGEST = 1 << 20


@contextmanager
def started(*modules: str, env: Mapping[str, str] | None = None) -> Iterator[Client]:
    """Start a server that has imported the modules, and yield the client that it forks.

    Args:
        modules: names of modules.
        env: the server's environment; None for that of this process.
    """
    # imported here, because `run` starts faster without them
    import subprocess  # noqa: PLC0415
    from tempfile import TemporaryDirectory  # noqa: PLC0415

    from mlflow_bucketfs_testing import REFERENCE_CLIENT  # noqa: PLC0415
    from mlflow_bucketfs_testing.udf.clients import LocalClient  # noqa: PLC0415

    with TemporaryDirectory(prefix="fork-") as folder:
        address = f"{folder}/s"
        command = [sys.executable, "-W", "ignore", __file__, "serve", address, *modules]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout.readline() == "ready\n"
                yield LocalClient(
                    REFERENCE_CLIENT, [sys.executable, "-I", "-S", __file__, "run", address]
                )
            finally:
                server.kill()


def run(address: str, arguments: list[str]) -> int:
    """Request a client from the server, and return the client's exit status."""
    request = {"arguments": arguments, "env": dict(os.environ), "directory": os.getcwd()}  # noqa: PTH109
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(request).encode()], [1, 2])
        connection.shutdown(socket.SHUT_WR)
        status = connection.recv(16)
    return int(status or 1)


def serve(address: str, modules: list[str]) -> None:
    """Import the modules, and fork a client for each request."""
    from mlflow_bucketfs_testing.udf import reference_client, reference_frames  # noqa: F401, PLC0415

    for module in modules:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)  # noqa: T201
        while True:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    _run_client(connection, reference_client.main)


def _run_client(connection, main) -> None:
    message, streams, _, _ = socket.recv_fds(connection, _LONGEST, 2)
    while block := connection.recv(_LONGEST):
        message += block
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
    request = json.loads(message)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["directory"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = 1
    try:
        status = main(request["arguments"])
    finally:
        sys.stdout.flush()
        connection.sendall(str(status).encode())
        os._exit(status)


if __name__ == "__main__":
    role, address, *rest = sys.argv[1:]
    sys.exit(serve(address, rest) if role == "serve" else run(address, rest))
