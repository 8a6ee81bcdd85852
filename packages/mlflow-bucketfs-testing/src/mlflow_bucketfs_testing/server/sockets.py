"""Sockets, event loop and thread: an ASGI application on listeners that stop promptly.

Also what lies below HTTP: resets and closes, which no ASGI application can cause.
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

# Not uvicorn's own logger: that one belongs to whatever else runs uvicorn in this process. The
# null handler keeps logging's handler of last resort from printing to the console.
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
    """Something else listens on the port.

    Attributes:
        host: host that was asked for.
        port: port that was asked for.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            errno.EADDRINUSE,
            f"{host}:{port} is in use: stop what listens there, "
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
        PortInUseError: The port is taken.
        OSError: The host cannot be resolved or is not this machine's.
        ValueError: No port has this number.
    """
    if not 0 <= port <= _MAX_PORT:  # getaddrinfo would take 70000 for 4464
        raise ValueError(f"port {port} is not between 0 and {_MAX_PORT}")
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        # so that a restart need not wait for the old connections' TIME_WAIT to pass
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
    """Serves one application on several listeners, in a thread with its own event loop.

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
        """Start serving; returns when requests are answered."""
        self._thread.start()
        self._started.result()

    def stop(self) -> None:
        """Stop serving: all connections are aborted, so this takes no time."""
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
        await asyncio.sleep(0)  # what was accepted a moment ago gets its transport
        for server in servers:
            server.close()
        # All transports of the loop: asyncio has no public way (before Python 3.13) to reach
        # those whose TLS handshake is not complete, and they would be reported as not closed.
        for transport in list(getattr(loop, "_transports", {}).values()):
            transport.abort()
        for _ in range(_LOST_ROUNDS):  # until each connection knows that it is lost
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
        number: counts the connections of this process, for the request log.
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
        """Whether the client has left, or the connection was aborted."""
        return bool(self.cycle.disconnected)

    def write_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Start an answer whose body ends where the connection ends; go on with `write`.

        h11 writes no such answer to an HTTP/1.1 client: it would choose chunks.
        """
        self.cycle.disconnected = True  # from here on, uvicorn has no part in this answer
        head = h11.Connection(h11.SERVER)
        head.receive_data(b"GET / HTTP/1.0\r\n\r\n")
        head.next_event()
        event = h11.Response(status_code=status, headers=headers)
        self.transport.write(head.send(event) or b"")

    async def write(self, data: bytes) -> None:
        """Send a part of the body of an answer begun with `write_head`."""
        await self.flow.drain()
        self.transport.write(data)

    def close(self) -> None:
        """Close the connection in good order once everything written is sent."""
        self.cycle.disconnected = True
        self.transport.close()

    async def reset(self) -> None:
        """Reset the connection (RST) once the client's side has everything that was written.

        A client that does not read is waited for as long as a second.
        """
        self.cycle.disconnected = True
        tcp = self.transport.get_extra_info("socket")
        for _ in range(_FLUSH_ATTEMPTS):
            if self.transport.is_closing():
                return
            if not self.transport.get_write_buffer_size() and not _unacknowledged_bytes(tcp):
                break
            await asyncio.sleep(_FLUSH_PAUSE_S)
        # a socket that must not linger is reset when closed, instead of being shut down
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT_AT_ALL)
        self.transport.abort()

    def _should_upgrade(self) -> bool:
        # Java's HTTP client offers h2c on every plain connection; the offer is ignored without a
        # word, as BucketFS must do for bucketfs-java to work over HTTP.
        return False


def _unacknowledged_bytes(tcp: socket.socket) -> int:
    """Return how many bytes the kernel would drop with a reset; 0 if unknown (not Linux)."""
    with suppress(OSError):
        answer = fcntl.ioctl(tcp.fileno(), termios.TIOCOUTQ, bytes(_INT.size))
        return int(_INT.unpack(answer)[0])
    return 0
