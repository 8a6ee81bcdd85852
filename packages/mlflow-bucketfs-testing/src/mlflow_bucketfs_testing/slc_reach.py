"""Forward loopback addresses of this machine to a container that has no network.

Each address has a Unix socket in a folder that is mounted in the container. On this machine, a
thread forwards connections from the socket to the address. In the container, this module runs as a
script: it listens on the same address, forwards connections to the socket, and runs the command. So
it imports only the standard library.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FOLDER = "/run/reach"
_BLOCK = 64 * 1024
_SCRIPT = "reach.py"


@contextmanager
def reachable(addresses: Sequence[str]) -> Iterator[Path]:
    """Forward connections from a container to these addresses of this machine.

    Args:
        addresses: loopback addresses such as ``127.0.0.1:5000``.

    Yields:
        The folder to mount as `FOLDER` in the container.

    Raises:
        ValueError: one is not a loopback address.
    """
    targets = [_parse(address) for address in addresses]
    # Not below a folder of the tests, since the path of a socket has at most 107 bytes
    with TemporaryDirectory(prefix="slc-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / _SCRIPT).write_bytes(Path(__file__).read_bytes())
        # The container has another user
        folder.chmod(0o755)
        for number, target in enumerate(targets):
            listener = stack.enter_context(_listening(folder / str(number)))
            stack.enter_context(_forwarding(listener, partial(socket.create_connection, target)))
        yield folder


def command_that_reaches(
    addresses: Sequence[str], command: Sequence[str], *, python: str
) -> list[str]:
    """Return a command for the container that runs the given one with the addresses forwarded.

    Args:
        addresses: the addresses given to `reachable`, in the same order.
        command: program and arguments.
        python: the container's Python.
    """
    routes = [f"{address}={FOLDER}/{number}" for number, address in enumerate(addresses)]
    return [python, "-I", "-S", f"{FOLDER}/{_SCRIPT}", *routes, "--", *command]


def main(arguments: Sequence[str]) -> int:
    """Run a command with addresses forwarded to sockets: ``ADDRESS=SOCKET… -- COMMAND…``."""
    end = arguments.index("--")
    with ExitStack() as stack:
        for route in arguments[:end]:
            address, _, path = route.partition("=")
            listener = stack.enter_context(socket.create_server(_parse(address)))
            stack.enter_context(_forwarding(listener, partial(_connected_to_socket, path)))
        code = subprocess.call(arguments[end + 1 :])  # noqa: S603 -- the caller's command
    # As a shell reports a command that a signal ended
    return code if code >= 0 else 128 - code


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    with suppress(ValueError):
        if ipaddress.IPv4Address(host).is_loopback and 0 < int(port) < 1 << 16:
            return host, int(port)
    raise ValueError(f"{address} is not a loopback address: use 127.0.0.1:PORT")


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        path.chmod(0o666)
        listener.listen()
        yield listener


def _connected_to_socket(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


@contextmanager
def _forwarding(listener: socket.socket, connect: Callable[[], socket.socket]) -> Iterator[None]:
    threading.Thread(target=_accept, args=(listener, connect), daemon=True).start()
    try:
        yield
    finally:
        # Closing alone would leave the thread waiting for a connection
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, connect), daemon=True).start()


def _serve(connection: socket.socket, connect: Callable[[], socket.socket]) -> None:
    # If the target refuses, the client's connection is closed
    with connection, suppress(OSError), connect() as target:
        back = threading.Thread(target=_copy, args=(target, connection), daemon=True)
        back.start()
        _copy(connection, target)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(_BLOCK):
            target.sendall(block)
    # Closes this direction only; the other one may go on
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
