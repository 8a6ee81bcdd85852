"""Sockets, event loop and thread that serve an ASGI application, and stop at once.

Connections can also be reset and closed, which ASGI does not provide.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import logging
import socket
import struct
import termios
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp

# Not uvicorn's logger, which other uses of uvicorn in this process may configure. The null handler
# keeps logging's handler of last resort from printing to the console.
_logger = logging.getLogger("mlflow_bucketfs_testing.server")
_logger.addHandler(logging.NullHandler())

# Long: a server that closes idle connections races with clients that reuse them.
_KEEP_ALIVE_S = 3600
_BACKLOG = 1024
_MAX_PORT = 65535
_LOST_ROUNDS = 100
_INT = struct.Struct("i")
_LINGER_NOT_AT_ALL = struct.pack("ii", 1, 0)
_FLUSH_ATTEMPTS = 200
_FLUSH_PAUSE_S = 0.005


class PortInUseError(OSError):
    """Another server listens on the port.

    Attributes:
        host: the requested host.
        port: the requested port.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            errno.EADDRINUSE,
            f"{host}:{port} is in use: stop the server that listens on it, "
            "or choose another port (0 picks a free one)",
        )
        self.host = host
        self.port = port

    def __str__(self) -> str:
        return str(self.strerror)


class Listener(NamedTuple):
    """A bound socket, and the TLS context to serve it with (None: plain HTTP)."""

    socket: socket.socket
    context: ssl.SSLContext | None


def bind(host: str, port: int) -> socket.socket:
    """Bind a TCP socket.

    Args:
        host: host name or address, IPv4 or IPv6.
        port: port; 0 picks a free one.

    Raises:
        PortInUseError: the port is in use.
        OSError: the host cannot be resolved or is not this machine's.
        ValueError: the port is out of range.
    """
    if not 0 <= port <= _MAX_PORT:  # getaddrinfo would take 70000 for 4464
        raise ValueError(f"port {port} is not between 0 and {_MAX_PORT}")
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        # so that a restart need not wait for the end of the old connections' TIME_WAIT
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # listen at once: two sockets with SO_REUSEADDR can both bind as long as none listens
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(host, port) from error
        raise
    return bound


class ServerThread:
    """A thread with its own event loop that serves an application on several listeners.

    Args:
        app: the application.
        listeners: bound sockets; they are closed by `stop`.
        on_connection: called in the loop with the number of each new connection.
    """

    def __init__(
        self, app: ASGIApp, listeners: Sequence[Listener], on_connection: Callable[[int], None]
    ) -> None:
        self._config = Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        self._listeners = listeners
        self._on_connection = on_connection
        self._state = ServerState()
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="bucketfs-server", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    def start(self) -> None:
        """Start the thread, and wait until it answers requests."""
        self._thread.start()
        self._started.result()

    def stop(self) -> None:
        """Abort all connections and end the thread, at once."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed already: it could not start
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 -- raised again in the caller's thread
            if not self._started.done():
                self._started.set_exception(error)

    async def _serve(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda _loop, context: _logger.debug("in the event loop: %s", context)
        )

        def connect() -> Connection:
            connection = Connection(self._config, self._state, {}, loop)
            self._on_connection(connection.number)
            return connection

        servers = [
            await loop.create_server(
                connect, sock=listener.socket, ssl=listener.context, backlog=_BACKLOG
            )
            for listener in self._listeners
        ]
        self._started.set_result(None)
        await self._stop.wait()
        for listener in self._listeners:
            loop.remove_reader(listener.socket)  # accepts no more
        await asyncio.sleep(0)  # connections just accepted get their transports
        for server in servers:
            server.close()
        # All transports of the loop: before Python 3.13, asyncio has no public access to those
        # whose TLS handshake is not complete, and it would report them as not closed.
        for transport in list(getattr(loop, "_transports", {}).values()):
            transport.abort()
        for _ in range(_LOST_ROUNDS):  # until connection_lost() was called on each connection
            if not self._state.connections:
                break
            await asyncio.sleep(0)
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Connection(H11Protocol):
    """A connection that an application can abort.

    The application finds it in ``scope["state"]["connection"]``.

    Attributes:
        number: number of the connection in this process, for the request log.
    """

    _numbers = itertools.count(1)

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)
        self.number = next(self._numbers)
        self.logger = _logger
        self.access_log = False

    @property
    def gone(self) -> bool:
        """Whether the client has disconnected, or the connection was aborted."""
        return bool(self.cycle.disconnected)

    def write_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the header of a response whose body ends with the connection; then call `write`.

        h11 does not write such a response to an HTTP/1.1 client: it would send chunks.
        """
        self.cycle.disconnected = True  # uvicorn must not write to this response any more
        head = h11.Connection(h11.SERVER)
        head.receive_data(b"GET / HTTP/1.0\r\n\r\n")
        head.next_event()
        event = h11.Response(status_code=status, headers=headers)
        self.transport.write(head.send(event) or b"")

    async def write(self, data: bytes) -> None:
        """Send a part of the body of a response begun with `write_head`."""
        await self.flow.drain()
        self.transport.write(data)

    def close(self) -> None:
        """Close the connection normally (FIN) once everything written is sent."""
        self.cycle.disconnected = True
        self.transport.close()

    async def reset(self) -> None:
        """Reset the connection (RST) once the client's kernel has everything written.

        If the client does not read, this waits for a second at most.
        """
        self.cycle.disconnected = True
        tcp = self.transport.get_extra_info("socket")
        for _ in range(_FLUSH_ATTEMPTS):
            if self.transport.is_closing():
                return
            if not self.transport.get_write_buffer_size() and not _unacknowledged_bytes(tcp):
                break
            await asyncio.sleep(_FLUSH_PAUSE_S)
        # closing a socket with a linger time of 0 resets it, instead of shutting it down
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT_AT_ALL)
        self.transport.abort()

    def _should_upgrade(self) -> bool:
        # Java's HTTP client offers h2c on every plain connection; the offer is ignored silently, as
        # BucketFS must do for bucketfs-java to work over HTTP.
        return False


def _unacknowledged_bytes(tcp: socket.socket) -> int:
    """Return how many bytes the kernel would drop with a reset; 0 if unknown (not Linux)."""
    with suppress(OSError):
        packed = fcntl.ioctl(tcp.fileno(), termios.TIOCOUTQ, bytes(_INT.size))
        return int(_INT.unpack(packed)[0])
    return 0
